"""Domain-adaptive semantic segmentation in JAX: the methods DiGA and HIAST.

`diga_jax.load('runs/x', stage='self_training_2').predict(image)` labels an image.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from diga_jax.recipe.networks import load

__version__ = '0.1.0'
__all__ = ['load']


def __getattr__(name: str) -> object:
  """`load`, without which the package is imported in a moment: it needs JAX and TensorFlow."""
  if name != 'load':
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  from diga_jax.recipe.networks import load

  return load
