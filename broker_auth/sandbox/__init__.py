"""A whole deployment on this machine, for the demo, the bench and the tests: servers, service, clients.

Read :mod:`.site` first. Nothing here is used in production.
"""
