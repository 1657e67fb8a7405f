"""From a config to stage folders: which stage reads what, and what each one makes."""
