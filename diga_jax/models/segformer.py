"""Two heads for Mix Transformers: SegFormer's (arXiv 2105.15203) and DAFormer's (arXiv 2111.14887).

Source: docs/method.md section 3.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diga_jax import resize
from diga_jax.models import layers, mit
from diga_jax.pixels import PIXELS

DILATIONS = (6, 12, 18)


class SegFormerHead(nn.Module):
  """All stages at one width and size, mixed by a 1x1 convolution."""

  classes: int
  feature: int
  dropout: float
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, stages: Sequence[jax.Array], batch_statistics: bool, keys: jax.Array | None
  ) -> dict[str, jax.Array]:
    """Stages, finest first -> {'logits', 'feature'} at the first one's size, float32."""
    names = [f'linear_c{i + 1}.proj' for i in range(len(stages))]
    x = embedded(stages, self.feature, names, self.dtype)
    x = layers.conv_norm(
      jnp.concatenate(x[::-1], -1),
      self.feature,
      1,
      ('linear_fuse.conv', 'linear_fuse.bn'),
      batch_statistics=batch_statistics,
      axis_name=self.axis_name,
      dtype=self.dtype,
    )
    return classified(x, self.classes, self.dropout, keys, 'linear_pred', self.dtype)


class DaFormerHead(nn.Module):
  """All stages at one width and size, seen at several dilations, depthwise for the wide ones."""

  classes: int
  feature: int
  dropout: float
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, stages: Sequence[jax.Array], batch_statistics: bool, keys: jax.Array | None
  ) -> dict[str, jax.Array]:
    """Stages, finest first -> {'logits', 'feature'} at the first one's size, float32."""
    conv = functools.partial(
      layers.conv_norm,
      batch_statistics=batch_statistics,
      axis_name=self.axis_name,
      dtype=self.dtype,
    )
    names = [f'embed_layers.{i}.proj' for i in range(len(stages))]
    x = jnp.concatenate(embedded(stages, self.feature, names, self.dtype), -1)
    seen = [conv(x, self.feature, 1, paired('fuse_layer.aspp_modules.0'))]
    for i, dilation in enumerate(DILATIONS, 1):
      at, settings = f'fuse_layer.aspp_modules.{i}', {'padding': dilation, 'dilation': dilation}
      wide = x.shape[-1]
      y = conv(x, wide, 3, paired(f'{at}.depthwise_conv'), groups=wide, **settings)
      seen.append(conv(y, self.feature, 1, paired(f'{at}.pointwise_conv')))
    x = conv(jnp.concatenate(seen, -1), self.feature, 3, paired('fuse_layer.bottleneck'), padding=1)
    return classified(x, self.classes, self.dropout, keys, 'conv_seg', self.dtype)


def paired(name: str) -> tuple[str, str]:
  """The names of a convolution and its BatchNorm."""
  return f'{name}.conv', f'{name}.bn'


def embedded(
  stages: Sequence[jax.Array], features: int, names: Sequence[str], dtype: Any
) -> list[jax.Array]:
  """The stages at one width and at the first one's size, inside the calling module."""
  size = stages[0].shape[1:3]
  dense = functools.partial(nn.Dense, features, kernel_init=layers.LINEAR, dtype=dtype)
  return [
    resize.half_pixel(dense(name=name)(x), size) for name, x in zip(names, stages, strict=True)
  ]


def classified(
  x: jax.Array, classes: int, dropout: float, keys: jax.Array | None, name: str, dtype: Any
) -> dict[str, jax.Array]:
  """The head's end, inside the calling module: {'logits', 'feature'}, the feature after dropout."""
  if keys is not None and dropout > 0:
    x = layers.channel_dropout(x, dropout, keys)
  classifier = layers.Conv(classes, 1, bias=True, kernel_init=layers.SMALL, dtype=dtype, name=name)
  return {'logits': classifier(x).astype(jnp.float32), 'feature': x.astype(jnp.float32)}


class SegFormer(nn.Module):
  """A Mix Transformer with SegFormer's head, at output stride 4.

  Attributes:
    classes: channels of the logits.
    widths, depths, heads, drop_path, remat: see mit.Body.
    feature: channels of the head's embeddings and of the feature; SegFormer's authors have 256 for
      b0 and b1.
    dropout: probability that a channel of the feature is dropped in training.
    batch_norm: of the head: 'batch' normalises with batch statistics in training and moves the
      running ones (as published); 'running' keeps to the running ones.
    pixels: what is made of the images first, a key of images.PIXELS; ImageNet's weights were
      trained on 'imagenet'.
    axis_name: under `jax.pmap`, the axis over which a batch is spread.
  """

  classes: int = 19
  widths: Sequence[int] = mit.SIZES['b0']['widths']
  depths: Sequence[int] = mit.SIZES['b0']['depths']
  heads: Sequence[int] = (1, 2, 5, 8)
  feature: int = 768
  dropout: float = 0.1
  drop_path: float = 0.1
  batch_norm: str = 'batch'
  pixels: str = 'given'
  remat: bool = False
  axis_name: str | None = None
  dtype: Any = jnp.float32
  head = SegFormerHead  # no attribute to be chosen, but what the class is about

  @nn.compact
  def __call__(
    self, images: jax.Array, train: bool = False, keys: jax.Array | None = None
  ) -> dict[str, jax.Array]:
    """Normalised BGR [B, H, W, 3] -> {'logits', 'feature'} at stride 4, float32.

    `keys` [B]: one typed key per example for dropout and stochastic depth; without keys nothing is
    dropped. The feature is what the classifier sees: after dropout.
    """
    keys = keys if train else None
    sizes = (self.widths, self.depths, self.heads)
    body = mit.Body(*sizes, self.drop_path, self.remat, self.dtype, name='backbone')
    stages = body(PIXELS[self.pixels](images), layers.folded(keys, 0))
    settings = (self.feature, self.dropout, self.axis_name, self.dtype)
    head = self.head(self.classes, *settings, name='decode_head')
    return head(stages, train and self.batch_norm == 'batch', layers.folded(keys, 1))


class DaFormer(SegFormer):
  """A Mix Transformer with DAFormer's head; otherwise as SegFormer."""

  feature: int = 256
  head = DaFormerHead
