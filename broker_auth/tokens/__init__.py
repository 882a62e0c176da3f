"""Choria tokens: parsing, verification, trust chains and issuing. Independent of NATS and of the policy.

Read :mod:`.verify` first, then :mod:`.jws` (the accepted format) and :mod:`.chain` (keys that may have
signed a token).
"""
