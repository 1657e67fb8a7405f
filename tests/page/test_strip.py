"""The pictures of a page."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from diga_jax.page import strip, working_directory


def decode(url: str) -> np.ndarray:
  kind, _, data = url.partition(',')
  assert kind == 'data:image/webp;base64'
  return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.fixture
def run(finished):
  return working_directory.read(finished / 'a')


def test_every_stage_has_its_prediction_and_labels_their_mask(run):
  test, target = strip.strips(run)
  assert (test.title, target.title) == ('camera_test', 'target')
  (shown,) = test.images.values()
  assert shown.keys() == {'image', 'truth', 'prediction'}
  assert shown['image'].keys() == shown['truth'].keys() == {0}  # held once
  warmup, first = decode(shown['prediction'][0]), decode(shown['prediction'][1])
  assert (warmup == warmup[0, 0]).all() and (warmup != first).any()
  colours = {f'rgb({r},{g},{b})' for r, g, b in (warmup[0, 0], first[0, 0])}
  assert colours <= set(test.legend.values()) and 'road' in test.legend
  assert target.columns == ['image', 'truth', 'prediction', 'pseudo-label', 'kept']
  assert decode(shown['image'][0]).shape == decode(shown['truth'][0]).shape


def test_a_page_has_room_for_so_many_images(run):
  test, target = strip.strips(run, budget=1)
  assert len(test.images) == len(target.images) == 1
  assert test.left_out == 0


def test_images_for_which_there_is_no_room_are_counted(finished, tmp_path, run):
  source = strip.sources_of(run)['camera_test'][0]
  (path,) = source.folder.glob('*.png')
  for number in range(3):
    Image.open(path).save(tmp_path / f'{number}.png', pnginfo=text_of(path))
  folders = {'camera_test': [source._replace(folder=tmp_path)]}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(strip, 'sources_of', lambda found: folders)
    size = sum(len(u) for c in strip.strips(run)[0].images['0'].values() for u in c.values())
    (found,) = strip.strips(run, budget=2 * size)
  assert list(found.images) == ['0', '1'] and found.left_out == 1


def text_of(path):
  from PIL.PngImagePlugin import PngInfo

  made = PngInfo()
  for key, value in Image.open(path).text.items():
    made.add_text(key, value)
  return made


def test_pictures_of_earlier_versions_are_shown_whole(tmp_path, run):
  source = strip.sources_of(run)['camera_test'][0]
  (path,) = source.folder.glob('*.png')
  Image.open(path).save(tmp_path / 'old.png')  # without its texts
  folders = {'camera_test': [source._replace(folder=tmp_path)]}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(strip, 'sources_of', lambda found: folders)
    (found,) = strip.strips(run)
  assert found.columns == ['picture'] and found.legend == {}
  assert decode(found.images['old']['picture'][0]).shape == np.asarray(Image.open(path)).shape
