"""Devices and processes: what is shared, what is exchanged, how a run is stopped."""
