import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diga_jax import fourier


def reference(source, target, beta):
  """FDA in full complex spectra with the zero frequency shifted to the middle."""
  height, width = source.shape[1:3]
  half = int(np.floor(beta * min(height, width)))
  top, left = height // 2 - half, width // 2 - half
  spectra = [np.fft.fftshift(np.fft.fft2(x, axes=(1, 2)), axes=(1, 2)) for x in (source, target)]
  amplitude, phase = np.abs(spectra[0]), np.angle(spectra[0])
  window = np.s_[:, top : top + 2 * half + 1, left : left + 2 * half + 1]
  amplitude[window] = np.abs(spectra[1])[window]
  mixed = np.fft.ifftshift(amplitude * np.exp(1j * phase), axes=(1, 2))
  return np.fft.ifft2(mixed, axes=(1, 2)).real


def images(seed, shape):
  return np.random.default_rng(seed).uniform(-1, 1, (2, *shape)).astype(np.float32)


@given(
  st.integers(0, 2**31),
  st.sampled_from([(16, 24, 3), (17, 23, 3), (24, 15, 1)]),
  st.sampled_from([0.0, 0.01, 0.07, 0.2, 0.4]),
)
@settings(max_examples=20, deadline=None)
def test_swap_is_the_shifted_reference(seed, shape, beta):
  source, target = images(seed, shape), images(seed + 1, shape)
  got = jax.jit(fourier.amplitude_swap, static_argnames='beta')(source, target, beta=beta)
  np.testing.assert_allclose(got, reference(source, target, beta), atol=1e-5)


def test_swapping_with_itself_changes_nothing():
  source = images(0, (16, 24, 3))
  np.testing.assert_allclose(fourier.amplitude_swap(source, source, 0.3), source, atol=1e-6)


def test_beta_zero_swaps_the_means_magnitude_only():
  source, target = images(1, (16, 24, 3)) + 2, images(2, (16, 24, 3)) + 5
  got = np.asarray(fourier.amplitude_swap(source, target, 0.0))
  np.testing.assert_allclose(got.mean((1, 2)), target.mean((1, 2)), rtol=1e-5)
  np.testing.assert_allclose(
    got - got.mean((1, 2), keepdims=True), source - source.mean((1, 2), keepdims=True), atol=1e-5
  )


def test_an_empty_source_is_finite():
  assert np.isfinite(fourier.amplitude_swap(images(0, (8, 8, 3)) * 0, images(1, (8, 8, 3)))).all()


def test_shapes_that_differ_are_refused():
  with pytest.raises(ValueError, match='one shape'):
    fourier.amplitude_swap(images(0, (8, 8, 3)), images(0, (8, 9, 3)))
