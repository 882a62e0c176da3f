"""Checks that look at several values or at files: brokers, zones, TLS files, trust, audit outputs."""
