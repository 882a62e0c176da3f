"""Choria tokens: parsing, verification, trust chains and issuing. Knows nothing of NATS or policy.

Read :mod:`.verify` first, then :mod:`.jws` (what is accepted as a token at all) and :mod:`.chain`
(who may have signed it).
"""
