"""The image translator of DiGA: encoder, decoder, multi-scale discriminator, and VGG-19's features.

Source: docs/diga.md section 3. The encoder's and decoder's convolutions pad by reflection.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from diga_jax import resize
from diga_jax.models import layers
from diga_jax.models.layers import in_precision
from diga_jax.types import Params, Size

PADDING: Any = ((1, 1), (1, 1))  # flax annotates it as text
# torchvision's numbering: `features.N` of each convolution; 'P' is a 2x2 maximum.
VGG19 = (
  *((0, 64), (2, 64), 'P', (5, 128), (7, 128), 'P'),
  *((10, 256), (12, 256), (14, 256), (16, 256), 'P'),
  *((19, 512), (21, 512), (23, 512), (25, 512), 'P', (28, 512)),
)
# relu1_1, relu2_1, relu3_1, relu4_1, relu5_1: the first ReLU of each size.
VGG19_TAPS = (0, 5, 10, 19, 28)


class Block(nn.Module):
  """Reflection padding - convolution - instance norm - ReLU; the last two can be left out."""

  features: int
  size: int
  stride: int = 1
  padding: int = 0
  norm: bool = True
  relu: bool = True
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, h, w, features]."""
    p = (self.padding, self.padding)
    x = jnp.pad(x, ((0, 0), p, p, (0, 0)), mode='reflect')
    options = {'bias': True, 'dtype': self.dtype, 'name': 'conv'}
    x = layers.Conv(self.features, self.size, self.stride, **options)(x)
    x = layers.instance_norm(x) if self.norm else x
    return nn.relu(x) if self.relu else x


def _residuals(x: jax.Array, blocks: int, prefix: str, dtype: DTypeLike) -> jax.Array:
  """`blocks` residual blocks of two 3x3 convolutions, inside the calling module."""
  features = x.shape[-1]
  for i in range(blocks):
    name = f'{prefix}.model.{i}.model'
    y = Block(features, 3, padding=1, dtype=dtype, name=f'{name}.0')(x)
    x = x + Block(features, 3, padding=1, relu=False, dtype=dtype, name=f'{name}.1')(y)
  return x


class Encoder(nn.Module):
  """Image -> content at a quarter of the size."""

  width: int = 64
  blocks: int = 4
  dtype: DTypeLike = jnp.float32
  precision: str = 'default'

  @in_precision
  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Normalised BGR [B, H, W, 3] -> [B, H / 4, W / 4, 4 * width]."""
    x = Block(self.width, 7, padding=3, dtype=self.dtype, name='model.0')(x)
    for i in (1, 2):
      x = Block(self.width * 2**i, 4, 2, 1, dtype=self.dtype, name=f'model.{i}')(x)
    return _residuals(x, self.blocks, 'model.3', self.dtype).astype(jnp.float32)


class Decoder(nn.Module):
  """Content -> image in [-1, 1]."""

  width: int = 64
  blocks: int = 4
  dtype: DTypeLike = jnp.float32
  precision: str = 'default'

  @in_precision
  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, h, w, 4 * width] -> normalised BGR [B, 4 * h, 4 * w, 3]."""
    x = _residuals(x.astype(self.dtype), self.blocks, 'model.0', self.dtype)
    for i, features in ((2, self.width * 2), (4, self.width)):
      x = resize.nearest(x, (x.shape[1] * 2, x.shape[2] * 2))
      x = Block(features, 5, padding=2, dtype=self.dtype, name=f'model.{i}')(x)
    x = Block(3, 7, padding=3, norm=False, relu=False, dtype=self.dtype, name='model.5')(x)
    return jnp.tanh(x.astype(jnp.float32))


class Discriminator(nn.Module):
  """Real or fake, patch by patch, on an image pyramid."""

  width: int = 64
  scales: int = 3
  layers: int = 4
  dtype: DTypeLike = jnp.float32
  precision: str = 'default'

  @in_precision
  @nn.compact
  def __call__(self, x: jax.Array) -> list[jax.Array]:
    """Normalised BGR [B, H, W, 3] -> a float32 map [B, h, w, 1] per scale, finest first."""
    maps = []
    for scale in range(self.scales):
      if scale > 0:
        x = nn.avg_pool(x, (3, 3), (2, 2), PADDING, count_include_pad=False)
      y = x
      for i in range(self.layers):
        at = f'cnns.{scale}.{i}.conv'
        y = layers.Conv(self.width * 2**i, 4, 2, 1, dtype=self.dtype, name=at)(y)
        y = nn.leaky_relu(y, 0.2)
      y = layers.Conv(1, 1, bias=True, dtype=self.dtype, name=f'cnns.{scale}.{self.layers}')(y)
      maps.append(y.astype(jnp.float32))
    return maps


class Vgg19Features(nn.Module):
  """The part of VGG-19 (arXiv 1409.1556) that the translator's perceptual loss compares."""

  dtype: DTypeLike = jnp.float32
  precision: str = 'default'

  @in_precision
  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
    """Images as given [B, H, W, 3] -> relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1.

    Five float32 maps, sizes H, H / 2, .. H / 16, 64 to 512 channels.
    """
    maps = []
    for step in VGG19:
      if isinstance(step, str):
        x = nn.max_pool(x, (2, 2), (2, 2))
        continue
      number, features = step
      options = {'bias': True, 'dtype': self.dtype, 'name': f'features.{number}'}
      x = nn.relu(layers.Conv(features, 3, padding=1, **options)(x))
      if number in VGG19_TAPS:
        maps.append(x.astype(jnp.float32))
    return tuple(maps)


def networks(settings: ConfigDict, precision: str = 'default') -> dict[str, nn.Module]:
  """The six modules by their names in published checkpoints, as wide and deep as `settings` say.

  An encoder and a decoder for each domain, and a discriminator for each direction.
  """
  encoder = Encoder(settings.width, settings.blocks, precision=precision)
  decoder = Decoder(settings.width, settings.blocks, precision=precision)
  discriminator = Discriminator(
    settings.discriminator_width,
    settings.discriminator_scales,
    settings.discriminator_layers,
    precision=precision,
  )
  return {
    **{'enc_s': encoder, 'enc_t': encoder, 'dec_s2t': decoder, 'dec_t2s': decoder},
    **{'dis_s2t': discriminator, 'dis_t2s': discriminator},
  }


def shapes(settings: ConfigDict) -> dict[str, Params]:
  """What `initial_params` makes, as jax.ShapeDtypeStruct."""
  initial = functools.partial(initial_params, settings=settings, size=(64, 64))
  return jax.eval_shape(initial, jax.random.key(0))


def initial_params(key: jax.Array, settings: ConfigDict, size: Size) -> dict[str, Params]:
  """Fresh parameters: {'generators': {name: ...}, 'discriminators': {name: ...}}.

  Args:
    key: one typed key.
    settings: the config's `translator`.
    size: (H, W) of the image that the networks are traced with, multiples of 4.
  """
  nets, image = networks(settings), jnp.zeros((1, *size, 3))
  content, _ = nets['enc_s'].init_with_output(key, image)
  params = {'generators': {}, 'discriminators': {}}
  for own_key, (name, net) in zip(jax.random.split(key, len(nets)), nets.items(), strict=True):
    half = 'discriminators' if name.startswith('dis') else 'generators'
    made = net.init(own_key, content if name.startswith('dec') else image)
    params[half][name] = made['params']
  return params


def translate(
  generators: Params, images: jax.Array, settings: ConfigDict, precision: str = 'default'
) -> jax.Array:
  """Source images in the target's style, normalised BGR [B, H, W, 3]; H and W multiples of 4."""
  nets = networks(settings, precision)
  content = nets['enc_s'].apply({'params': generators['enc_s']}, images)
  return nets['dec_s2t'].bind({'params': generators['dec_s2t']})(content)
