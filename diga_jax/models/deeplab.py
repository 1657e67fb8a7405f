"""DeepLabV2 as in DiGA (arXiv 2304.02222), on two bodies, and as in HIAST (arXiv 2302.06992).

Source: docs/diga.md section 3; docs/hiast.md.
"""

import functools
import math
from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from diga_jax import pixels
from diga_jax.models import efficientnet, layers, resnet
from diga_jax.types import Keys, Outputs

DILATIONS = (6, 12, 18, 24)


class Head(nn.Module):
  """A 1x1 and four dilated 3x3 branches, squeeze-excite, a 3x3 fusion: feature and logits.

  It starts small: every convolution from N(0, 0.01^2), GroupNorm from scale 1 and bias 0.
  """

  classes: int
  feature: int
  dropout: float
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array, keys: Keys) -> Outputs:
    """[B, h, w, C] -> logits [B, h, w, classes], feature [B, h, w, feature], float32."""
    branches = [
      nn.relu(self._conv_norm(x, f'conv2d_list.{i}', 0, dilation))
      for i, dilation in enumerate((0, *DILATIONS))
    ]
    x = self._squeeze_excite(jnp.concatenate(branches, -1))
    x = self._conv_norm(x, 'bottleneck', 1, 1)
    x = layers.dropout(x, self.dropout, keys)
    options = {'kernel_init': layers.SMALL, 'dtype': self.dtype}
    logits = layers.Conv(self.classes, 1, name='head.1', **options)(x)
    return {'logits': logits.astype(jnp.float32), 'feature': x.astype(jnp.float32)}

  def _conv_norm(self, x: jax.Array, name: str, first: int, dilation: int) -> jax.Array:
    """A dilated 3x3 convolution (1x1 for dilation 0) and GroupNorm: `name.first` and the next."""
    sizes = (3 if dilation else 1, 1, dilation, max(dilation, 1))
    options = {'bias': True, 'kernel_init': layers.SMALL, 'dtype': self.dtype}
    x = layers.Conv(self.feature, *sizes, name=f'{name}.{first}', **options)(x)
    groups, options = math.gcd(32, self.feature), {'use_fast_variance': False, 'dtype': self.dtype}
    return nn.GroupNorm(groups, epsilon=1e-5, name=f'{name}.{first + 1}', **options)(x)

  def _squeeze_excite(self, x: jax.Array) -> jax.Array:
    dense = functools.partial(nn.Dense, kernel_init=layers.LINEAR, dtype=self.dtype)
    channels = x.shape[-1]
    gate = jnp.mean(x, (1, 2), dtype=jnp.float32)
    gate = nn.relu(dense(max(channels // 16, 1), name='bottleneck.0.se.0')(gate))
    gate = dense(channels, name='bottleneck.0.se.2')(gate)
    return x * nn.sigmoid(gate)[:, None, None, :]


class ResNetDeepLab(layers.Network):
  """DeepLabV2-ResNet101 at output stride 8; fewer `blocks` or a smaller `width` give small ones.

  Attributes, besides those of layers.Network:
    blocks: bottlenecks per stage.
    width: planes of the stem and of the first stage.
    feature: channels of the feature.
    dropout: probability that a channel of the feature is dropped in training.
  """

  blocks: Sequence[int] = (3, 4, 23, 3)
  width: int = 64
  feature: int = 256
  dropout: float = 0.1
  body: ClassVar[str] = 'ResNet-101'

  @layers.in_precision
  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False, keys: Keys = None) -> Outputs:
    """Images -> logits and feature; see layers.Network."""
    settings, names = self.settings(train), ('layer0.0', 'layer0.1')
    x = layers.conv_norm(images, self.width, 7, names, settings, stride=2, padding=3)
    x = resnet.max_pool(x)
    x = resnet.stages(x, self.blocks, self.width, self.remat, settings)
    head = Head(self.classes, self.feature, self.dropout, self.dtype, name='final')
    return head(x, keys if train else None)


class EfficientNetDeepLab(layers.Network):
  """The same head on EfficientNet-Lite0, for small machines.

  Attributes, besides those of layers.Network:
    output_stride: 16 or 8: later stages are dilated where they would have halved the size.
    feature, dropout: see ResNetDeepLab.
  """

  output_stride: int = 16
  feature: int = 256
  dropout: float = 0.1
  body: ClassVar[str] = 'EfficientNet-Lite0'

  @layers.in_precision
  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False, keys: Keys = None) -> Outputs:
    """Images -> logits and feature; see layers.Network."""
    body = efficientnet.Lite0(self.output_stride, self.remat, self.settings(train), name='backbone')
    x = body(efficientnet.from_bgr(images))
    head = Head(self.classes, self.feature, self.dropout, self.dtype, name='final')
    return head(x, keys if train else None)


class Aspp(nn.Module):
  """DeepLabV2's plain head: the sum of four dilated 3x3 convolutions."""

  classes: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, h, w, C] -> logits [B, h, w, classes]."""
    options = {'bias': True, 'kernel_init': layers.SMALL, 'dtype': self.dtype}
    logits = []
    for i, dilation in enumerate(DILATIONS):
      wide = {'padding': dilation, 'dilation': dilation, **options}
      branch = layers.Conv(self.classes, 3, name=f'conv2d_list.{i}', **wide)
      logits.append(branch(x).astype(jnp.float32))
    return sum(logits, jnp.float32(0))


class HiastDeepLab(layers.Network):
  """HIAST's DeepLabV2-ResNet101; the feature is the body's, and nothing is dropped.

  Attributes, besides those of layers.Network:
    blocks, width: see ResNetDeepLab.
  """

  blocks: Sequence[int] = (3, 4, 23, 3)
  width: int = 64
  body: ClassVar[str] = 'ResNet-101'

  @layers.in_precision
  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False, keys: Keys = None) -> Outputs:
    """Images -> logits and feature; see layers.Network."""
    sizes = (self.blocks, self.width, self.remat)
    body = resnet.TorchvisionBody(*sizes, self.settings(train), name='backbone')
    x = body(pixels.imagenet(images))
    logits = Aspp(self.classes, self.dtype, name='aspp')(x)
    return {'logits': logits, 'feature': x.astype(jnp.float32)}
