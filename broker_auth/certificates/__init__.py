"""X.509 certificates of peers, and PEM files. Knows nothing of tokens, policy or NATS.

Read :mod:`.verifier` first (whether a verified chain leads to a configured CA, and whose certificate it is), then
:mod:`.paths` (how the chain is followed). :mod:`.certificate` parses certificates; :mod:`.pemfile` and :mod:`.files`
read PEM files.
"""
