"""HRNetV2 with a head of object-contextual representations (OCR, arXiv 1909.11065).

Source: docs/diga.md section 3.
"""

import functools
from collections.abc import Callable, Sequence
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from diga_jax.models import hrnet, layers
from diga_jax.pixels import PIXELS
from diga_jax.types import Keys, Outputs


class Head(nn.Module):
  """Each pixel attends to the mean feature of each class in a first segmentation."""

  classes: int
  feature: int
  key: int
  dropout: float
  settings: layers.Settings

  @nn.compact
  def __call__(self, x: jax.Array, keys: Keys) -> Outputs:
    """[B, h, w, C] -> both logits [B, h, w, classes], feature [B, h, w, feature], float32."""
    conv = functools.partial(layers.conv_norm, settings=self.settings, kernel_init=layers.LINEAR)
    regions = conv(x, x.shape[-1], 1, numbered('soft_object_regions', 0), bias=True)
    regions = self._classifier('soft_object_regions.3')(regions).astype(jnp.float32)
    pixels = conv(x, self.feature, 3, numbered('pixel_representations', 0), padding=1, bias=True)
    context = self._attend(pixels, class_means(pixels, regions), conv)
    x = conv(jnp.concatenate([context, pixels], -1), self.feature, 1, numbered('augmented_rep', 0))
    x = layers.dropout(x, self.dropout, keys)
    logits = self._classifier('segmentation_classes.0')(x)
    outputs = {'logits': logits, 'feature': x, 'auxiliary_logits': regions}
    return {name: value.astype(jnp.float32) for name, value in outputs.items()}

  def _classifier(self, name: str) -> layers.Conv:
    options = {'kernel_init': layers.LINEAR, 'dtype': self.settings.dtype}
    return layers.Conv(self.classes, 1, bias=True, name=name, **options)

  def _attend(
    self, pixels: jax.Array, objects: jax.Array, conv: Callable[..., jax.Array]
  ) -> jax.Array:
    """Pixels [B, h, w, feature] attend to objects [B, classes, feature]: [B, h, w, feature]."""
    objects = objects[:, :, None]  # An image of one column: the same layers do.

    def embed(x: jax.Array, name: str) -> jax.Array:
      for first in (0, 3):
        x = conv(x, self.key, 1, numbered(f'pixel_region_relations.{name}', first))
      return x

    query, key = embed(pixels, 'pixel_rep'), embed(objects, 'obj_reg_rep')[:, :, 0]
    value = conv(objects, self.key, 1, numbered('value', 0))[:, :, 0]
    scores = jnp.einsum('bhwd,bnd->bhwn', query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores * self.key**-0.5, -1).astype(self.settings.dtype)
    context = jnp.einsum('bhwn,bnd->bhwd', weights, value)
    return conv(context, self.feature, 1, numbered('ocr_up', 0))


def numbered(name: str, first: int) -> tuple[str, str]:
  """The names of a convolution and the BatchNorm after it in one of PyTorch's sequences."""
  return f'{name}.{first}', f'{name}.{first + 1}'


def class_means(pixels: jax.Array, logits: jax.Array) -> jax.Array:
  """Pixels [B, h, w, D] averaged by the softmax of logits [B, h, w, C] over *pixels*: [B, C, D]."""
  weights = jax.nn.softmax(logits, (1, 2)).astype(pixels.dtype)
  means = jnp.einsum('bhwn,bhwd->bnd', weights, pixels, preferred_element_type=jnp.float32)
  return means.astype(pixels.dtype)


class HrNetOcr(layers.Network):
  """HRNetV2-W48 with the OCR head at output stride 4; it gives auxiliary logits, too.

  Attributes, besides those of layers.Network:
    width, stem, modules, depths: see hrnet.Body.
    feature, dropout: see deeplab.ResNetDeepLab.
    key: channels in which pixels and classes are compared.
    pixels: what is made of the images first, a key of pixels.PIXELS; published is 'rgb'.
  """

  width: int = 48
  stem: int = 64
  modules: Sequence[int] = (1, 4, 3)
  depths: Sequence[int] = (4, 4, 4, 4)
  feature: int = 512
  key: int = 256
  dropout: float = 0.05
  pixels: str = 'given'
  body: ClassVar[str] = 'HRNetV2-W48'

  @layers.in_precision
  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False, keys: Keys = None) -> Outputs:
    """Images -> logits, auxiliary logits and feature; see layers.Network."""
    settings = self.settings(train)
    sizes = (self.width, self.stem, self.modules, self.depths)
    body = hrnet.Body(*sizes, self.remat, settings, name='hrnet')
    x = body(PIXELS[self.pixels](images))
    head = Head(self.classes, self.feature, self.key, self.dropout, settings, name='ocrnet')
    return head(x, keys if train else None)
