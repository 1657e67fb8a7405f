"""HRNetV2 (arXiv 1908.07919): branches of several resolutions side by side, to the end.

Source: docs/method.md section 3. State-dict names are DiGA's; weights.initialise also knows those
of the ImageNet weights that it starts from.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diga_jax import resize
from diga_jax.models import layers, resnet

# Without ImageNet's weights, convolutions start from N(0, 0.001^2).
NARROW = nn.initializers.normal(0.001)


class BasicBlock(nn.Module):
  """3x3 - 3x3 with a skip."""

  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, batch_statistics: bool) -> jax.Array:
    """[B, h, w, C] -> [B, h, w, C]."""
    conv = functools.partial(
      layers.conv_norm,
      features=x.shape[-1],
      size=3,
      padding=1,
      kernel_init=NARROW,
      batch_statistics=batch_statistics,
      axis_name=self.axis_name,
      dtype=self.dtype,
    )
    y = conv(x, names=('conv1', 'bn1'))
    return nn.relu(x + conv(y, names=('conv2', 'bn2'), relu=False))


class Body(nn.Module):
  """Branch b has 2**b times the channels of the finest one, at 1 / 2**b of its size.

  Attributes:
    width: channels of the finest branch.
    stem: channels of the stem, and planes of the bottlenecks after it.
    modules: exchanges between the branches, in the second stage, the third, ...: each stage has a
      branch more than the one before.
    depths: blocks in a row: the bottlenecks of the first stage, then per branch and exchange.
    remat: whether the backward pass computes the inside of each block again instead of keeping it.
    axis_name: under `jax.pmap`, the axis over which a batch is spread.
  """

  width: int = 48
  stem: int = 64
  modules: Sequence[int] = (1, 4, 3)
  depths: Sequence[int] = (4, 4, 4, 4)
  remat: bool = False
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, batch_statistics: bool) -> jax.Array:
    """[B, H, W, 3] -> [B, ceil(H / 4), ceil(W / 4), 15 * width]: all branches, at that size."""
    conv = functools.partial(
      layers.conv_norm,
      kernel_init=NARROW,
      batch_statistics=batch_statistics,
      axis_name=self.axis_name,
      dtype=self.dtype,
    )
    for i in (1, 2):
      x = conv(x, self.stem, 3, (f'conv{i}', f'bn{i}'), stride=2, padding=1)
    branches = [self._bottlenecks(x, batch_statistics)]
    for stage, (modules, depth) in enumerate(zip(self.modules, self.depths[1:], strict=True), 2):
      branches = one_more(branches, self.width, f'transition_stage_{stage - 1}_{stage}', conv)
      for module in range(modules):
        at = f'stage{stage}.{module}'
        for b, x in enumerate(branches):
          branches[b] = self._blocks(x, f'{at}.branches.{b}', depth, batch_statistics)
        branches = exchanged(branches, f'{at}.fuse_layers', conv)
    finest = branches[0].shape[1:3]
    return jnp.concatenate([resize.align_corners(x, finest) for x in branches], -1)

  def _bottlenecks(self, x, batch_statistics):
    kind = nn.remat(resnet.Bottleneck, static_argnums=2) if self.remat else resnet.Bottleneck
    for i in range(self.depths[0]):
      x = kind(
        self.stem,
        stride=1,
        dilation=1,
        project=i == 0,
        kernel_init=NARROW,
        axis_name=self.axis_name,
        dtype=self.dtype,
        name=f'stage1.{i}',
      )(x, batch_statistics)
    return x

  def _blocks(self, x, name, depth, batch_statistics):
    kind = nn.remat(BasicBlock, static_argnums=2) if self.remat else BasicBlock
    for i in range(depth):
      x = kind(self.axis_name, self.dtype, name=f'{name}.{i}')(x, batch_statistics)
    return x


def one_more(branches: list[jax.Array], width: int, name: str, conv: Callable) -> list[jax.Array]:
  """The branches and a coarser one, made of the coarsest, inside the calling module."""
  count = len(branches)
  names = (f'{name}.{count}.0.0', f'{name}.{count}.0.1')
  coarser = conv(branches[-1], width * 2**count, 3, names, stride=2, padding=1)
  if count == 1:  # The stem's width becomes the finest branch's.
    branches = [conv(branches[0], width, 3, (f'{name}.0.0', f'{name}.0.1'), padding=1)]
  return [*branches, coarser]


def exchanged(branches: list[jax.Array], name: str, conv: Callable) -> list[jax.Array]:
  """Each branch plus all others at its size and width, inside the calling module."""

  def from_coarser(x, like, at):
    x = conv(x, like.shape[-1], 1, (f'{at}.0', f'{at}.1'), relu=False)
    return resize.align_corners(x, like.shape[1:3])

  def from_finer(x, like, at, halvings):
    for k in range(halvings):
      last = k == halvings - 1
      features = like.shape[-1] if last else x.shape[-1]
      x = conv(x, features, 3, (f'{at}.{k}.0', f'{at}.{k}.1'), stride=2, padding=1, relu=not last)
    return x

  def seen(i, j):
    x, like, at = branches[j], branches[i], f'{name}.{i}.{j}'
    if i == j:
      return x
    return from_coarser(x, like, at) if j > i else from_finer(x, like, at, i - j)

  numbers = range(len(branches))
  return [nn.relu(sum(seen(i, j) for j in numbers)) for i in numbers]
