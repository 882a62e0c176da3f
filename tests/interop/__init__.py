"""Tokens made by choria-io/tokens (Go) accepted here, and ours accepted there. Opt-in: ``make test-interop``.

Read :mod:`.edges` for where the two differ, :mod:`.golang` for how Go is asked.
"""
