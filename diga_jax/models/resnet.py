"""The ResNet bodies of both DeepLabV2s, at output stride 8: DiGA's and torchvision's (HIAST)."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diga_jax.models import layers

STRIDES = (1, 2, 1, 1)
DILATIONS = (1, 1, 2, 4)
# HIAST dilates what follows a stride that it took away, so that a stage's first block is not yet.
LATE_DILATIONS = (1, 1, 1, 2)
EXPANSION = 4


def max_pool(x: jax.Array) -> jax.Array:
  """3x3 maximum with stride 2 and one padded pixel, sizes rounded up ("ceil mode").

  [B, H, W, C] -> [B, h, w, C], h = floor(H / 2) + 1 for even H, (H + 1) / 2 for odd H.
  """

  def pads(length):
    out = -(-(length - 1) // 2) + 1
    return 1, (out - 1) * 2 + 3 - length - 1

  return nn.max_pool(x, (3, 3), (2, 2), (pads(x.shape[1]), pads(x.shape[2])))


class Bottleneck(nn.Module):
  """1x1 - 3x3 - 1x1 with a skip; the stride sits on the first 1x1 (DiGA) or the 3x3 (HIAST)."""

  planes: int
  stride: int
  dilation: int
  project: bool
  stride_on_middle: bool = False
  kernel_init: nn.initializers.Initializer = layers.HE
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, batch_statistics: bool) -> jax.Array:
    def conv(features, size, name, **kwargs):
      kwargs |= {'kernel_init': self.kernel_init, 'dtype': self.dtype}
      return layers.Conv(features, size, name=name, **kwargs)

    def norm(x, name):
      norm = layers.BatchNorm(axis_name=self.axis_name, dtype=self.dtype, name=name)
      return norm(x, batch_statistics)

    wide = self.planes * EXPANSION
    first, second = (1, self.stride) if self.stride_on_middle else (self.stride, 1)
    y = nn.relu(norm(conv(self.planes, 1, 'conv1', stride=first)(x), 'bn1'))
    dilation = self.dilation
    middle = conv(self.planes, 3, 'conv2', stride=second, padding=dilation, dilation=dilation)
    y = nn.relu(norm(middle(y), 'bn2'))
    y = norm(conv(wide, 1, 'conv3')(y), 'bn3')
    if self.project:
      x = norm(conv(wide, 1, 'downsample.0', stride=self.stride)(x), 'downsample.1')
    return nn.relu(x + y)


def stem(
  x: jax.Array, width: int, batch_statistics: bool, *, dtype: Any, axis_name: str | None
) -> jax.Array:
  """7x7/2 convolution - BatchNorm - ReLU - pool, inside the calling module."""
  x = layers.Conv(width, 7, stride=2, padding=3, dtype=dtype, name='layer0.0')(x)
  norm = layers.BatchNorm(axis_name=axis_name, dtype=dtype, name='layer0.1')
  x = norm(x, batch_statistics)
  return max_pool(nn.relu(x))


class TorchvisionBody(nn.Module):
  """HIAST's body: torchvision's names, the stride on the 3x3, a pool that rounds down."""

  blocks: Sequence[int]
  width: int
  remat: bool = False
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, batch_statistics: bool) -> jax.Array:
    """[B, H, W, 3] -> [B, h, w, 32 * width] at stride 8."""
    common = {'dtype': self.dtype, 'axis_name': self.axis_name}
    x = layers.Conv(self.width, 7, stride=2, padding=3, dtype=self.dtype, name='conv1')(x)
    x = nn.relu(layers.BatchNorm(name='bn1', **common)(x, batch_statistics))
    x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    return stages(
      x,
      self.blocks,
      self.width,
      batch_statistics,
      remat=self.remat,
      stride_on_middle=True,
      first_dilations=LATE_DILATIONS,
      **common,
    )


def stages(
  x: jax.Array,
  blocks: Sequence[int],
  width: int,
  batch_statistics: bool,
  *,
  remat: bool,
  dtype: Any,
  axis_name: str | None,
  stride_on_middle: bool = False,
  first_dilations: Sequence[int] = DILATIONS,
) -> jax.Array:
  """The four stages of bottlenecks, inside the calling module: [B, h, w, 32 * width].

  With `remat` the backward pass computes each block's inside again instead of keeping it.
  `first_dilations` are those of each stage's first block.
  """
  kind = nn.remat(Bottleneck, static_argnums=2) if remat else Bottleneck
  for stage, count in enumerate(blocks):
    for block in range(count):
      x = kind(
        width * 2**stage,
        STRIDES[stage] if block == 0 else 1,
        first_dilations[stage] if block == 0 else DILATIONS[stage],
        project=block == 0,
        stride_on_middle=stride_on_middle,
        axis_name=axis_name,
        dtype=dtype,
        name=f'layer{stage + 1}.{block}',
      )(x, batch_statistics)
  return x
