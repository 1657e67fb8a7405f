"""Domain-adaptive semantic segmentation in JAX: the methods DiGA and HIAST."""
