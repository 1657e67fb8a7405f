"""Passes over whole images with a network that is not trained any more."""
