"""The documentation says what is true: commands, keys, metrics and links exist, and the site builds."""
