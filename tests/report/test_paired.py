"""Differences over seeds and images, on counts of which the answer is known."""

import numpy as np
import pytest

from diga_jax.report import paired, tables
from diga_jax.types import ImageCounts

AVERAGE = paired.Average(range(4))


def counts(gain: float, seeds: int = 5, images: int = 40, noise: float = 0.02) -> ImageCounts:
  """Of 1,000 pixels a class, about half and `gain` more are hit."""
  rng = np.random.default_rng(seeds)
  union = np.full((seeds, images, 4), 1000)
  by_image = 0.5 + 0.2 * np.random.default_rng(1).normal(size=(1, images, 1)).clip(-1, 1)
  share = by_image + gain + noise * rng.normal(size=(seeds, images, 4))
  return ImageCounts((1000 * share).astype(int), union)


def test_the_mean_iou_is_that_of_all_images_together():
  found = paired.mean_iou(
    ImageCounts(np.array([[[1, 0], [3, 0]]]), np.array([[[4, 0], [4, 0]]])),
    np.ones(2),
    paired.Average((0, 1)),
  )
  assert found == pytest.approx([0.5])  # the second class is nowhere


def test_a_network_does_not_differ_from_itself():
  found = paired.difference(counts(0), counts(0), AVERAGE)
  assert found[1:] == (0, 0, 0, 0, 0.5, None)


@pytest.mark.parametrize('gain', [-0.1, 0.05])
def test_a_gain_is_found_though_images_differ_more(gain):
  other = counts(gain, noise=0.03)
  found = paired.difference(other, counts(0), AVERAGE)
  assert found.low < gain < found.high
  assert found.high - found.low < 0.02  # the images' own spread is 0.2
  assert found.mean == pytest.approx(gain, abs=0.005)
  assert found.improves == (gain > 0) and found.p is not None and found.p < 0.01


def test_an_interval_needs_no_third_seed_but_a_test_does():
  two = paired.difference(counts(0.05, 2), counts(0, 2), AVERAGE)
  assert two.p is None and two.low < two.mean < two.high
  assert paired.corrected({'a': two}) == {'a': None}


def test_many_comparisons_are_corrected():
  found = {
    str(gain): paired.difference(counts(gain), counts(0, noise=0.1), AVERAGE)
    for gain in (0.01, 0.02, 0.1)
  }
  adjusted = paired.corrected(found)
  for name, row in found.items():
    assert row.p <= adjusted[name] <= 1
  smallest = min(found, key=lambda name: found[name].p)
  assert adjusted[smallest] == pytest.approx(3 * found[smallest].p)


def test_a_divisor_counts_classes_that_are_nowhere():
  nowhere = ImageCounts(np.array([[[1, 0]]]), np.array([[[2, 0]]]))
  found = paired.mean_iou(nowhere, np.ones(1), paired.Average((0, 1), 2))
  assert found == pytest.approx([0.25])


def test_of_one_seed_there_is_an_interval_of_images_alone():
  one = paired.difference(counts(0.05, 1), counts(0, 1), AVERAGE)
  assert one.p is None and one.improves is None and one.low <= one.mean <= one.high
  found = paired.score(counts(0, 1), AVERAGE)
  assert found.low < found.mean == found.interquartile == found.by_seed[0] < found.high


def test_of_one_image_there_is_no_interval():
  found = paired.score(counts(0, images=1), AVERAGE)
  assert (found.low, found.high) == (None, None) and len(found.by_seed) == 5
  assert paired.difference(counts(0.1, images=1), counts(0, images=1), AVERAGE).low is None


def test_the_interval_of_a_score_is_that_of_seeds_and_images():
  few, many = (paired.score(counts(0, images=images), AVERAGE) for images in (10, 200))
  assert few.low < few.mean < few.high
  assert few.high - few.low > 2 * (many.high - many.low)


def test_a_middle_half_leaves_out_what_is_far():
  far = counts(0)
  far.intersection[0] = 0
  found = paired.score(far, AVERAGE)
  assert found.mean < 0.45 < found.interquartile


@pytest.mark.parametrize('gain', [0, 0.05, 0.1, 0.2])
def test_a_gap_is_closed_by_a_share(gain):
  found = paired.gap_closed(counts(gain), counts(0, noise=0.01), counts(0.1, noise=0.01), AVERAGE)
  assert found.mean == pytest.approx(10 * gain, abs=0.1)
  assert found.low < found.mean < found.high


def test_no_share_of_a_gap_that_may_be_none_is_told():
  lower, upper = counts(0, images=5, noise=0.2), counts(0.001, images=5, noise=0.1)
  found = paired.gap_closed(counts(0.3, images=5), lower, upper, AVERAGE)
  assert found == (None, None, None)


def test_numbers_that_cannot_be_told_are_dashes():
  one = {'a': paired.difference(counts(0.1, 1), counts(0, 1), AVERAGE)}
  text = tables.render_markdown([paired.table(one, 'b', {'a': paired.Interval(None, None, None)})])
  assert text.splitlines()[-1].replace(' ', '').endswith('|-|-|-|')
