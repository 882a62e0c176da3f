"""The decision: who gets in, into which account, with which permissions. No I/O, no clock, no NATS.

Read :mod:`.rules` first (the rules in order, numbered as in ``docs/policy.md``), then
:mod:`.permissions` (what an admitted connection may do) and :mod:`.decision` (what comes out).
"""
