"""Personal data where none may be: what it looks like, where to look, and the salt of hashes."""
