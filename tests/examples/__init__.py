"""The parts of ``examples/onboarding`` that need no server."""
