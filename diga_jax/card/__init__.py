"""A trained network as a folder that the Hugging Face Hub takes, with its card."""
