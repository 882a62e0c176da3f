"""Audit records, from the decision to the reader.

Read :mod:`.record` first (what is kept of a decision), then :mod:`.redact` (what is removed from a stored request),
:mod:`.sinks` (where records go) and :mod:`.reader` (how commands read them back).
"""
