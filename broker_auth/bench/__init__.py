"""Measures the cost of decisions, requests and connections, compared with the required cryptography.

Read :mod:`.decision` first (the hot path in process, stage by stage), then :mod:`.service` (the same
through a real nats-server) and :mod:`.run` (which parts there are). :mod:`.materials` makes the keys,
tokens and signed requests that all of them use. Everything runs on 127.0.0.1 and ends by itself.
"""
