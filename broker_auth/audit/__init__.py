"""Audit records, from the decision to the reader.

Read :mod:`.record` first (what a record contains), then :mod:`.redact` (what is removed from a stored request),
:mod:`.sinks` (destinations) and :mod:`.reader` (how commands read them back).
"""
