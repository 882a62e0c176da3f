"""The documentation is correct: commands, keys, metrics and links exist, and the documentation site builds."""
