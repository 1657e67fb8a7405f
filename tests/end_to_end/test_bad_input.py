"""What a user gets for wrong files: one line that names them, status 2, nothing half-written."""

import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from diga_jax.__main__ import main

IDS = ('0', '1', '2')


@pytest.fixture
def root(tmp_path) -> pathlib.Path:
  """Three good images with labels."""
  random = np.random.default_rng(0)
  for folder in ('images', 'labels'):
    (tmp_path / 'data' / folder).mkdir(parents=True)
  for name in IDS:
    image = random.integers(0, 256, (48, 96, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / 'data' / 'images' / f'{name}.png')
    label = random.integers(0, 19, (48, 96)).astype(np.uint8)
    Image.fromarray(label).save(tmp_path / 'data' / 'labels' / f'{name}.png')
  return tmp_path / 'data'


def refused(root: pathlib.Path, capsys, *words: str, images: str = 'images/{id}.png') -> None:
  """A source-only stage on the folder ends with one line with these words and leaves nothing."""
  workdir = root.parent / 'run'
  source = '--config.data.sets.source.'
  status = main(
    [
      'train',
      '--stage=warmup',
      '--config=tests/configs/tiny.py',
      f'--workdir={workdir}',
      f'--config.data.root={root}',
      f'{source}kind=folder',
      f'{source}images={images}',
      f'{source}labels=labels/{{id}}.png',
      '--config.stages.warmup.method=source_only',
      '--config.stages.warmup.target_statistics=False',
    ]
  )
  lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('diga_jax: ')]
  assert status == 2
  assert len(lines) == 1
  for word in words:
    assert word in lines[0], lines[0]
  assert not workdir.exists() or not list(workdir.iterdir())


def cut_short(path: pathlib.Path) -> None:
  data = path.read_bytes()
  path.write_bytes(data[: len(data) // 2])


def test_a_missing_data_folder(root, capsys):
  refused(root / 'none', capsys, 'none', 'folder')


def test_an_image_without_a_label(root, capsys):
  (root / 'labels' / '1.png').unlink()
  refused(root, capsys, 'labels/1.png')


def test_sizes_that_differ(root, capsys):
  Image.fromarray(np.zeros((48, 90), np.uint8)).save(root / 'labels' / '2.png')
  refused(root, capsys, 'labels/2.png', '48x90', '48x96')


def test_a_label_id_out_of_range(root, capsys):
  Image.fromarray(np.full((48, 96), 77, np.uint8)).save(root / 'labels' / '0.png')
  refused(root, capsys, 'labels/0.png', '77')


def test_masks_whose_255_would_be_ignored(root, capsys):
  for path in (root / 'labels').iterdir():
    with Image.open(path) as label:
      Image.fromarray(np.where(np.asarray(label) > 9, 255, 0).astype(np.uint8)).save(path)
  refused(root, capsys, 'config.data.sets.source: ', 'masks of 0 and 255', "set table to 'masks'")


def test_a_pipe_is_not_waited_for(root, capsys):
  (root / 'images' / '1.png').unlink()
  os.mkfifo(root / 'images' / '1.png')
  refused(root, capsys, 'images/1.png: is a pipe')


def test_a_truncated_png(root, capsys):
  cut_short(root / 'images' / '1.png')
  refused(root, capsys, 'images/1.png')


def test_a_truncated_label(root, capsys):
  cut_short(root / 'labels' / '1.png')
  refused(root, capsys, 'labels/1.png')


def test_a_truncated_jpeg(root, capsys):
  for name in IDS:
    with Image.open(root / 'images' / f'{name}.png') as image:
      image.save(root / 'images' / f'{name}.jpg', quality=95)
  cut_short(root / 'images' / '2.jpg')
  refused(root, capsys, 'images/2.jpg', images='images/{id}.jpg')
