"""Tokens of choria-io/tokens (Go) are accepted here, and tokens made here by Go. Opt-in: ``make test-interop``.

Read :mod:`.edges` for where the two differ, :mod:`.golang` for how Go is asked.
"""
