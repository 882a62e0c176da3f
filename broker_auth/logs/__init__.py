"""The service's log: its format, its rate limits, and writers that never block the process."""
