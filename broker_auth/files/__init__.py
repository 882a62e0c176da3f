"""Reading and writing files: bounded, regular, private where they hold secrets, never half written."""
