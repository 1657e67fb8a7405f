"""The discriminator of adversarial warm-up: is a segmentation of the source or of the target?

Source: HIAST (arXiv 2302.06992), after AdaptSegNet; docs/hiast.md.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from diga_jax.models import layers


class OutputDiscriminator(nn.Module):
  """Five 4x4 convolutions of stride 2, leaky ReLU 0.2 between them."""

  classes: int = 19
  width: int = 64
  dtype: DTypeLike = jnp.float32
  precision: str = 'default'

  @layers.in_precision
  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Class probabilities [B, H, W, classes] -> scores [B, h, w, 1] at stride 32, float32."""
    for i, features in enumerate((1, 2, 4, 8)):
      conv = functools.partial(layers.Conv, bias=True, dtype=self.dtype, name=f'conv{i + 1}')
      x = nn.leaky_relu(conv(features * self.width, 4, 2, 1)(x), 0.2)
    x = layers.Conv(1, 4, 2, 1, bias=True, dtype=self.dtype, name='classifier')(x)
    return x.astype(jnp.float32)
