"""Examines a live deployment and reports problems, each finding with its remedy.

Read :mod:`.examine` first: the groups of checks and their order. :mod:`.finding` contains their results; :mod:`.probe`
examines a broker without a client library. No check has side effects: its connections are refused or closed, and its
messages have no subscribers.
"""
