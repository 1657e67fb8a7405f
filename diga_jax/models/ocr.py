"""HRNetV2 with a head of object-contextual representations (OCR, arXiv 1909.11065).

Source: docs/method.md section 3.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diga_jax.models import hrnet, layers
from diga_jax.pixels import PIXELS


class Head(nn.Module):
  """A first segmentation says what each class looks like; each pixel then asks the classes."""

  classes: int
  feature: int
  key: int
  dropout: float
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, batch_statistics: bool, keys: jax.Array | None
  ) -> dict[str, jax.Array]:
    """[B, h, w, C] -> logits and auxiliary logits [B, h, w, classes], feature [B, h, w, feature].

    All float32. `keys` [B] are for dropout; without keys nothing is dropped.
    """
    conv = functools.partial(
      layers.conv_norm,
      kernel_init=layers.LINEAR,
      batch_statistics=batch_statistics,
      axis_name=self.axis_name,
      dtype=self.dtype,
    )
    regions = conv(x, x.shape[-1], 1, numbered('soft_object_regions', 0), bias=True)
    regions = self._classifier('soft_object_regions.3')(regions).astype(jnp.float32)
    pixels = conv(x, self.feature, 3, numbered('pixel_representations', 0), padding=1, bias=True)
    context = self._attended(pixels, class_means(pixels, regions), conv)
    x = jnp.concatenate([context, pixels], -1)
    x = conv(x, self.feature, 1, numbered('augmented_rep', 0))
    if keys is not None and self.dropout > 0:
      x = layers.channel_dropout(x, self.dropout, keys)
    logits = self._classifier('segmentation_classes.0')(x)
    outputs = {'logits': logits, 'feature': x, 'auxiliary_logits': regions}
    return {name: value.astype(jnp.float32) for name, value in outputs.items()}

  def _classifier(self, name):
    return layers.Conv(
      self.classes, 1, bias=True, kernel_init=layers.LINEAR, dtype=self.dtype, name=name
    )

  def _attended(self, pixels: jax.Array, objects: jax.Array, conv: Callable) -> jax.Array:
    """Pixels [B, h, w, feature] ask objects [B, classes, feature]: [B, h, w, feature]."""
    objects = objects[:, :, None]  # An image of one column: the same layers do.

    def embedded(x, name):
      for first in (0, 3):
        x = conv(x, self.key, 1, numbered(f'pixel_region_relations.{name}', first))
      return x

    query, key = embedded(pixels, 'pixel_rep'), embedded(objects, 'obj_reg_rep')[:, :, 0]
    value = conv(objects, self.key, 1, numbered('value', 0))[:, :, 0]
    alike = jnp.einsum('bhwd,bnd->bhwn', query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(alike * self.key**-0.5, -1).astype(self.dtype)
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


class HrNetOcr(nn.Module):
  """HRNetV2-W48 with the OCR head at output stride 4; sizes give small ones.

  Attributes:
    classes: channels of the logits.
    width, stem, modules, depths: see hrnet.Body.
    feature: channels of the feature.
    key: channels in which pixels and classes are compared.
    dropout: probability that a channel of the feature is dropped in training.
    batch_norm: 'batch' normalises with batch statistics in training and moves the running ones
      (as published); 'running' keeps to the running ones.
    pixels: what is made of the images first, a key of images.PIXELS; published is 'rgb'.
    remat: see hrnet.Body.
    axis_name: under `jax.pmap`, the axis over which a batch is spread.
  """

  classes: int = 19
  width: int = 48
  stem: int = 64
  modules: Sequence[int] = (1, 4, 3)
  depths: Sequence[int] = (4, 4, 4, 4)
  feature: int = 512
  key: int = 256
  dropout: float = 0.05
  batch_norm: str = 'batch'
  pixels: str = 'given'
  remat: bool = False
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, images: jax.Array, train: bool = False, keys: jax.Array | None = None
  ) -> dict[str, jax.Array]:
    """Normalised BGR [B, H, W, 3] -> {'logits', 'feature', 'auxiliary_logits'}, stride 4, float32.

    `keys` [B]: one typed key per example for dropout; without keys nothing is dropped. The feature
    is what the classifier sees: after dropout.
    """
    batch_statistics = train and self.batch_norm == 'batch'
    sizes = (self.width, self.stem, self.modules, self.depths)
    body = hrnet.Body(*sizes, self.remat, self.axis_name, self.dtype, name='hrnet')
    x = body(PIXELS[self.pixels](images), batch_statistics)
    head = Head(
      self.classes, self.feature, self.key, self.dropout, self.axis_name, self.dtype, name='ocrnet'
    )
    return head(x, batch_statistics, keys if train else None)
