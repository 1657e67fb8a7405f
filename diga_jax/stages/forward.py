"""The network in training mode."""

from typing import Any

import jax
import jax.numpy as jnp

from diga_jax import resize


def interleave(a: jax.Array, b: jax.Array) -> jax.Array:
  """Two [B, ...] -> [2B, ...], pairs side by side.

  Concatenating would move examples between devices (an all-to-all); this moves nothing, and
  BatchNorm over the 2B images does not depend on their order.
  """
  return jnp.stack([a, b], axis=1).reshape(-1, *a.shape[1:])


def deinterleave(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The inverse of `interleave`."""
  first, second = jnp.unstack(x.reshape(-1, 2, *x.shape[1:]), axis=1)
  return first, second


def forward(
  model: Any,
  params: Any,
  batch_stats: Any,
  images: jax.Array,
  keys: jax.Array | None,
) -> tuple[jax.Array, dict[str, jax.Array], Any]:
  """A pass in training mode.

  Returns:
    The logits at the size of the images [B, H, W, C], all outputs at the network's stride, and
    the moved running statistics.
  """
  outputs, moved = model.apply(
    {'params': params, 'batch_stats': batch_stats},
    images,
    train=True,
    keys=keys,
    mutable=['batch_stats'],
  )
  logits = resize.align_corners(outputs['logits'], images.shape[1:3])
  return logits, outputs, moved.get('batch_stats', batch_stats)


def auxiliary_logits(outputs: dict[str, jax.Array], size: tuple[int, int]) -> jax.Array | None:
  """The logits [B, H, W, C] of a network's auxiliary output, None for a network without one."""
  if 'auxiliary_logits' not in outputs:
    return None
  return resize.align_corners(outputs['auxiliary_logits'], size)
