"""Tests of the whole system over real TLS: real nats-servers, the service as a process, real clients."""
