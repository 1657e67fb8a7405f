"""Two heads for Mix Transformers: SegFormer's (arXiv 2105.15203) and DAFormer's (arXiv 2111.14887).

Source: docs/diga.md section 3.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from diga_jax import resize
from diga_jax.models import layers, mit
from diga_jax.pixels import PIXELS
from diga_jax.types import Keys, Outputs

DILATIONS = (6, 12, 18)


class Head(nn.Module):
  """What both heads are: stages, finest first -> `Outputs` at the first one's size, float32."""

  classes: int
  feature: int
  dropout: float
  settings: layers.Settings = layers.Settings()

  def embed(self, stages: Sequence[jax.Array], names: Sequence[str]) -> list[jax.Array]:
    """The stages at one width and at the first one's size."""
    size = stages[0].shape[1], stages[0].shape[2]
    options = {'kernel_init': layers.LINEAR, 'dtype': self.settings.dtype}
    return [
      resize.half_pixel(nn.Dense(self.feature, name=name, **options)(x), size)
      for name, x in zip(names, stages, strict=True)
    ]

  def classify(self, x: jax.Array, keys: Keys, name: str) -> Outputs:
    """The end of the head."""
    x = layers.dropout(x, self.dropout, keys)
    options = {'kernel_init': layers.SMALL, 'dtype': self.settings.dtype}
    logits = layers.Conv(self.classes, 1, bias=True, name=name, **options)(x)
    return {'logits': logits.astype(jnp.float32), 'feature': x.astype(jnp.float32)}


class SegFormerHead(Head):
  """All stages at one width and size, mixed by a 1x1 convolution."""

  @nn.compact
  def __call__(self, stages: Sequence[jax.Array], keys: Keys) -> Outputs:
    """See Head."""
    embeddings = self.embed(stages, [f'linear_c{i + 1}.proj' for i in range(len(stages))])
    x, names = jnp.concatenate(embeddings[::-1], -1), ('linear_fuse.conv', 'linear_fuse.bn')
    x = layers.conv_norm(x, self.feature, 1, names, self.settings)
    return self.classify(x, keys, 'linear_pred')


class DaFormerHead(Head):
  """All stages at one width and size, seen at several dilations, depthwise for the wide ones."""

  @nn.compact
  def __call__(self, stages: Sequence[jax.Array], keys: Keys) -> Outputs:
    """See Head."""

    def conv(x: jax.Array, features: int, size: int, name: str, **options: Any) -> jax.Array:
      names = (f'fuse_layer.{name}.conv', f'fuse_layer.{name}.bn')
      return layers.conv_norm(x, features, size, names, self.settings, **options)

    embeddings = self.embed(stages, [f'embed_layers.{i}.proj' for i in range(len(stages))])
    x = jnp.concatenate(embeddings, -1)
    wide = x.shape[-1]
    seen = [conv(x, self.feature, 1, 'aspp_modules.0')]
    for i, dilation in enumerate(DILATIONS, 1):
      at, options = f'aspp_modules.{i}', {'padding': dilation, 'dilation': dilation}
      y = conv(x, wide, 3, f'{at}.depthwise_conv', groups=wide, **options)
      seen.append(conv(y, self.feature, 1, f'{at}.pointwise_conv'))
    x = conv(jnp.concatenate(seen, -1), self.feature, 3, 'bottleneck', padding=1)
    return self.classify(x, keys, 'conv_seg')


class SegFormer(layers.Network):
  """A Mix Transformer with SegFormer's head, at output stride 4.

  Attributes, besides those of layers.Network (`batch_norm` is the head's):
    widths, depths, heads, drop_path: see mit.Body.
    feature: channels of the head's embeddings and of the feature; SegFormer's authors have 256 for
      b0 and b1.
    dropout: probability that a channel of the feature is dropped in training.
    pixels: what is made of the images first, a key of pixels.PIXELS; ImageNet's weights were
      trained on 'imagenet'.
  """

  widths: Sequence[int] = mit.SIZES['b0']['widths']
  depths: Sequence[int] = mit.SIZES['b0']['depths']
  heads: Sequence[int] = (1, 2, 5, 8)
  feature: int = 768
  dropout: float = 0.1
  drop_path: float = 0.1
  pixels: str = 'given'
  body: ClassVar[str] = 'Mix Transformers'
  head: ClassVar[type[SegFormerHead] | type[DaFormerHead]] = SegFormerHead

  @layers.in_precision
  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False, keys: Keys = None) -> Outputs:
    """Images -> logits and feature; see layers.Network. `keys` are for stochastic depth as well."""
    keys = keys if train else None
    sizes = (self.widths, self.depths, self.heads)
    body = mit.Body(*sizes, self.drop_path, self.remat, self.dtype, name='backbone')
    stages = body(PIXELS[self.pixels](images), layers.fold_in(keys, 0))
    sizes = (self.classes, self.feature, self.dropout)
    head = self.head(*sizes, self.settings(train), name='decode_head')
    return head(stages, layers.fold_in(keys, 1))


class DaFormer(SegFormer):
  """A Mix Transformer with DAFormer's head; otherwise as SegFormer."""

  feature: int = 256
  head = DaFormerHead
