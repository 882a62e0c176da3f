"""Tokens of choria-io/tokens (Go) are accepted here, and tokens made here by Go. Opt-in: ``make test-interop``.

See :mod:`.edges` for the differences, and :mod:`.golang` for the protocol with the Go program.
"""
