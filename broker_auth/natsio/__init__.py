"""NATS features that nats-py lacks: keys, encryption, and clients that enforce TLS.

Read :mod:`.client` first. :mod:`.natspy` holds all uses of nats-py's private parts; :mod:`.nkey` and :mod:`.xkey`
are NATS's keys; :mod:`.subjects` holds names shared with nats-server.
"""
