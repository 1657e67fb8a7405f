"""What belongs together by its name, in the ways in which people name files."""

import pathlib

import pytest

from data_pipelines.errors import BadInput
from data_pipelines.own_data import patterns
from data_pipelines.own_data.patterns import Pairs


def look(root: pathlib.Path, images: str, labels: str, *names: str) -> Pairs:
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).touch()
  return patterns.find(str(root / images), str(root / labels) if labels else '')


def short(root: pathlib.Path, found: Pairs) -> tuple[str, str]:
  return found.images.removeprefix(f'{root}/'), found.labels.removeprefix(f'{root}/')


KINDS = ('labelIds', 'color', 'instanceIds', 'labelTrainIds')
TOWNS = [f'{town}/{town}_{i:06d}_000019' for town in ('aachen', 'ulm') for i in range(3)]
# (images, labels, (pattern of an image, of a label, of others), names, what is found).
LAYOUTS = {
  'cityscapes': (
    'i', 'l', ('i/{}_leftImg8bit.png', *(f'l/{{}}_gtFine_{kind}.png' for kind in KINDS)), TOWNS,
    ('i/{id}_leftImg8bit.png', 'l/{id}_gtFine_labelIds.png'),
  ),
  'gta5 with train ids beside': (
    'i', 'l', ('i/{}.png', 'l/{}.png', 'l/{}_labelTrainIds.png'), [f'{i:03d}' for i in range(30)],
    ('i/{id}.png', 'l/{id}.png'),
  ),
  'suffix': ('', '.', ('{}.jpg', '{}_mask.png'), ['x', 'y', 'z'], ('{id}.jpg', '{id}_mask.png')),
  'suffix of one ending': (
    '', '.', ('x_{}.png', 'x_{}_gt.png'), '012', ('{id}.png', '{id}_gt.png')
  ),
  'two suffixes of one ending': (
    'a', 'a', ('a/{}_image.png', 'a/{}_mask.png'), '012', ('a/{id}_image.png', 'a/{id}_mask.png')
  ),
  'two prefixes': (
    'i', 'l', ('i/img_{}.jpg', 'l/label_{}.png'), '012', ('i/img_{id}.jpg', 'l/label_{id}.png')
  ),
  'capitals': ('i', 'l', ('i/{}.JPG', 'l/{}.png'), '012', ('i/{id}.jpg', 'l/{id}.png')),
  'a folder above': ('', '.', ('rgb/{}.jpg', 'gt/{}.png'), '012', ('rgb/{id}.jpg', 'gt/{id}.png')),
  'other depths': (
    'i', 'l', ('i/{}.jpg', 'l/deep/{}_L.png'), ['a/1', 'b/1'], ('i/{id}.jpg', 'l/deep/{id}_L.png')
  ),
  'acdc in one folder': (
    'a', 'a', ('a/{}_rgb_anon.png', 'a/{}_gt_labelTrainIds.png', 'a/{}_gt_invGray.png'), '012',
    ('a/{id}_rgb_anon.png', 'a/{id}_gt_labelTrainIds.png'),
  ),
  'one image': ('i', 'l', ('i/{}.jpg', 'l/{}.png'), ['only'], ('i/{id}.jpg', 'l/{id}.png')),
  'no labels': ('i', '', ('i/{}.webp',), ['a/1', 'b/2'], ('i/{id}.webp', '')),
}  # fmt: skip


@pytest.mark.parametrize('layout', LAYOUTS)
def test_patterns_are_found(tmp_path, layout):
  images, labels, files, names, expected = LAYOUTS[layout]
  everything = [file.format(name) for file in files for name in names]
  hidden = [f'{images}/._{pathlib.Path(everything[0]).name}', f'{images}/.cache/a.png']
  found = look(tmp_path, images, labels, *everything, *hidden)
  assert short(tmp_path, found) == expected
  assert len(found.ids) == len(names)
  for name in found.ids:  # endings may differ in case
    stem = pathlib.Path(found.images.replace('{id}', name)).with_suffix('')
    assert list(stem.parent.glob(f'{stem.name}.*'))
    assert not labels or pathlib.Path(found.labels.replace('{id}', name)).exists()


def test_what_is_not_taken_is_listed(tmp_path):
  names = [f'i/{name}_leftImg8bit.png' for name in TOWNS]
  names += [f'l/{name}_gtFine_{kind}.png' for name in TOWNS for kind in KINDS]
  found = look(tmp_path, 'i', 'l', *names)
  assert found.left == [
    f'*_gtFine_{kind}.png' for kind in ('color', 'instanceIds', 'labelTrainIds')
  ]
  assert look(tmp_path, 't', '', 't/a.jpg', 't/b.jpg', 't/c.png').left == ['1 .png files']


@pytest.mark.parametrize(
  'names, said',
  [
    (['i/readme.txt'], 'i: holds no image'),
    (['i/a.png', 'l/a.json', 'l/b.json'], r'l: holds no .png file \(2 .json files\)'),
    (['i/a.png', 'l/readme'], 'l: holds no .png file'),
    (['i/a.jpg', 'l/b.png'], 'l: no label goes with an image such as .*/i/a.jpg'),
    (['i/a.jpg', 'i/b.jpg', 'l/a.png'], r'i/b.jpg: has no label .*/l/b.png \(1 of 2 images'),
  ],
)
def test_what_cannot_be_guessed_is_said(tmp_path, names, said):
  with pytest.raises(BadInput, match=said) as error:
    look(tmp_path, 'i', 'l', *names)
  assert '\n' not in str(error.value)


def test_images_that_would_be_left_out_silently_are_said(tmp_path):
  names = ['a_image.png', 'a_mask.png', 'b_image.png', 'b_mask.png', 'other.png']
  with pytest.raises(BadInput, match=r'holds 1 .png files that are neither images such as'):
    look(tmp_path, 'x', 'x', *(f'x/{name}' for name in names))


def test_split_folders(tmp_path):
  for name in ('training', 'validation', 'other'):
    (tmp_path / name).mkdir()
  assert patterns.split_folders(str(tmp_path)) == {'train': 'training', 'val': 'validation'}
  assert patterns.split_folders(str(tmp_path / 'other')) == {}
