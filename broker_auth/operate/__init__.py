"""Operators' tools for a live deployment: reports, explanations, checks. Not involved in decisions.

Read :mod:`.access` first (how commands log in to brokers). :mod:`.report`, :mod:`.streams` and :mod:`.doctor` are
the tools that connect; :mod:`.why` and :mod:`.explain` work on audit records alone.
"""
