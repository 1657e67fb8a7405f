"""Memory, FLOPs and time of each step on hardware you do not have."""
