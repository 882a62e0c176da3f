"""Files of a deployment in production: keys, ``broker.conf`` and nats-server's configurations.

Read :mod:`.init` first (``broker-auth init``), then :mod:`.render` (nats-server's configurations, from one template).
"""
