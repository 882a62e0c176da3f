"""Safe file access: bounded reads, regular files only, private files for secrets."""
