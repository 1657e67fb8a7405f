"""Mix Transformers, the bodies of SegFormer (Xie et al. 2021, arXiv 2105.15203) in six sizes.

Source: docs/diga.md section 3. Tokens keep the image's layout, [B, h, w, C], throughout.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from data_pipelines.errors import BadInput
from diga_jax.models import layers
from diga_jax.types import Keys

_WIDE = (64, 128, 320, 512)
# What differs between the published sizes.
SIZES = {
  'b0': {'widths': (32, 64, 160, 256), 'depths': (2, 2, 2, 2)},
  'b1': {'widths': _WIDE, 'depths': (2, 2, 2, 2)},
  'b2': {'widths': _WIDE, 'depths': (3, 4, 6, 3)},
  'b3': {'widths': _WIDE, 'depths': (3, 4, 18, 3)},
  'b4': {'widths': _WIDE, 'depths': (3, 8, 27, 3)},
  'b5': {'widths': _WIDE, 'depths': (3, 6, 40, 3)},
}
# Per stage: keys and values come from the image at 1 / REDUCTIONS of its size.
REDUCTIONS = (8, 4, 2, 1)
SMALLEST = 29  # pixels along a side: 8 tokens at stride 4
EXPANSION = 4
# The published start is cut off at +-2, a hundred deviations away: that is, not at all.
LINEAR = nn.initializers.normal(0.02)
FAN_OUT = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def norm(x: jax.Array, name: str, epsilon: float, dtype: DTypeLike) -> jax.Array:
  """LayerNorm over channels, inside the calling module. PyTorch's own epsilon is 1e-5."""
  return nn.LayerNorm(epsilon, dtype=dtype, use_fast_variance=False, name=name)(x)


class Attention(nn.Module):
  """Attention of every pixel to the image at 1 / `reduction` of its size."""

  heads: int
  reduction: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, h, w, C] -> [B, h, w, C]."""
    batch, height, width, channels = x.shape
    dense = functools.partial(nn.Dense, kernel_init=LINEAR, dtype=self.dtype)
    seen = self._reduce(x)
    query = dense(channels, name='q')(x).reshape(batch, height * width, self.heads, -1)
    both = dense(2 * channels, name='kv')(seen).reshape(batch, -1, 2, self.heads, query.shape[-1])
    scores = jnp.einsum('bqhd,bkhd->bhqk', query, both[:, :, 0], preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores * query.shape[-1] ** -0.5, -1).astype(self.dtype)
    x = jnp.einsum('bhqk,bkhd->bqhd', weights, both[:, :, 1])
    return dense(channels, name='proj')(x.reshape(batch, height, width, channels))

  def _reduce(self, x: jax.Array) -> jax.Array:
    if self.reduction == 1:
      return x
    options = {'bias': True, 'kernel_init': FAN_OUT, 'dtype': self.dtype}
    conv = layers.Conv(x.shape[-1], self.reduction, self.reduction, name='sr', **options)
    return norm(conv(x), 'norm', 1e-5, self.dtype)


class MixMlp(nn.Module):
  """Linear - 3x3 depthwise - GELU - linear: the convolution encodes positions."""

  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, h, w, C] -> [B, h, w, C]."""
    dense = functools.partial(nn.Dense, kernel_init=LINEAR, dtype=self.dtype)
    wide = EXPANSION * x.shape[-1]
    # A depthwise kernel's fan out is its fan in, 9: HE, the default, is right.
    depthwise = layers.Conv(
      wide, 3, padding=1, groups=wide, bias=True, dtype=self.dtype, name='dwconv.dwconv'
    )
    y = nn.gelu(depthwise(dense(wide, name='fc1')(x)), approximate=False)
    return dense(x.shape[-1], name='fc2')(y)


class Block(nn.Module):
  """Attention and MLP, each after a norm, each left out of an example with probability `drop`."""

  heads: int
  reduction: int
  drop: float
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, keys: Keys) -> jax.Array:
    """[B, h, w, C] -> [B, h, w, C]; without `keys` [B] nothing is left out."""
    attention = Attention(self.heads, self.reduction, self.dtype, name='attn')
    y = attention(norm(x, 'norm1', 1e-6, self.dtype))
    x = x + layers.dropout(y, self.drop, layers.fold_in(keys, 0), whole=True)
    y = MixMlp(self.dtype, name='mlp')(norm(x, 'norm2', 1e-6, self.dtype))
    return x + layers.dropout(y, self.drop, layers.fold_in(keys, 1), whole=True)


class Body(nn.Module):
  """Four stages at strides 4, 8, 16 and 32.

  Attributes:
    widths: channels per stage.
    depths: blocks per stage.
    heads: attention heads per stage.
    drop_path: probability that an example goes past either half of the last block ("stochastic
      depth"); it grows evenly from 0 at the first block.
    remat: whether the backward pass recomputes the inside of each block instead of keeping it.
  """

  widths: Sequence[int]
  depths: Sequence[int]
  heads: Sequence[int]
  drop_path: float
  remat: bool = False
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, keys: Keys = None) -> list[jax.Array]:
    """[B, H, W, 3] -> [B, ceil(H / 4), ceil(W / 4), widths[0]] and so on, in `dtype`.

    `keys` are for stochastic depth; without keys no block is left out.

    Raises:
      BadInput: the images are too small for the first stage's keys, at a 32nd of their size.
    """
    if min(x.shape[1:3]) < SMALLEST:
      raise BadInput(
        f'images of {x.shape[1]}x{x.shape[2]} pixels are too small for a Mix Transformer: give '
        f'crops of {SMALLEST}x{SMALLEST} at least'
      )
    drops = iter(enumerate(np.linspace(0, self.drop_path, sum(self.depths)).tolist()))
    reductions = REDUCTIONS[: len(self.widths)]
    sizes = zip(self.widths, self.depths, self.heads, reductions, strict=True)
    kind, stages = nn.remat(Block) if self.remat else Block, []
    for stage, (width, depth, heads, reduction) in enumerate(sizes, 1):
      x = self._patches(x, width, stage)
      for i in range(depth):
        number, drop = next(drops)
        block = kind(heads, reduction, drop, self.dtype, name=f'block{stage}.{i}')
        x = block(x, layers.fold_in(keys, number))
      x = norm(x, f'norm{stage}', 1e-6, self.dtype)
      stages.append(x)
    return stages

  def _patches(self, x: jax.Array, width: int, stage: int) -> jax.Array:
    size, stride = (7, 4) if stage == 1 else (3, 2)
    name, options = f'patch_embed{stage}', {'kernel_init': FAN_OUT, 'dtype': self.dtype}
    x = layers.Conv(width, size, stride, size // 2, bias=True, name=f'{name}.proj', **options)(x)
    return norm(x, f'{name}.norm', 1e-5, self.dtype)
