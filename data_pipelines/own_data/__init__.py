"""Data of one's own: what folders hold is guessed, and written down as a config."""
