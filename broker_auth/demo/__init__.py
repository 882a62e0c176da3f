"""``broker-auth demo``: the whole system on this machine, real servers, real TLS, real tokens.

Read :mod:`.run` first, then :mod:`.attempts` (login attempts with their expected outcome) and :mod:`.isolation`
(what an admitted node can and cannot reach). The end-to-end tests use them too.
"""
