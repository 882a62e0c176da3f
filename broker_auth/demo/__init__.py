"""``broker-auth demo``: the whole system on this machine, real servers, real TLS, real tokens.

Read :mod:`.run` first, then :mod:`.attempts` (who tries to get in, and what must happen) and
:mod:`.isolation` (what an admitted node can and cannot reach). :mod:`.site` starts everything; the
end-to-end tests use it too.
"""
