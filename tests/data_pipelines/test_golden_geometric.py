"""HIAST's crops and the resizing of its label pass, against what the published code computes."""

import numpy as np
import pytest

from data_pipelines import transforms
from diga_jax.inference.image_batches import resize_to


class Given:
  """A generator that gives what was drawn for one window: its height, then its place."""

  def __init__(self, height: int, place: np.ndarray):
    self.height, self.place = height, place

  def integers(self, low: int, high: int) -> int:
    assert low <= self.height < high
    return self.height

  def random(self, count: int) -> np.ndarray:
    assert count == 2
    return self.place


@pytest.mark.parametrize('kind', ['image', 'noise'])
def test_the_crops(golden, kind):
  wanted = golden('hiast_geometric')
  size = tuple(wanted['size'].tolist())
  pair = transforms.picture(wanted[kind]), transforms.picture(wanted['label'])
  for i, (height, _, *place) in enumerate(wanted['windows']):
    drawn = Given(int(height), np.array(place))
    image, label = transforms.zoom(pair, size, drawn, heights=(20, 61))
    np.testing.assert_array_equal(image.whole(), wanted[f'crop_{kind}_{i}'])
    np.testing.assert_array_equal(label.whole(), wanted[f'crop_label_{i}'])
    top, left, height, width = 3, 5, 20, 30
    part = image.at((top, left, height, width))
    whole = image.whole()[top : top + height, left : left + width]
    np.testing.assert_array_equal(part, whole)


@pytest.mark.parametrize('kind', ['image', 'noise'])
def test_the_label_pass(golden, kind):
  wanted = golden('hiast_geometric')
  found = resize_to(wanted[kind], wanted['pass_size'].tolist(), kind='bilinear')
  np.testing.assert_array_equal(found, wanted[f'pass_{kind}'])
  back = resize_to(wanted['pass_label'], wanted['label'].shape, True, 'bilinear')
  np.testing.assert_array_equal(back, wanted['label_at_image_size'])


def test_the_flip(golden):
  wanted = golden('hiast_geometric')
  draws = np.random.default_rng(2)  # its first draw is below 0.5
  image, _ = transforms.flip((transforms.picture(wanted['image']), None), draws)
  np.testing.assert_array_equal(image.whole(), wanted['flipped'])
