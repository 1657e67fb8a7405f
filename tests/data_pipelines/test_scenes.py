"""The embedded source: determinism, labels, the two looks, and the cache on disk."""

import multiprocessing
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from data_pipelines import errors
from data_pipelines.scenes import render, shapes, textures

SMALL = (32, 64)
COUNT = 60


@pytest.fixture(scope='module')
def streets():
  """look -> (images [60, 64, 128, 3], labels [60, 64, 128])."""
  return {
    look: tuple(
      map(
        np.stack,
        zip(*(render.render(index, look, (64, 128)) for index in range(COUNT)), strict=True),
      )
    )
    for look in render.LOOKS
  }


def _shares(labels):
  """Share of all pixels, and of the scenes, that each class takes: [19], [19]."""
  present = [(labels == train_id).any((1, 2)).mean() for train_id in range(19)]
  return np.bincount(labels.ravel(), minlength=19) / labels.size, np.array(present)


def _digest(arguments):
  image, label = render.render(*arguments)
  return image.tobytes(), label.tobytes()


@pytest.mark.parametrize('look', render.LOOKS)
def test_a_scene_is_the_same_in_every_process(look):
  arguments = (7, look, SMALL, 3)
  here = _digest(arguments)
  assert _digest(arguments) == here
  with multiprocessing.get_context('spawn').Pool(1) as pool:
    assert pool.apply(_digest, (arguments,)) == here


def test_index_look_and_seed_each_change_the_scene():
  scene = _digest((0, 'game', SMALL, 0))
  for other in ((1, 'game', SMALL, 0), (0, 'camera', SMALL, 0), (0, 'game', SMALL, 1)):
    assert _digest(other)[0] != scene[0]
    assert _digest(other)[1] != scene[1]


@pytest.mark.parametrize('look', render.LOOKS)
@pytest.mark.parametrize('size', [(128, 256), (48, 48), (60, 80), (33, 101)])
def test_types_and_sizes(look, size):
  image, label = render.render(2, look, size)
  assert image.dtype == label.dtype == np.uint8
  assert image.shape == (*size, 3)
  assert label.shape == size
  assert label.max() <= 18


@pytest.mark.parametrize('look', render.LOOKS)
def test_the_street_does_not_depend_on_the_size(look):
  _, fine = render.render(4, look, (192, 384))
  _, coarse = render.render(4, look, (64, 128))
  # The centre of a coarse pixel is the centre of the middle one of its 3x3 fine pixels.
  assert (fine[1::3, 1::3] == coarse).mean() > 0.999


@pytest.mark.parametrize('look', render.LOOKS)
def test_every_class_is_frequent_enough_to_learn(streets, look):
  pixels, present = _shares(streets[look][1])
  assert present.min() >= 0.15
  assert pixels.min() >= 0.002
  assert pixels[[shapes.POLE, shapes.LIGHT, shapes.SIGN]].min() >= 0.003


def test_looks_share_their_content_but_not_their_colours(streets):
  game, camera = (_shares(streets[look][1])[0] for look in ('game', 'camera'))
  assert np.abs(game - camera).sum() < 0.2
  game, camera = (streets[look][0] / 255 for look in ('game', 'camera'))
  # The camera is duller (spread between channels) and rougher (change between neighbours on roads).
  assert np.ptp(camera, axis=-1).mean() < 0.5 * np.ptp(game, axis=-1).mean()
  assert np.abs(camera.mean((0, 1, 2)) - game.mean((0, 1, 2))).max() > 0.08
  rough = [
    np.median(
      np.abs(np.diff(streets[look][0].astype(float), axis=2))[
        (streets[look][1] == shapes.ROAD)[:, :, 1:]
      ]
    )
    for look in ('game', 'camera')
  ]
  assert rough[1] > 2 * rough[0]


def test_dusk_is_darker_and_fog_hides_what_is_far(streets):
  brightness = {look: images.mean() for look, (images, _) in streets.items()}
  assert brightness['dusk'] < 0.6 * brightness['camera']

  def contrast(look):  # of the middle of the picture, where the street ends
    images = streets[look][0].astype(float).mean(-1)
    return images[:, 24:40].std((1, 2)).mean()

  assert contrast('fog') < 0.9 * contrast('camera')


def test_labels_are_exact_for_a_quad_whose_outline_is_known():
  camera = shapes.Camera(np.array([0, 2, 0], np.float32), yaw=0, focal=10, horizon=8)
  canvas = shapes.Canvas(camera, 16, 32)
  # 4 m x 2 m, 10 m ahead at the eye's height: 1 m is one pixel.
  quad = shapes.Quad(
    np.array([-2, 2, 10], np.float32),
    np.array([4, 0, 0], np.float32),
    shapes.UP * 2,
    textures.plain(np.float32([1, 0, 0])),
    shapes.CAR,
  )
  shapes.paint(canvas, quad, lambda normal: np.float32(0.5), grain=0)
  expected = np.full((16, 32), shapes.SKY)
  expected[6:8, 14:18] = shapes.CAR
  np.testing.assert_array_equal(canvas.label, expected)
  np.testing.assert_allclose(canvas.colour[6:8, 14:18], np.broadcast_to([0.5, 0, 0], (2, 4, 3)))
  np.testing.assert_allclose(canvas.inverse_depth[6:8, 14:18], 0.1, rtol=1e-5)


def test_the_nearer_quad_wins_whatever_the_order():
  def picture(order):
    canvas = shapes.Canvas(shapes.Camera(np.zeros(3, np.float32), 0.1, 20, 8), 16, 32)
    for z in order:
      quad = shapes.Quad(
        np.array([-3, -1, z], np.float32),
        np.array([z, 0, 0], np.float32),
        shapes.UP * 3,
        textures.plain(np.float32([1, 1, 1])),
        z,
      )
      shapes.paint(canvas, quad, lambda normal: np.float32(1), grain=0)
    return canvas.label

  np.testing.assert_array_equal(picture((9, 5, 7)), picture((5, 7, 9)))
  assert {5, 7, 9} <= set(np.unique(picture((9, 5, 7))))


@pytest.mark.parametrize(
  'arguments',
  [(0, 'film', SMALL, 0), (-1, 'game', SMALL, 0), (0, 'game', SMALL, -1), (0, 'game', (8, 64), 0)],
)
def test_wrong_arguments_are_named(arguments):
  with pytest.raises(errors.BadInput) as raised:
    render.render(*arguments)
  assert '\n' not in str(raised.value)


def _contents(root):
  return {
    str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns)
    for path in sorted(root.rglob('*'))
    if path.is_file()
  }


def test_materialise_writes_what_render_gives(tmp_path):
  images, labels, ids = render.materialise(tmp_path / 'new', 'camera', [3, 0], SMALL, seed=2)
  assert ids == ['000003', '000000']
  for index, name in zip([3, 0], ids, strict=True):
    image, label = render.render(index, 'camera', SMALL, 2)
    np.testing.assert_array_equal(Image.open(images.format(id=name)), image)
    np.testing.assert_array_equal(Image.open(labels.format(id=name)), label)


def test_materialise_replaces_damaged_files_and_leaves_the_rest_alone(tmp_path):
  render.materialise(tmp_path, 'game', range(4), SMALL)
  before = _contents(tmp_path)
  (tmp_path / 'labels/000001.png').unlink()
  cut = tmp_path / 'images/000002.png'
  cut.write_bytes(cut.read_bytes()[:-20])
  (tmp_path / 'images/000003.png').write_bytes(b'')
  stale, fresh = (tmp_path / f'images/.{name}.tmp' for name in ('stale', 'fresh'))
  stale.touch()
  fresh.touch()  # another process may be writing it
  os.utime(stale, (0, 0))
  render.materialise(tmp_path, 'game', range(4), SMALL)
  assert fresh.exists() and not stale.exists()
  fresh.unlink()
  after = _contents(tmp_path)
  assert {name: data for name, (data, _) in after.items()} == {
    name: data for name, (data, _) in before.items()
  }
  written = {name for name in after if after[name] != before[name]}
  assert written == {f'{part}/00000{i}.png' for part in ('images', 'labels') for i in (1, 2, 3)}


def test_materialise_refuses_a_folder_of_other_scenes(tmp_path):
  render.materialise(tmp_path, 'game', [0], SMALL)
  for look, size, seed in (('camera', SMALL, 0), ('game', (32, 48), 0), ('game', SMALL, 1)):
    with pytest.raises(errors.BadInput, match='take another folder'):
      render.materialise(tmp_path, look, [0], size, seed)


def test_materialise_names_a_folder_that_cannot_be_made(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(errors.BadInput, match='file'):
    render.materialise(tmp_path / 'file', 'game', [0], SMALL)


SCRIPT = """
import sys
from data_pipelines.scenes import render
if __name__ == '__main__':
  render.materialise(sys.argv[1], 'game', range(32), (32, 64), workers=2)
"""


def _start(script, directory):
  root = pathlib.Path(render.__file__).parents[2]
  return subprocess.Popen(
    [sys.executable, str(script), str(directory)], env={**os.environ, 'PYTHONPATH': str(root)}
  )


def test_two_processes_with_workers_fill_one_folder(tmp_path):
  script, directory = tmp_path / 'fill.py', tmp_path / 'cache'
  script.write_text(SCRIPT)
  assert [process.wait(60) for process in [_start(script, directory) for _ in range(2)]] == [0, 0]
  files = _contents(directory)
  assert len(files) == 65 and not [name for name in files if name.endswith('.tmp')]
  for index in (0, 31):
    image, label = render.render(index, 'game', SMALL)
    np.testing.assert_array_equal(Image.open(directory / f'images/{index:06d}.png'), image)
    np.testing.assert_array_equal(Image.open(directory / f'labels/{index:06d}.png'), label)


def test_a_killed_run_is_resumed(tmp_path):
  script, directory = tmp_path / 'fill.py', tmp_path / 'cache'
  script.write_text(SCRIPT.replace('workers=2', 'workers=1'))
  process = _start(script, directory)
  while process.poll() is None and len(list(directory.glob('images/*.png'))) < 3:
    pass
  process.kill()
  process.wait()
  before = _contents(directory)
  assert 3 <= len(list(directory.glob('images/0*.png'))) < 32
  render.materialise(directory, 'game', range(32), SMALL)
  after = _contents(directory)
  assert len([name for name in after if name.endswith('.png')]) == 64
  whole = [name for name in before if name.startswith('images/0')]
  assert all(after[name] == before[name] for name in whole)
