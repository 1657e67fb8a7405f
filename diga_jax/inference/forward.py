"""The multi-scale forward pass of evaluation, label passes and prediction.

Source: docs/method.md section 8.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.errors import BadInput
from diga_jax import pixels, resize

SCALES = (1.0, 0.5)


Put = Callable[[np.ndarray], jax.Array]


@functools.partial(jax.jit, static_argnames=('model', 'scales', 'flip', 'size'))
def _fused_logits(
  variables: Any,
  images: jax.Array,
  size: tuple[int, int],
  *,
  model: Any,
  scales: tuple[float, ...],
  flip: bool,
) -> jax.Array:
  """uint8 RGB [B, H, W, 3] -> float32 logits [B, h, w, C] at `size`; see `forward`."""
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
  return functools.reduce(jnp.maximum, maps)


def _checked(scales: Sequence[float], fusion: str) -> tuple[float, ...]:
  scales = tuple(float(scale) for scale in scales)
  if not scales or min(scales) <= 0:
    raise BadInput(f'scales={scales}: give one or more positive numbers, such as (1.0, 0.5)')
  if fusion != 'max':
    raise BadInput(f"fusion={fusion!r}: only 'max' (elementwise maximum of the logits) exists")
  return scales


def forward(
  model: Any, scales: Sequence[float] = SCALES, fusion: str = 'max', flip: bool = False
) -> Callable[[Any, jax.Array, tuple[int, int]], jax.Array]:
  """The multi-scale forward pass with running statistics, compiled once per image size.

  Args:
    model: a linen module; `apply(variables, images, train=False)` gives a dict with 'logits'.
      It is hashed: two equal modules share their compiled programs.
    scales: sizes of the image relative to itself; the published ones are (1.0, 0.5). A scaled
      image has floor(scale * H) x floor(scale * W) pixels, corners aligned.
    fusion: 'max', the elementwise maximum of the logits, is the only one.
    flip: also look at the mirror image at each scale (published: no).

  Returns:
    f(variables, images, size): uint8 RGB [B, H, W, 3] and (h, w) -> logits [B, h, w, C], float32.

  Raises:
    BadInput: no scale, a scale that is not positive, another fusion.
  """
  scales = _checked(scales, fusion)
  return functools.partial(_fused_logits, model=model, scales=scales, flip=bool(flip))


@functools.partial(jax.jit, static_argnames=('model', 'scales', 'flip', 'size'))
def _predicted(variables: Any, images: jax.Array, size: tuple[int, int], **options) -> jax.Array:
  logits = _fused_logits(variables, images, size, **options)
  return jnp.argmax(logits, axis=-1).astype(jnp.uint8)


def predictor(
  model: Any, scales: Sequence[float] = SCALES, fusion: str = 'max', flip: bool = False
) -> Callable[[Any, jax.Array, tuple[int, int]], jax.Array]:
  """As `forward`, but the function returned gives each pixel's class: uint8 [B, h, w]."""
  scales = _checked(scales, fusion)
  return functools.partial(_predicted, model=model, scales=scales, flip=bool(flip))
