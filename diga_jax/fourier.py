"""Style transfer without training: FDA (arXiv 2004.05498)."""

import math

import jax
import jax.numpy as jnp


def amplitude_swap(source: jax.Array, target: jax.Array, beta: float = 0.01) -> jax.Array:
  """The source image with the low-frequency amplitudes of the target, its own phase kept.

  Swapped is the square of frequencies up to floor(beta * min(H, W)) around zero, per channel.

  Args:
    source, target: images [B, H, W, 3] of the same shape.
    beta: half-size of the square as a part of the shorter side, 0 (the mean only) to 0.5.

  Returns:
    float32 [B, H, W, 3], not clipped.

  Raises:
    ValueError: the shapes differ.

  Source: FDA, Sec. 2.1.
  """
  if source.shape != target.shape:
    raise ValueError(f'source {source.shape} and target {target.shape} must have one shape')
  height, width = source.shape[1:3]
  half = math.floor(beta * min(height, width)) + 0.5
  rows = jnp.abs(jnp.fft.fftfreq(height, 1 / height)) <= half
  columns = jnp.fft.rfftfreq(width, 1 / width) <= half
  low = (rows[:, None] & columns[None])[..., None]  # the square, in the layout of rfft2
  spectrum = jnp.fft.rfft2(source, axes=(1, 2))
  amplitude = jnp.abs(spectrum)
  # A coefficient of exactly zero has no phase; numpy's convention is the phase 0.
  phase = jnp.where(amplitude > 0, spectrum / jnp.where(amplitude > 0, amplitude, 1), 1)
  wanted = jnp.abs(jnp.fft.rfft2(target, axes=(1, 2)))
  swapped = jnp.where(low, wanted * phase, spectrum)
  return jnp.fft.irfft2(swapped, s=(height, width), axes=(1, 2))
