"""Auth callout: bytes from nats-server in, a signed answer out. Knows nothing of how it is decided.

Read :mod:`.service` first (one request's way), then :mod:`.request` (what is checked before anything
else) and :mod:`.reply` (what is signed). :mod:`.link` keeps the connections, :mod:`.xkey` encrypts.

Around it, :mod:`.process` is one worker, :mod:`.supervisor` keeps several and changes them for new ones
on reload, and :mod:`.serve` tells the world about it.
"""
