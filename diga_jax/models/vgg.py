"""The part of VGG-19 (arXiv 1409.1556) that the translator's perceptual loss compares."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from diga_jax.models import layers

# torchvision's numbering: `features.N` of each convolution; 'P' is a 2x2 maximum.
PLAN = (
  *((0, 64), (2, 64), 'P', (5, 128), (7, 128), 'P'),
  *((10, 256), (12, 256), (14, 256), (16, 256), 'P'),
  *((19, 512), (21, 512), (23, 512), (25, 512), 'P', (28, 512)),
)
# relu1_1, relu2_1, relu3_1, relu4_1, relu5_1: the first ReLU of each size.
TAPS = (0, 5, 10, 19, 28)


class Vgg19Features(nn.Module):
  """relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1 of the images as they are given."""

  dtype: DTypeLike = jnp.float32
  precision: str = 'default'

  @layers.in_precision
  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
    """[B, H, W, 3] -> five float32 maps, sizes H, H / 2, .. H / 16, 64 to 512 channels."""
    maps = []
    for step in PLAN:
      if isinstance(step, str):
        x = nn.max_pool(x, (2, 2), (2, 2))
        continue
      number, features = step
      options = {'bias': True, 'dtype': self.dtype, 'name': f'features.{number}'}
      x = nn.relu(layers.Conv(features, 3, padding=1, **options)(x))
      if number in TAPS:
        maps.append(x.astype(jnp.float32))
    return tuple(maps)
