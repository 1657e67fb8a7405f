"""What the networks are fed: the published normalisation of pixel values."""

import jax
import jax.numpy as jnp

MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)
SCALE = 128.0


def normalise(images: jax.Array) -> jax.Array:
  """uint8 RGB [..., 3] -> float32 BGR [..., 3], mean removed, divided by 128: about [-1, 1].

  Source: docs/method.md section 2.
  """
  return (images[..., ::-1].astype(jnp.float32) - jnp.asarray(MEAN_BGR)) / SCALE


def to_uint8(images: jax.Array) -> jax.Array:
  """The inverse of `normalise`, rounded and clipped: float32 BGR [..., 3] -> uint8 RGB."""
  pixels = images * SCALE + jnp.asarray(MEAN_BGR)
  return jnp.clip(jnp.round(pixels), 0, 255).astype(jnp.uint8)[..., ::-1]
