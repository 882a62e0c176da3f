"""What operators see: audit records, metrics, explanations, reports. Decides nothing."""
