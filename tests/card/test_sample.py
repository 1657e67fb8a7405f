"""The picture of a card."""

import numpy as np
import pytest

from data_pipelines import atomic
from data_pipelines.errors import BadInput
from diga_jax.card import sample
from diga_jax.card.facts import Measured
from diga_jax.report import pictures

PALETTE = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)


def measured(folder, count: int = 5, truth: bool = True) -> Measured:
  """A measurement with pictures, of which the i-th image has the grey i."""
  for i in range(count):
    panels = pictures.comparison_panels(
      np.full((20, 300, 3), i, np.uint8),
      palette=PALETTE,
      truth=np.full((20, 300), i % 3) if truth else None,
      predictions={'prediction': np.zeros((20, 300), int)},
      names=('a', 'b', 'c'),
    )
    atomic.write_png(folder / f'pictures/city/{i}.png', panels)
  return Measured(folder, {})


def test_it_shows_the_first_the_middle_and_the_last_image(tmp_path):
  found = sample.draw([Measured(tmp_path / 'none', {}), measured(tmp_path / 'val')])
  assert found is not None and (found.data, found.images) == ('val', 3)
  pixels = np.asarray(found.picture)
  top, step = pictures.MARGIN + pictures.LINE, 20 + pictures.GAP
  left, across = pictures.MARGIN, 300 + pictures.GAP
  for row, i in enumerate((0, 2, 4)):
    y = top + row * step + 10
    assert pixels[y, left + 150].tolist() == [i] * 3
    assert pixels[y, left + across + 150].tolist() == PALETTE[i % 3].tolist()
    assert pixels[y, left + 2 * across + 150].tolist() == PALETTE[0].tolist()


def test_images_without_truth_have_two_panels(tmp_path):
  found = sample.draw([measured(tmp_path / 'val', 1, truth=False)])
  assert found is not None and found.images == 1
  assert found.picture.width == 2 * 300 + pictures.GAP + 2 * pictures.MARGIN


def test_a_damaged_picture_is_named(tmp_path):
  measured(tmp_path / 'val', 1)
  (tmp_path / 'val/pictures/city/0.png').write_bytes(b'no')
  with pytest.raises(BadInput, match=r'0\.png: is damaged'):
    sample.draw([Measured(tmp_path / 'val', {})])
  assert sample.draw([]) is None
