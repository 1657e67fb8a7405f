"""HRNetV2 (arXiv 1908.07919): branches of several resolutions side by side, to the end.

Source: docs/diga.md section 3. State-dict names are DiGA's; weights.initialise also knows those
of the ImageNet weights that it starts from.
"""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from diga_jax import resize
from diga_jax.models import layers, resnet

# Without ImageNet's weights, convolutions start from N(0, 0.001^2).
NARROW = nn.initializers.normal(0.001)


class BasicBlock(nn.Module):
  """3x3 - 3x3 with a skip."""

  settings: layers.Settings = layers.Settings()

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, h, w, C] -> [B, h, w, C]."""
    options = {'padding': 1, 'kernel_init': NARROW}
    features, settings = x.shape[-1], self.settings
    y = layers.conv_norm(x, features, 3, ('conv1', 'bn1'), settings, **options)
    y = layers.conv_norm(y, features, 3, ('conv2', 'bn2'), settings, activation=None, **options)
    return nn.relu(x + y)


class Body(nn.Module):
  """Branch b has 2**b times the channels of the finest one, at 1 / 2**b of its size.

  Attributes:
    width: channels of the finest branch.
    stem: channels of the stem, and planes of the bottlenecks after it.
    modules: exchanges between the branches, in the second stage, the third, ...: each stage has a
      branch more than the one before.
    depths: blocks in a row: the bottlenecks of the first stage, then per branch and exchange.
    remat: whether the backward pass recomputes the inside of each block instead of keeping it.
  """

  width: int
  stem: int
  modules: Sequence[int]
  depths: Sequence[int]
  remat: bool
  settings: layers.Settings

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, H, W, 3] -> [B, ceil(H / 4), ceil(W / 4), 15 * width]: all branches, at that size."""
    conv = functools.partial(layers.conv_norm, settings=self.settings, kernel_init=NARROW)
    bottleneck = nn.remat(resnet.Bottleneck) if self.remat else resnet.Bottleneck
    block = nn.remat(BasicBlock) if self.remat else BasicBlock
    for i in (1, 2):
      x = conv(x, self.stem, 3, (f'conv{i}', f'bn{i}'), stride=2, padding=1)
    for i in range(self.depths[0]):
      options = {'kernel_init': NARROW, 'settings': self.settings}
      x = bottleneck(self.stem, project=i == 0, name=f'stage1.{i}', **options)(x)
    branches = [x]
    for stage, (modules, depth) in enumerate(zip(self.modules, self.depths[1:], strict=True), 2):
      branches = add_branch(branches, self.width, f'transition_stage_{stage - 1}_{stage}', conv)
      for module in range(modules):
        at = f'stage{stage}.{module}'
        for b in range(len(branches)):
          for i in range(depth):
            branches[b] = block(self.settings, name=f'{at}.branches.{b}.{i}')(branches[b])
        branches = exchange(branches, f'{at}.fuse_layers', conv)
    return jnp.concatenate([_resize_like(x, branches[0]) for x in branches], -1)


def _resize_like(x: jax.Array, like: jax.Array) -> jax.Array:
  return resize.align_corners(x, (like.shape[1], like.shape[2]))


def add_branch(
  branches: list[jax.Array], width: int, name: str, conv: Callable[..., jax.Array]
) -> list[jax.Array]:
  """The branches and a coarser one, made of the coarsest, inside the calling module."""
  count = len(branches)
  names = (f'{name}.{count}.0.0', f'{name}.{count}.0.1')
  coarser = conv(branches[-1], width * 2**count, 3, names, stride=2, padding=1)
  if count == 1:  # The stem's width becomes the finest branch's.
    branches = [conv(branches[0], width, 3, (f'{name}.0.0', f'{name}.0.1'), padding=1)]
  return [*branches, coarser]


def exchange(
  branches: list[jax.Array], name: str, conv: Callable[..., jax.Array]
) -> list[jax.Array]:
  """Each branch plus all others at its size and width, inside the calling module."""

  def seen(i: int, j: int) -> jax.Array:
    x, like, at = branches[j], branches[i], f'{name}.{i}.{j}'
    if j > i:
      x = conv(x, like.shape[-1], 1, (f'{at}.0', f'{at}.1'), activation=None)
      return _resize_like(x, like)
    for k in range(i - j):  # each halves a finer branch
      last, names = k == i - j - 1, (f'{at}.{k}.0', f'{at}.{k}.1')
      features, activation = (like.shape[-1], None) if last else (x.shape[-1], nn.relu)
      x = conv(x, features, 3, names, stride=2, padding=1, activation=activation)
    return x

  numbers = range(len(branches))
  return [nn.relu(sum(seen(i, j) for j in numbers)) for i in numbers]
