"""The ResNet bodies of both DeepLabV2s, at output stride 8: DiGA's and torchvision's (HIAST)."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from diga_jax.models import layers

STRIDES = (1, 2, 1, 1)
DILATIONS = (1, 1, 2, 4)
# HIAST dilates what follows a stride that it took away, so that a stage's first block is not yet.
LATE_DILATIONS = (1, 1, 1, 2)
EXPANSION = 4


def max_pool(x: jax.Array, *, ceil_mode: bool = True) -> jax.Array:
  """3x3 maximum with stride 2 and one padded pixel; `ceil_mode` rounds sizes up, else down.

  [B, H, W, C] -> [B, h, w, C], h = (H + 1) / 2 for odd H; for even H floor(H / 2), and one more in
  `ceil_mode`.
  """
  padding = [(1, 2 - length % 2 if ceil_mode else 1) for length in x.shape[1:3]]
  return nn.pool(x, -jnp.inf, jax.lax.max, (3, 3), (2, 2), padding)


class Bottleneck(nn.Module):
  """1x1 - 3x3 - 1x1 with a skip; the stride sits on the first 1x1 (DiGA) or the 3x3 (HIAST)."""

  planes: int
  stride: int = 1
  dilation: int = 1
  project: bool = False
  stride_on_middle: bool = False
  kernel_init: nn.initializers.Initializer = layers.HE
  settings: layers.Settings = layers.Settings()

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, h, w, 4 * planes]."""
    conv = functools.partial(layers.conv_norm, settings=self.settings, kernel_init=self.kernel_init)
    wide, dilation = self.planes * EXPANSION, self.dilation
    first, second = (1, self.stride) if self.stride_on_middle else (self.stride, 1)
    y = conv(x, self.planes, 1, ('conv1', 'bn1'), stride=first)
    middle = functools.partial(conv, stride=second, padding=dilation, dilation=dilation)
    y = middle(y, self.planes, 3, ('conv2', 'bn2'))
    y = conv(y, wide, 1, ('conv3', 'bn3'), activation=None)
    if self.project:
      names = ('downsample.0', 'downsample.1')
      x = conv(x, wide, 1, names, stride=self.stride, activation=None)
    return nn.relu(x + y)


class TorchvisionBody(nn.Module):
  """HIAST's body: torchvision's names, the stride on the 3x3, a pool that rounds down."""

  blocks: Sequence[int]
  width: int
  remat: bool
  settings: layers.Settings

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, H, W, 3] -> [B, h, w, 32 * width] at stride 8."""
    x = layers.conv_norm(x, self.width, 7, ('conv1', 'bn1'), self.settings, stride=2, padding=3)
    x = max_pool(x, ceil_mode=False)
    return stages(x, self.blocks, self.width, self.remat, self.settings, torchvision=True)


def stages(
  x: jax.Array,
  blocks: Sequence[int],
  width: int,
  remat: bool,
  settings: layers.Settings,
  *,
  torchvision: bool = False,
) -> jax.Array:
  """The four stages of bottlenecks, inside the calling module: [B, h, w, 32 * width].

  With `remat` the backward pass recomputes each block's inside instead of keeping it. In a stage's
  first block, `torchvision` puts the stride on the 3x3 and dilates as `LATE_DILATIONS` say.
  """
  kind = nn.remat(Bottleneck) if remat else Bottleneck
  first_dilations = LATE_DILATIONS if torchvision else DILATIONS
  for stage, count in enumerate(blocks):
    for block in range(count):
      first = block == 0
      x = kind(
        width * 2**stage,
        STRIDES[stage] if first else 1,
        first_dilations[stage] if first else DILATIONS[stage],
        project=first,
        stride_on_middle=torchvision,
        settings=settings,
        name=f'layer{stage + 1}.{block}',
      )(x)
  return x
