"""Reports: who is connected, and who waits to be provisioned."""
