"""Personal data where none may be: where to look. What it looks like is `contracts.personal_data`."""
