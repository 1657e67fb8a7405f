"""What student and teacher look at: the plain source image and its cross-domain mixture."""

from typing import Any

import jax
import jax.numpy as jnp

from diga_jax import augment, fourier, mixing
from diga_jax.parallel.example_keys import example_keys, stream
from diga_jax.pixels import normalise
from diga_jax.stages.translator import translate
from diga_jax.state import TrainState


def photometric(
  state: TrainState, images: jax.Array, name: str, view: Any, axis_name: str | None
) -> jax.Array:
  """The photometric view of normalised images [B, H, W, 3] (docs/method.md section 5)."""
  keys = example_keys(state.key, state.step, name, len(images), axis_name)
  order = jax.random.fold_in(stream(state.key, state.step, 'jitter_order'), name == 'target_view')
  return augment.photometric_view(
    keys,
    images,
    jitter=view.jitter,
    grayscale=view.grayscale,
    blur=view.blur,
    sharpness=view.sharpness,
    beta=view.beta,
    order_key=order,
  )


def repaint(source: jax.Array, target: jax.Array | None, frozen: Any, translator: Any) -> jax.Array:
  """Source images in the target's style: by network, by amplitude swap, or left as they are."""
  if translator.kind == 'network':
    return translate(frozen, source, translator)
  if translator.kind == 'fourier':
    return fourier.amplitude_swap(source, target, beta=translator.beta)
  return source


def source_views(
  state: TrainState,
  batch: dict[str, jax.Array],
  frozen: Any,
  config: Any,
  axis_name: str | None = None,
) -> tuple[jax.Array, jax.Array]:
  """The two views of the source images, normalised, [B, H, W, 3] each.

  The first is the image as it is. The second is the cross-domain mixture (CrDoMix): the
  photometric view where one of the drawn classes is, the translated image elsewhere
  (docs/method.md section 6.3). `config.stage.mixing = 'none'` gives the photometric view alone.
  """
  source = normalise(batch['source_image'])
  augmented = photometric(state, source, 'source_view', config.stage.view, axis_name)
  if config.stage.mixing == 'none':
    return source, augmented
  target = normalise(batch['target_image']) if 'target_image' in batch else None
  translated = repaint(source, target, frozen, config.translator)
  keys = example_keys(state.key, state.step, 'source_classes', len(source), axis_name)
  mask = mixing.class_mask(keys, batch['source_label'])
  return source, mixing.paste(mask, augmented, translated)


def target_mask(
  state: TrainState, batch: dict[str, jax.Array], stage: Any, axis_name: str | None
) -> jax.Array:
  """Where source pixels are pasted over the target image: bool [B, H, W].

  With `target_mixing = 'class'` those of half of the source labels present (class mix,
  docs/method.md section 7.5), else nowhere: 'copy_paste' has been done by the input pipeline.
  """
  if stage.target_mixing != 'class':
    return jnp.zeros(batch['target_label'].shape, bool)
  labels = batch['source_label']
  keys = example_keys(state.key, state.step, 'target_classes', len(labels), axis_name)
  return mixing.class_mask(keys, labels)
