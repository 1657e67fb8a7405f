"""The networks, by name."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from data_pipelines.errors import BadInput
from diga_jax.models import deeplab, discriminator, translator, vgg

_SEGMENTATION = {
  'deeplab_resnet101': deeplab.ResNetDeepLab,
  'deeplab_efficientnet_lite0': deeplab.EfficientNetDeepLab,
  'hiast_resnet101': deeplab.HiastDeepLab,
}
_OTHER = {
  'output_discriminator': discriminator.OutputDiscriminator,
  'translator_encoder': translator.Encoder,
  'translator_decoder': translator.Decoder,
  'translator_discriminator': translator.Discriminator,
  'vgg19_features': vgg.Vgg19Features,
}


def build(name: str, classes: int = 19, dtype: Any = 'float32', **options) -> nn.Module:
  """The network called `name`, without weights.

  Args:
    name: 'deeplab_resnet101', 'deeplab_efficientnet_lite0', 'hiast_resnet101',
      'translator_encoder', 'translator_decoder', 'translator_discriminator',
      'output_discriminator' or 'vgg19_features'.
    classes: channels of the logits (segmentation networks only).
    dtype: type computed in; parameters and results are float32 whatever it is.
    **options: the module's other attributes, such as `feature=64`.

  Returns:
    A linen module. Segmentation networks take (images, train=False, keys=None): normalised BGR
    [B, H, W, 3] (see diga_jax/images.py) and [B] typed keys for dropout; they return float32
    {'logits', 'feature'} at the network's output stride.

  Raises:
    BadInput: there is no such network, or it has no such option.
  """
  kinds = _SEGMENTATION | _OTHER
  if name not in kinds:
    raise BadInput(f'no network is called {name!r}; there are {", ".join(kinds)}')
  module = kinds[name]
  known = {f for f in module.__dataclass_fields__ if f not in ('parent', 'name')}
  unknown = sorted(set(options) - known)
  if unknown:
    raise BadInput(f'{name} has no option {unknown[0]!r}; it has {", ".join(sorted(known))}')
  if options.get('batch_norm', 'batch') not in ('batch', 'running'):
    raise BadInput(f"batch_norm is 'batch' or 'running', not {options['batch_norm']!r}")
  if options.get('output_stride', 16) not in (8, 16):
    raise BadInput(f'output_stride is 8 or 16, not {options["output_stride"]!r}')
  if 'classes' in known:
    options['classes'] = classes
  # Lists from a config file become tuples: linen hashes its attributes under jit.
  options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
  return module(dtype=jnp.dtype(dtype), **options)


def shapes(module: nn.Module) -> dict:
  """The variables of a network as jax.ShapeDtypeStruct, without computing anything."""
  # A decoder starts from the encoder's channels, the output's discriminator from probabilities,
  # everything else from an image.
  channels = 4 * module.width if isinstance(module, translator.Decoder) else 3
  channels = module.classes if isinstance(module, discriminator.OutputDiscriminator) else channels
  size = 16 if isinstance(module, translator.Decoder) else 64
  images = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
  return jax.eval_shape(module.init, jax.random.key(0), images)
