"""What student and teacher look at: normalised images [B, H, W, 3], and where they were mixed."""

from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from diga_jax import augment, fourier, mixing
from diga_jax.models.translator import translate
from diga_jax.parallel.example_keys import example_keys, stream_key
from diga_jax.pixels import normalise
from diga_jax.stages.forward import interleave
from diga_jax.state import TrainState
from diga_jax.strong_augment import strong_view
from diga_jax.types import Batch, Params, StepConfig

# What `mixing` and `target_mixing` may be: classes of the source are pasted, hard classes of other
# target images (by the input pipeline), or nothing.
CLASS, COPY_PASTE, NONE = 'class', 'copy_paste', 'none'
MIXINGS, TARGET_MIXINGS = (CLASS, NONE), (CLASS, COPY_PASTE, NONE)


class Views(NamedTuple):
  """The images of a step of DiGA's self-training."""

  pair: jax.Array  # the source as it is and its cross-domain mixture, interleaved [2B, H, W, 3]
  target: jax.Array  # the target as it is
  target_mixed: jax.Array  # the source under `mask`, the augmented target elsewhere
  mask: jax.Array | None  # bool [B, H, W]; None: nowhere


def normalise_images(batch: Batch) -> Batch:
  """The batch with its images, uint8 RGB [B, H, W, 3], normalised."""
  return {k: normalise(x) if k.endswith('_image') else x for k, x in batch.items()}


def two_views(
  state: TrainState,
  batch: Batch,
  frozen: Params | None,
  config: StepConfig,
  axis_name: str | None = None,
) -> jax.Array:
  """The source images as they are and their cross-domain mixture, interleaved [2B, H, W, 3].

  The mixture (CrDoMix) is the photometric view where one of the drawn classes is, the translated
  image elsewhere (docs/diga.md section 6.3); with `config.stage.mixing = 'none'` it is the
  photometric view alone. `batch` holds normalised images.
  """
  source = batch['source_image']
  augmented = photometric(state, source, 'source_view', config.stage.view, axis_name)
  if config.stage.mixing == NONE:
    return interleave(source, augmented)
  target = batch.get('target_image')
  translated = repaint(source, target, frozen, config.translator, config.precision)
  mask = source_mask(state, batch, 'source_classes', axis_name)
  return interleave(source, mixing.paste(mask, augmented, translated))


def four_views(
  state: TrainState,
  batch: Batch,
  frozen: Params | None,
  config: StepConfig,
  axis_name: str | None = None,
) -> Views:
  """`two_views` of the source, and the target as it is and mixed (docs/diga.md section 7)."""
  pair, target = two_views(state, batch, frozen, config, axis_name), batch['target_image']
  augmented = photometric(state, target, 'target_view', config.stage.view, axis_name)
  mask = target_mask(state, batch, config.stage, axis_name)
  return Views(pair, target, paste_source(mask, batch.get('source_image'), augmented), mask)


def weak_and_strong(
  state: TrainState, batch: Batch, stage: ConfigDict, axis_name: str | None = None
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
  """HIAST's two views of the target, and the mask under which both show the source (or None).

  `batch` holds images as they come, uint8: the strong view's operations are defined on bytes.
  """
  images = batch['target_image']
  keys = example_keys(state.key, state.step, 'strong_view', len(images), axis_name)
  strong = strong_view(keys, images, count=stage.strong)
  mask = target_mask(state, batch, stage, axis_name)
  source = batch.get('source_image')
  weak, strong = (normalise(paste_source(mask, source, view)) for view in (images, strong))
  return weak, strong, mask


def photometric(
  state: TrainState, images: jax.Array, name: str, view: ConfigDict, axis_name: str | None
) -> jax.Array:
  """The photometric view of normalised images (docs/diga.md section 5); `name` of its keys."""
  keys = example_keys(state.key, state.step, name, len(images), axis_name)
  order = stream_key(state.key, state.step, 'jitter_order')
  order = jax.random.fold_in(order, name == 'target_view')
  return augment.photometric_view(keys, images, order_key=order, **view)


def repaint(
  source: jax.Array,
  target: jax.Array | None,
  frozen: Params | None,
  translator: ConfigDict,
  precision: str = 'default',
) -> jax.Array:
  """Source images in the target's style: by network, by amplitude swap, or left as they are."""
  return TRANSLATORS[translator.kind](source, target, frozen, translator, precision)


# (source, target, frozen, translator, precision) -> images: what `translator.kind` may be.
TRANSLATORS = {
  'network': lambda source, target, frozen, *settings: translate(frozen, source, *settings),
  'fourier': lambda source, target, frozen, translator, _: fourier.amplitude_swap(
    source, target, beta=translator.beta
  ),
  'none': lambda source, *_: source,
}


def source_mask(state: TrainState, batch: Batch, name: str, axis_name: str | None) -> jax.Array:
  """Where a source image shows one of half of its labels: bool [B, H, W]; `name` of the draw."""
  labels = batch['source_label']
  keys = example_keys(state.key, state.step, name, len(labels), axis_name)
  return mixing.class_mask(keys, labels)


def target_mask(
  state: TrainState, batch: Batch, stage: ConfigDict, axis_name: str | None
) -> jax.Array | None:
  """Where source pixels are pasted over the target image: bool [B, H, W] or None, nowhere.

  With `target_mixing = 'class'` those of half of the source labels present (class mix,
  docs/diga.md section 7.5), else nowhere: 'copy_paste' has been done by the input pipeline.
  """
  if stage.target_mixing != CLASS:
    return None
  return source_mask(state, batch, 'target_classes', axis_name)


def paste_source(mask: jax.Array | None, source: jax.Array | None, target: jax.Array) -> jax.Array:
  """The source's images or labels under the mask, the target's elsewhere; `source` as `mask`."""
  if mask is None:
    return target
  assert source is not None  # a mask is of source labels, which come with their images
  return mixing.paste(mask, source, target)
