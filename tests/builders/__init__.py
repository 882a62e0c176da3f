"""Builders of valid objects: keys, tokens, peers, requests, policies. A test changes one field.

* :mod:`.clock` the time of all tests,
* :mod:`.tokens` keys, claims, signatures, trust chains,
* :mod:`.peers` certificates and the chains nats-server reports,
* :mod:`.requests` authorization requests, typed and as wire bytes,
* :mod:`.policies` policies with everything enabled, in x509 and in issuer mode.

Keys that are slow to generate are generated once for each process.
"""
