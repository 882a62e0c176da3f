"""Writes the files of a production deployment: keys, ``broker.conf`` and nats-server configurations.

Read :mod:`.init` first (``broker-auth init``), then :mod:`.render` (nats-server's configurations, from one template).
"""
