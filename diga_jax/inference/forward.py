"""The multi-scale forward pass that evaluation, label passes, prediction and exports share.

Source: docs/diga.md section 8.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.errors import BadInput
from data_pipelines.label_tables import IGNORE
from diga_jax import pixels, resize
from diga_jax.parallel import mesh
from diga_jax.types import SegmentationNet, Size, Variables


@functools.partial(jax.jit, static_argnames=('size', 'model', 'scales', 'flip', 'as_classes'))
def multi_scale(
  variables: Variables,
  images: jax.Array,
  size: Size,
  *,
  model: SegmentationNet,
  scales: Sequence[float],
  flip: bool,
  as_classes: bool,
) -> jax.Array:
  """Logits, or each pixel's class, of images; see `Predictor.logits` and `Predictor.classes`."""
  normalised = pixels.normalise(images)
  height, width = normalised.shape[1:3]

  def full_size(view: jax.Array) -> jax.Array:
    logits = model.apply(variables, view, train=False)['logits']
    return resize.align_corners(logits.astype(jnp.float32), size)

  maps = []
  for scale in scales:
    # floor, as PyTorch's interpolate(scale_factor=...) does; scale 1 leaves the pixels alone.
    scaled = max(math.floor(height * scale), 1), max(math.floor(width * scale), 1)
    view = normalised if scale == 1 else resize.align_corners(normalised, scaled)
    maps.append(full_size(view))
    if flip:
      maps.append(full_size(view[:, :, ::-1])[:, :, ::-1])
  logits = functools.reduce(jnp.maximum, maps)
  return classes_of(logits) if as_classes else logits


def classes_of(logits: jax.Array) -> jax.Array:
  """The class with the largest of logits [..., C]: uint8 [...]; 255 where one is not finite.

  Raises:
    BadInput: a byte cannot hold the ids of so many classes and 255, which means none.
  """
  if logits.shape[-1] > IGNORE:
    raise BadInput(f'a network of {logits.shape[-1]} classes: labels hold at most {IGNORE}')
  found = jnp.argmax(logits, axis=-1).astype(jnp.uint8)
  return jnp.where(jnp.isfinite(logits).all(-1), found, jnp.uint8(IGNORE))


@jax.jit
def classes_and_probabilities(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
  """`classes_of` logits [B, h, w, C], and their softmax, float32 [B, h, w, C]."""
  return classes_of(logits), jax.nn.softmax(logits, -1)


def check_classes(classes: np.ndarray, ids: Sequence[str]) -> None:
  """Refuses what `classes_of` found for images where logits are not finite; raises BadInput."""
  if (classes == IGNORE).any():
    raise BadInput(
      f'{", ".join(ids)}: the network computes numbers that are not finite there: take another one'
    )


@dataclasses.dataclass(frozen=True)
class Predictor:
  """A trained network and how it is applied to whole images; the published way is the default.

  Running statistics are used. Programs are compiled once per image size, and two predictors with
  equal modules, scales and flip share them.

  Attributes:
    model: a linen module; `apply(variables, images, train=False)` gives a dict with 'logits'.
    variables: of the model.
    scales: sizes of the image relative to itself. A scaled image has floor(scale * H) x
      floor(scale * W) pixels, corners aligned; the elementwise maximum of the logits is taken.
    flip: also run the network on the mirror image at each scale.
    batch_size: images of one size computed together; results do not depend on it.
    place: places a host array [B, ...] on the devices.

  Raises:
    BadInput: no scale, or a scale that is not positive.
  """

  model: SegmentationNet
  variables: Variables
  scales: Sequence[float] = (1.0, 0.5)
  flip: bool = False
  batch_size: int = 1
  place: Callable[[np.ndarray], jax.Array] = jnp.asarray

  def __post_init__(self) -> None:
    scales = tuple(map(float, self.scales))
    if not scales or min(scales) <= 0:
      raise BadInput(f'scales={scales}: give one or more positive numbers, such as (1.0, 0.5)')
    object.__setattr__(self, 'scales', scales)
    object.__setattr__(self, 'flip', bool(self.flip))

  def logits(self, images: jax.Array, size: Size) -> jax.Array:
    """uint8 RGB [B, H, W, 3] -> float32 logits [B, h, w, C] at `size`."""
    return self._apply(images, size, as_classes=False)

  def classes(self, images: jax.Array, size: Size) -> jax.Array:
    """uint8 RGB [B, H, W, 3] -> each pixel's class at `size`, uint8 [B, h, w]."""
    return self._apply(images, size, as_classes=True)

  def probabilities(self, images: jax.Array, size: Size) -> tuple[jax.Array, jax.Array]:
    """`classes`, and the softmax of `logits`: float32 [B, h, w, C]; both may differ by rounding."""
    return classes_and_probabilities(self.logits(images, size))

  def _apply(self, images: jax.Array, size: Size, as_classes: bool) -> jax.Array:
    model, scales, flip = self.model, self.scales, self.flip
    rows, (height, width, channels) = self.batch_size, images.shape[1:]  # exports take any rows
    scaled = channels * height * width * max(scales) ** 2
    mesh.check_memory(
      int(4 * rows * (scaled + model.classes * size[0] * size[1])),
      f'{rows} images of {height}x{width} at scales {scales} with {model.classes} classes',
      'lower evaluation.batch_size or the scales',
    )
    return multi_scale(
      self.variables, images, size, model=model, scales=scales, flip=flip, as_classes=as_classes
    )
