"""DeepLabV2 as DiGA (arXiv 2304.02222) has it, on two bodies, and as HIAST (arXiv 2302.06992) does.

Source: docs/method.md sections 3 and 10.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diga_jax import pixels
from diga_jax.models import efficientnet, layers, resnet

DILATIONS = (6, 12, 18, 24)


class Head(nn.Module):
  """A 1x1 and four dilated 3x3 branches, squeeze-excite, a 3x3 fusion: feature and logits.

  It starts small: every convolution from N(0, 0.01^2), GroupNorm from scale 1 and bias 0.
  """

  classes: int
  feature: int
  dropout: float
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool, keys: jax.Array | None
  ) -> tuple[jax.Array, jax.Array]:
    """[B, h, w, C] -> logits [B, h, w, classes], feature [B, h, w, feature], float32."""
    branches = [nn.relu(self._branch(x, 'conv2d_list.0.0', 'conv2d_list.0.1', 1, 0))]
    for i, dilation in enumerate(DILATIONS, 1):
      y = self._branch(x, f'conv2d_list.{i}.0', f'conv2d_list.{i}.1', 3, dilation)
      branches.append(nn.relu(y))
    x = self._squeeze_excite(jnp.concatenate(branches, -1))
    x = self._branch(x, 'bottleneck.1', 'bottleneck.2', 3, 1)
    if train and keys is not None and self.dropout > 0:
      x = layers.channel_dropout(x, self.dropout, keys)
    logits = layers.Conv(
      self.classes, 1, kernel_init=layers.SMALL, dtype=self.dtype, name='head.1'
    )(x)
    return logits.astype(jnp.float32), x.astype(jnp.float32)

  def _branch(self, x, conv, norm, size, dilation):
    x = layers.Conv(
      self.feature,
      size,
      padding=dilation,
      dilation=max(dilation, 1),
      bias=True,
      kernel_init=layers.SMALL,
      dtype=self.dtype,
      name=conv,
    )(x)
    groups = math.gcd(32, self.feature)
    return nn.GroupNorm(groups, epsilon=1e-5, use_fast_variance=False, dtype=self.dtype, name=norm)(
      x
    )

  def _squeeze_excite(self, x):
    def dense(features, name):
      return nn.Dense(
        features, kernel_init=layers.LINEAR, dtype=self.dtype, name=f'bottleneck.0.se.{name}'
      )

    channels = x.shape[-1]
    mean = jnp.mean(x, (1, 2), dtype=jnp.float32)
    gate = dense(channels, '2')(nn.relu(dense(max(channels // 16, 1), '0')(mean)))
    return x * nn.sigmoid(gate)[:, None, None, :]


class ResNetDeepLab(nn.Module):
  """DeepLabV2-ResNet101 at output stride 8; fewer `blocks` or a smaller `width` give small ones.

  Attributes:
    classes: channels of the logits.
    blocks: bottlenecks per stage.
    width: planes of the stem and of the first stage.
    feature: channels of the feature.
    dropout: probability that a channel of the feature is dropped in training.
    batch_norm: 'batch' normalises with batch statistics in training and moves the running ones
      (as published); 'running' keeps to the running ones.
    remat: whether the backward pass computes the inside of each block again instead of keeping it:
      less memory, about a third more arithmetic.
    axis_name: under `jax.pmap`, the axis over which a batch is spread.
  """

  classes: int = 19
  blocks: Sequence[int] = (3, 4, 23, 3)
  width: int = 64
  feature: int = 256
  dropout: float = 0.1
  batch_norm: str = 'batch'
  remat: bool = False
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, images: jax.Array, train: bool = False, keys: jax.Array | None = None
  ) -> dict[str, jax.Array]:
    """Normalised BGR [B, H, W, 3] -> {'logits', 'feature'} at stride 8, float32.

    `keys` [B]: one typed key per example for dropout; without keys nothing is dropped.
    """
    batch_statistics = train and self.batch_norm == 'batch'
    common = {'dtype': self.dtype, 'axis_name': self.axis_name}
    x = resnet.stem(images, self.width, batch_statistics, **common)
    x = resnet.stages(x, self.blocks, self.width, batch_statistics, remat=self.remat, **common)
    head = Head(self.classes, self.feature, self.dropout, self.dtype, name='final')
    logits, feature = head(x, train, keys)
    return {'logits': logits, 'feature': feature}


class EfficientNetDeepLab(nn.Module):
  """The same head on EfficientNet-Lite0, for small machines. Attributes as ResNetDeepLab's.

  `output_stride` is 16 or 8: later stages are dilated where they would have halved the size.
  """

  classes: int = 19
  output_stride: int = 16
  feature: int = 256
  dropout: float = 0.1
  batch_norm: str = 'batch'
  remat: bool = False
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, images: jax.Array, train: bool = False, keys: jax.Array | None = None
  ) -> dict[str, jax.Array]:
    """Normalised BGR [B, H, W, 3] -> {'logits', 'feature'} at `output_stride`, float32."""
    batch_statistics = train and self.batch_norm == 'batch'
    body = efficientnet.Lite0(
      self.output_stride, self.remat, self.axis_name, self.dtype, name='backbone'
    )
    x = body(efficientnet.from_bgr(images, pixels.MEAN_BGR, pixels.SCALE), batch_statistics)
    head = Head(self.classes, self.feature, self.dropout, self.dtype, name='final')
    logits, feature = head(x, train, keys)
    return {'logits': logits, 'feature': feature}


class Aspp(nn.Module):
  """DeepLabV2's plain head: the sum of four dilated 3x3 convolutions."""

  classes: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, h, w, C] -> logits [B, h, w, classes]."""

    def branch(i, dilation):
      return layers.Conv(
        self.classes,
        3,
        padding=dilation,
        dilation=dilation,
        bias=True,
        kernel_init=layers.SMALL,
        dtype=self.dtype,
        name=f'conv2d_list.{i}',
      )(x)

    return sum(branch(i, dilation).astype(jnp.float32) for i, dilation in enumerate(DILATIONS))


class HiastDeepLab(nn.Module):
  """HIAST's DeepLabV2-ResNet101; attributes as ResNetDeepLab's. The feature is the body's."""

  classes: int = 19
  blocks: Sequence[int] = (3, 4, 23, 3)
  width: int = 64
  batch_norm: str = 'batch'
  remat: bool = False
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, images: jax.Array, train: bool = False, keys: jax.Array | None = None
  ) -> dict[str, jax.Array]:
    """Normalised BGR [B, H, W, 3] -> {'logits', 'feature'} at stride 8; `keys` is not used."""
    body = resnet.TorchvisionBody(
      self.blocks, self.width, self.remat, self.axis_name, self.dtype, name='backbone'
    )
    x = body(pixels.imagenet(images), train and self.batch_norm == 'batch')
    logits = Aspp(self.classes, self.dtype, name='aspp')(x)
    return {'logits': logits, 'feature': x.astype(jnp.float32)}
