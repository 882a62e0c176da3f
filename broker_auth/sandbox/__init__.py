"""A whole deployment on this machine, for the demo, the bench and the tests: servers, service, clients.

Read :mod:`.sandbox` first. Not used in production.
"""
