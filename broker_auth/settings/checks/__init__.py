"""Checks across several values or of files: brokers, zones, TLS files, trust, audit outputs."""
