"""Procedural street scenes with exact labels: the embedded data set."""
