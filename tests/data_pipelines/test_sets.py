"""Data sets of a config: no file of theirs lies where a command writes."""

import contextlib
import pathlib

import numpy as np
import pytest
from PIL import Image

from data_pipelines import sets
from data_pipelines.errors import BadInput
from diga_jax.configs import datasets
from tests.support import data_files


def check(root: pathlib.Path, place: str, **changes) -> None:
  settings = datasets.dataset(**{'images': 'images/{id}.png'} | changes).to_dict()
  options = {'name': 'it', 'root': str(root), 'classes': 19, 'labelled': bool(settings['labels'])}
  folder = sets.open_set(settings, cache=str(root / 'cache'), **options)
  sets.check_apart(folder, settings, 'it', [str(root / place)])


@pytest.fixture
def root(tmp_path) -> pathlib.Path:
  data_files.numbered(tmp_path, 2)
  return tmp_path


@pytest.mark.parametrize('place', ['run', 'runs/a', 'image', 'images_of_run', 'labels'])
def test_a_place_beside_the_images_is_fine(root, place):
  check(root, place)


@pytest.mark.parametrize(
  'place, changes, named',
  [
    ('images', {}, 'images/000.png lies in '),
    ('.', {}, 'images/000.png lies in '),
    ('labels', {'labels': 'labels/{id}.png'}, 'labels/000.png lies in '),
    ('images/run', {}, 'also means the pictures'),
    ('images/deep/run', {}, 'also means the pictures'),
    ('run', {'images': '{id}.png'}, 'also means the pictures'),
    ('run/stage', {'images': '{id}'}, 'also means the pictures'),
    ('images_of_run', {'images': 'images{id}.png', 'list': 'deep.txt'}, ''),
    ('images/run', {'list': 'it.txt'}, ''),
    ('images/run', {'images': 'images/{id}.jpg'}, ''),
    ('images/0_run', {'images': 'images/00{id}.png'}, ''),
    ('images/00_run', {'images': 'images/00{id}.png'}, 'also means the pictures'),
  ],
)
def test_a_place_among_the_images_is_refused(root, place, changes, named):
  (root / 'it.txt').write_text('000\n')
  (root / 'deep.txt').write_text('_/000\n')
  data_files.save(root / 'images/000.jpg', Image.new('RGB', (4, 4)))
  data_files.save(root / 'images_/000.png', Image.new('RGB', (4, 4)))
  if not named:
    check(root, place, **changes)
    return
  with pytest.raises(BadInput, match=f'data.sets.it.*{named}') as error:
    check(root, place, **changes)
  assert '\n' not in str(error.value)


def test_links_are_followed(root):
  (root / 'seen').mkdir()
  (root / 'seen/0.png').symlink_to(root / 'images/000.png')
  with pytest.raises(BadInput, match=r'seen/0.png lies in .*images/'):
    check(root, 'images', images='seen/{id}.png')
  (root / 'folder').symlink_to(root / 'images')
  for place in ('images', 'folder'):
    with pytest.raises(BadInput, match=r'folder/000.png lies in .*images/'):
      check(root, place, images='folder/{id}.png')
    with pytest.raises(BadInput, match='also means the pictures'):
      check(root, f'{place}/run', images='folder/{id}.png')


def test_samples_of_doctor_are_no_images(root):
  data_files.write(root, 'manifests/it/000', np.zeros((4, 4, 3), np.uint8), None)
  settings = datasets.dataset(images='images/{id}.png').to_dict()
  options = {'name': 'it', 'root': str(root), 'classes': 19, 'labelled': False}
  with pytest.raises(BadInput, match=r'images/manifests/it/000.png lies in'):
    sets.open_set(settings, cache=str(root / 'images'), **options)


@pytest.mark.parametrize(
  ('place', 'refused'),
  [('labels', True), ('labels/more', True), ('photos', False), ('.', False), ('other', False)],
)
def test_pictures_are_not_written_among_a_sets_own(root, place, refused):
  settings = datasets.dataset(kind='folder', images='photos/{id}.jpg', labels='labels/{id}.png')
  told = (
    pytest.raises(BadInput, match=r'data\.sets\.own\.labels')
    if refused
    else contextlib.nullcontext()
  )
  with told:
    sets.check_pictures(settings, 'own', str(root), str(root / place))
