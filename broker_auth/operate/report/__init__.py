"""Reports: connections, and nodes that wait to be provisioned."""
