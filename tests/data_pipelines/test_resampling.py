"""NumPy resizes to the pixels of the library that is not everywhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import resampling, transforms
from data_pipelines.resampling import BICUBIC, BILINEAR, Span
from data_pipelines.scenes import render

library = pytest.mark.skipif(
  not resampling.HAS_LIBRARY, reason='cykooz-resizer, the one to compare with, is not installed'
)
SIDES = st.integers(1, 150)


@st.composite
def spans(draw: st.DrawFn, side: int) -> Span:
  first = draw(st.one_of(st.just(0.0), st.floats(0, side - 0.5)))
  length = draw(st.one_of(st.just(side - first), st.floats(0.4, side - first)))
  return Span(first, length, draw(SIDES))


@library
@settings(max_examples=200, deadline=None)
@given(st.data(), SIDES, SIDES, st.integers(0, 99), st.sampled_from([BICUBIC, BILINEAR]))
def test_any_part_of_noise(data, height, width, seed, kind):
  pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
  rows, columns = data.draw(spans(height)), data.draw(spans(width))
  found = resampling.by_numpy(pixels, rows, columns, kind)
  wanted = resampling.by_library(pixels, rows, columns, kind)
  assert found.dtype == np.uint8 and found.shape == wanted.shape == (rows.size, columns.size, 3)
  np.testing.assert_array_equal(found, wanted)


@library
@pytest.mark.parametrize('kind', [BICUBIC, BILINEAR])
@pytest.mark.parametrize('size', [(170, 340), (512, 1000), (9, 1500)])
def test_a_scene_without_the_library(monkeypatch, size, kind):
  picture = transforms.picture(render.render(3, 'camera', (256, 512))[0])
  wanted = transforms.resample(picture, size, kind).whole()
  monkeypatch.setattr(resampling, 'HAS_LIBRARY', False)
  monkeypatch.setattr(resampling, 'by_library', None)
  np.testing.assert_array_equal(transforms.resample(picture, size, kind).whole(), wanted)


def test_coefficients_sum_to_one_and_fit_into_16_bits():
  for span in (Span(0, 40, 7), Span(3.3, 0.4, 90), Span(0, 40, 40)):
    positions, coefficients, bits = resampling.taps(40, span, BICUBIC)
    assert positions.min() >= 0 and positions.max() < 40
    assert np.abs(coefficients).max() < 2**15
    np.testing.assert_allclose(coefficients.sum(1) / 2.0**bits, 1, atol=1e-3)
