"""The service's log: its format, its limits, and a writer that never makes a process wait."""
