"""The training steps, and the parts that they share."""
