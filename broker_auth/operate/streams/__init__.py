"""Choria's streams in the fleet's account: what they should be, and making them so."""
