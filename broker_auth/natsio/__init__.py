"""Speaking NATS beyond what nats-py does: keys, encryption, and clients that insist on TLS.

Read :mod:`.client` first. :mod:`.natspy` holds every private part of nats-py that is used; :mod:`.nkey` and
:mod:`.xkey` are NATS's keys; :mod:`.subjects` names what is shared with nats-server.
"""
