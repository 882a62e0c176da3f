"""Choria's streams in the fleet's account: target and current state, and changes."""
