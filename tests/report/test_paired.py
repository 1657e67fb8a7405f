"""Differences over seeds and images, on counts of which the answer is known."""

import numpy as np
import pytest

from diga_jax.report import paired
from diga_jax.types import ImageCounts

CLASSES = range(4)


def counts(gain: float, seeds: int = 5, images: int = 40, noise: float = 0.02) -> ImageCounts:
  """Of 1,000 pixels a class, about half and `gain` more are hit."""
  rng = np.random.default_rng(seeds)
  union = np.full((seeds, images, 4), 1000)
  by_image = 0.5 + 0.2 * np.random.default_rng(1).normal(size=(1, images, 1)).clip(-1, 1)
  share = by_image + gain + noise * rng.normal(size=(seeds, images, 4))
  return ImageCounts((1000 * share).astype(int), union)


def test_the_mean_iou_is_that_of_all_images_together():
  found = paired.mean_iou(
    ImageCounts(np.array([[[1, 0], [3, 0]]]), np.array([[[4, 0], [4, 0]]])), np.ones(2), (0, 1)
  )
  assert found == pytest.approx([0.5])  # the second class is nowhere


def test_a_network_does_not_differ_from_itself():
  found = paired.difference(counts(0), counts(0), CLASSES)
  assert found[1:] == (0, 0, 0, 0, 0.5, None)


@pytest.mark.parametrize('gain', [-0.1, 0.05])
def test_a_gain_is_found_though_images_differ_more(gain):
  other = counts(gain, noise=0.03)
  found = paired.difference(other, counts(0), CLASSES)
  assert found.low < gain < found.high
  assert found.high - found.low < 0.02  # the images' own spread is 0.2
  assert found.mean == pytest.approx(gain, abs=0.005)
  assert found.improves == (gain > 0) and found.p is not None and found.p < 0.01


def test_an_interval_needs_no_third_seed_but_a_test_does():
  two = paired.difference(counts(0.05, 2), counts(0, 2), CLASSES)
  assert two.p is None and two.low < two.mean < two.high
  assert paired.corrected({'a': two}) == {'a': None}


def test_many_comparisons_are_corrected():
  found = {
    str(gain): paired.difference(counts(gain), counts(0, noise=0.1), CLASSES)
    for gain in (0.01, 0.02, 0.1)
  }
  adjusted = paired.corrected(found)
  for name, row in found.items():
    assert row.p <= adjusted[name] <= 1
  smallest = min(found, key=lambda name: found[name].p)
  assert adjusted[smallest] == pytest.approx(3 * found[smallest].p)


def test_an_interval_over_images_needs_no_second_seed():
  alone = counts(0, seeds=1)
  assert paired.over_images(alone, alone, CLASSES) == (0, 0)
  low, high = paired.over_images(counts(0.1, seeds=1), alone, CLASSES)
  assert low == pytest.approx(0.1, abs=1e-3) and high == pytest.approx(0.1, abs=1e-3)
  noisy = counts(0.1, seeds=2)
  low, high = paired.over_images(ImageCounts(*(x[1:] for x in noisy)), alone, CLASSES)
  assert 0.08 < low < 0.1 < high < 0.12
  assert paired.over_images(counts(0, seeds=1, images=1), counts(0, 1, 1), CLASSES) is None
