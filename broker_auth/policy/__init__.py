"""The decision: whether a connection is admitted, to which account, with which permissions. No I/O, clock or NATS.

Read :mod:`.rules` first (the rules in order, numbered as in ``docs/policy.md``), then
:mod:`.permissions` (the permissions of admitted connections) and :mod:`.decision` (the result).
"""
