"""What the networks are fed: the published normalisation of pixel values, and others made of it."""

import jax
import jax.numpy as jnp
import numpy as np

MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)
SCALE = 128.0
# What torchvision's networks were trained on: RGB in [0, 1], minus mean, over deviation.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalise(images: jax.Array) -> jax.Array:
  """uint8 RGB [..., 3] -> float32 BGR [..., 3], mean removed, divided by 128: about [-1, 1].

  Source: docs/diga.md section 2.
  """
  mean = jnp.broadcast_to(jnp.asarray(MEAN_BGR), images.shape)
  return (images[..., ::-1].astype(jnp.float32) - mean) / SCALE


def imagenet(images: jax.Array) -> jax.Array:
  """Normalised BGR [..., 3] -> RGB [..., 3] as torchvision normalises it."""
  mean, deviation = np.asarray(IMAGENET_MEAN), np.asarray(IMAGENET_STD)
  scale = SCALE / (255 * deviation)
  shift = (np.asarray(MEAN_BGR[::-1]) / 255 - mean) / deviation
  scale, shift = (
    jnp.broadcast_to(jnp.asarray(value, images.dtype), images.shape) for value in (scale, shift)
  )
  return images[..., ::-1] * scale + shift


# What a network may want made of normalised BGR: nothing, the same values as RGB, torchvision's.
PIXELS = {
  'given': lambda images: images,
  'rgb': lambda images: images[..., ::-1],
  'imagenet': imagenet,
}
