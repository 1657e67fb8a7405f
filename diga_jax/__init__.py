"""Domain-adaptive semantic segmentation in JAX: the methods DiGA and HIAST."""

__version__ = '0.1.0'
