"""The networks, by name."""

import functools
import inspect
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from data_pipelines.errors import BadInput
from diga_jax import rules
from diga_jax.models import deeplab, discriminator, mit, ocr, segformer, translator
from diga_jax.pixels import PIXELS
from diga_jax.types import SegmentationNet, Variables

SEGMENTATION = {
  'deeplab_resnet101': deeplab.ResNetDeepLab,
  'deeplab_efficientnet_lite0': deeplab.EfficientNetDeepLab,
  'hiast_resnet101': deeplab.HiastDeepLab,
  'hrnet_w48_ocr': ocr.HrNetOcr,
  **{
    f'mit_{size}_{head}': functools.partial(network, **sizes)
    for head, network in (('segformer', segformer.SegFormer), ('daformer', segformer.DaFormer))
    for size, sizes in mit.SIZES.items()
  },
}
_OTHER = {
  'output_discriminator': discriminator.OutputDiscriminator,
  'translator_encoder': translator.Encoder,
  'translator_decoder': translator.Decoder,
  'translator_discriminator': translator.Discriminator,
  'vgg19_features': translator.Vgg19Features,
}
# What the networks call their heads; everything else is the body, which pretrained files hold.
HEADS = ('final', 'aspp', 'decode_head', 'ocrnet')
# What an option may be.
CHOICES = {'batch_norm': ('batch', 'running'), 'output_stride': (8, 16), 'pixels': tuple(PIXELS)}
PRECISIONS = ('default', 'high', 'highest')
PROBABILITIES = ('dropout', 'drop_path')
PER_STAGE = ('widths', 'depths', 'heads', 'modules')


def build(
  name: str,
  classes: int = 19,
  dtype: DTypeLike = 'float32',
  precision: str = 'default',
  **options: object,
) -> SegmentationNet:
  """The network called `name`, without weights.

  Args:
    name: 'deeplab_resnet101', 'deeplab_efficientnet_lite0', 'hiast_resnet101', 'hrnet_w48_ocr',
      'mit_b0_segformer' to 'mit_b5_segformer', 'mit_b0_daformer' to 'mit_b5_daformer',
      'translator_encoder', 'translator_decoder', 'translator_discriminator',
      'output_discriminator' or 'vgg19_features'.
    classes: channels of the logits (segmentation networks only).
    dtype: type computed in; parameters and results are float32 whatever it is.
    precision: of products of float32 values, one of `PRECISIONS`; see layers.Network.
    **options: the module's other attributes, such as `feature=64`.

  Returns:
    A linen module. Segmentation networks take (images, train=False, keys=None): normalised BGR
    [B, H, W, 3] (see pixels.normalise) and [B] typed keys for dropout; they return float32
    {'logits', 'feature'} at the network's output stride, hrnet_w48_ocr 'auxiliary_logits' too.

  Raises:
    BadInput: there is no such network, it has no such option, or not with such a value.
  """
  kinds = SEGMENTATION | _OTHER
  if name not in kinds:
    raise BadInput(f'no network is called {name!r}; there are {", ".join(kinds)}')
  known = inspect.signature(kinds[name]).parameters.keys() - {'parent', 'name'}
  unknown = sorted(set(options) - known)
  if unknown:
    raise BadInput(f'{name} has no option {unknown[0]!r}; it has {", ".join(sorted(known))}')
  if precision not in PRECISIONS:
    raise BadInput(f'precision is {" or ".join(map(repr, PRECISIONS))}, not {precision!r}')
  # Lists from a config file become tuples: linen hashes its attributes under jit.
  options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
  check_values(kinds[name], options)
  if 'classes' in known:
    options['classes'] = classes
  return kinds[name](dtype=jnp.dtype(dtype), precision=precision, **options)


def check_values(kind: Callable[..., nn.Module], options: Mapping[str, object]) -> None:
  """Raises BadInput where an option of a kind of network may not have its value."""
  defaults = {k: p.default for k, p in inspect.signature(kind).parameters.items()}
  for option, value in options.items():
    allowed = CHOICES.get(option, (value,))
    if value not in allowed:
      raise BadInput(f'{option} is {" or ".join(map(repr, allowed))}, not {value!r}')
    if option in PROBABILITIES and not rules.number(0, 1, below=True).accepts(value):
      raise BadInput(f'{option} is a probability below 1, not {value!r}')
    if option in PER_STAGE:
      count = len(defaults[option])
      if not rules.tuple_of(rules.whole(1), count).accepts(value):
        raise BadInput(f'{option} is {count} whole numbers above 0, not {value!r}')
  sizes = {**defaults, **options}
  if 'heads' in sizes and any(w % n for w, n in zip(sizes['widths'], sizes['heads'], strict=True)):
    raise BadInput(f'widths {sizes["widths"]} are not multiples of heads {sizes["heads"]}')


def shapes(module: SegmentationNet) -> Variables:
  """The variables of a network as jax.ShapeDtypeStruct, without computing anything."""
  match module:
    case translator.Decoder():  # starts from the encoder's channels
      shape = (1, 16, 16, 4 * module.width)
    case discriminator.OutputDiscriminator():  # from probabilities
      shape = (1, 64, 64, module.classes)
    case _:
      shape = (1, 64, 64, 3)
  return jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
