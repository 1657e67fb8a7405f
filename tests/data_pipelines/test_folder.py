"""Folders of images: what is found, what is read, and which mistakes are named."""

import dataclasses
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder, open_folder
from tests.support import data_files


def one_line(error: pytest.ExceptionInfo, *parts: str) -> None:
  message = str(error.value)
  assert '\n' not in message
  for part in parts:
    assert str(part) in message


def test_reads_image_and_train_ids(tmp_path):
  image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
  label = np.array([[7, 8, 11, 33, 0, 255, 1, 23]] * 6, np.uint8)
  data_files.write(tmp_path, 'a', image, label)
  folder = data_files.open_folder(tmp_path, table='cityscapes')
  got_image, got_label = folder.read(0)
  np.testing.assert_array_equal(got_image, image)
  assert got_label.dtype == np.uint8
  assert got_label[0].tolist() == [0, 1, 2, 18, 255, 255, 255, 10]


def test_palette_labels_are_read_by_index(tmp_path):
  label = np.arange(24, dtype=np.uint8).reshape(4, 6) % 19
  data_files.write(tmp_path, 'a', np.zeros((4, 6, 3), np.uint8), None)
  picture = Image.fromarray(label).copy()
  picture.putpalette(list(range(255, -1, -1)) * 3)
  assert picture.mode == 'P'
  data_files.save(tmp_path / 'labels/a.png', picture)
  np.testing.assert_array_equal(data_files.open_folder(tmp_path).read(0)[1], label)


def test_images_without_labels(tmp_path):
  folder = data_files.numbered(tmp_path, 2, labels='')
  image, label = folder.read(1)
  assert label is None and (image == 1).all()
  assert folder.label_path(0) == ''


def test_grey_and_transparent_images_become_rgb(tmp_path):
  data_files.save(tmp_path / 'images/a.png', Image.new('L', (5, 4), 7))
  data_files.save(tmp_path / 'images/b.png', Image.new('RGBA', (5, 4), (1, 2, 3, 9)))
  folder = data_files.open_folder(tmp_path, labels='')
  assert (folder.read(0)[0] == 7).all() and folder.read(0)[0].shape == (4, 5, 3)
  assert (folder.read(1)[0] == [1, 2, 3]).all()


def test_the_list_gives_ids_and_their_order(tmp_path):
  data_files.numbered(tmp_path, 4)
  (tmp_path / 'train.txt').write_text('002\n\n  000 \n')
  assert data_files.open_folder(tmp_path, list='train.txt').ids == ['002', '000']


def test_without_a_list_all_files_in_order_with_sub_folders(tmp_path):
  for name in ('zurich/b', 'aachen/c', 'aachen/a'):
    data_files.write(tmp_path, name, np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8))
  (tmp_path / 'images/notes.txt').write_text('not an image')
  assert data_files.open_folder(tmp_path).ids == ['aachen/a', 'aachen/c', 'zurich/b']


def test_an_id_may_stand_twice_in_a_pattern(tmp_path):
  data_files.save(tmp_path / 'a/a_rgb.png', Image.new('RGB', (2, 2)))
  data_files.save(tmp_path / 'a/b_rgb.png', Image.new('RGB', (2, 2)))
  folder = open_folder(str(tmp_path), '{id}/{id}_rgb.png')
  assert folder.ids == ['a']


def test_with_labels_takes_pseudo_labels(tmp_path):
  folder = data_files.numbered(tmp_path / 'data', 2, table='cityscapes')
  for name in folder.ids:
    data_files.save(tmp_path / f'pseudo/{name}.png', Image.new('L', (32, 24), 18))
  changed = folder.with_labels(str(tmp_path / 'pseudo/{id}.png'))
  assert (changed.read(1)[1] == 18).all()
  assert changed.ids == folder.ids and changed.classes == 19
  assert folder.with_labels('').read(0)[1] is None
  (tmp_path / 'pseudo/001.png').unlink()
  with pytest.raises(BadInput, match=r'pseudo/001.png: no such label'):
    folder.with_labels(str(tmp_path / 'pseudo/{id}.png'))


def test_fingerprint_sees_ids_and_sizes(tmp_path):
  folder = data_files.numbered(tmp_path, 3)
  first = folder.fingerprint()
  assert first == data_files.open_folder(tmp_path).fingerprint()
  assert len(first) == 64
  assert dataclasses.replace(folder, ids=folder.ids[::-1]).fingerprint() != first
  assert folder.with_labels('').fingerprint() != first
  for part in ('images', 'labels'):
    before = folder.fingerprint()
    with open(tmp_path / part / '001.png', 'ab') as file:
      file.write(b'\0')
    assert folder.fingerprint() != before


def test_a_folder_is_listed_once_and_not_one_stat_per_file(tmp_path, monkeypatch):
  data_files.numbered(tmp_path, 5)
  listed = []
  scandir = os.scandir
  monkeypatch.setattr(os, 'scandir', lambda path: listed.append(path) or scandir(path))
  folder = data_files.open_folder(tmp_path)
  listed.clear()
  with monkeypatch.context() as patch:
    patch.setattr(os, 'stat', None)
    folder.check()
  assert sorted(map(os.path.basename, listed)) == ['images', 'labels']


def test_missing_things_are_named(tmp_path):
  with pytest.raises(BadInput) as error:
    open_folder(str(tmp_path / 'none'), 'images/{id}.png')
  one_line(error, tmp_path / 'none', 'data.root')
  data_files.numbered(tmp_path, 2)
  with pytest.raises(BadInput) as error:
    data_files.open_folder(tmp_path, list='test.txt')
  one_line(error, tmp_path / 'test.txt', 'list')
  (tmp_path / 'empty.txt').write_text('\n')
  with pytest.raises(BadInput) as error:
    data_files.open_folder(tmp_path, list='empty.txt')
  one_line(error, tmp_path / 'empty.txt', 'empty')
  (tmp_path / 'more.txt').write_text('000\n007\n')
  with pytest.raises(BadInput) as error:
    data_files.open_folder(tmp_path, list='more.txt')
  one_line(error, tmp_path / 'images/007.png', 'no such image')
  (tmp_path / 'labels/001.png').unlink()
  with pytest.raises(BadInput) as error:
    data_files.open_folder(tmp_path)
  one_line(error, tmp_path / 'labels/001.png', 'no such label')


def test_patterns_and_empty_folders_are_refused(tmp_path):
  (tmp_path / 'images').mkdir()
  with pytest.raises(BadInput, match='no image fits'):
    data_files.open_folder(tmp_path)
  with pytest.raises(BadInput, match=r'a path pattern needs \{id\}'):
    Folder('images/a.png', ids=['a'])
  with pytest.raises(BadInput, match='choose one of'):
    Folder('images/{id}.png', ids=['a'], table='unheard of')


@pytest.mark.parametrize('suffix', ['png', 'jpg'])
@pytest.mark.parametrize('keep', [0.0, 0.05, 0.5, 0.95])
def test_cut_images_are_named(tmp_path, suffix, keep):
  image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
  path = tmp_path / f'images/a.{suffix}'
  data_files.save(path, Image.fromarray(image))
  cut(path, keep)
  folder = open_folder(str(tmp_path), f'images/{{id}}.{suffix}')
  with pytest.raises(BadInput) as error:
    folder.read(0)
  one_line(error, path)


@pytest.mark.parametrize('keep', [0.0, 0.05, 0.5, 0.95])
def test_cut_labels_are_named(tmp_path, keep):
  rng = np.random.default_rng(0)
  label = rng.integers(0, 19, (40, 40), np.uint8)
  data_files.write(tmp_path, 'a', np.zeros((40, 40, 3), np.uint8), label)
  cut(tmp_path / 'labels/a.png', keep)
  with pytest.raises(BadInput) as error:
    data_files.open_folder(tmp_path).read(0)
  one_line(error, tmp_path / 'labels/a.png')


def cut(path: pathlib.Path, keep: float) -> None:
  data = path.read_bytes()
  path.write_bytes(data[: int(keep * len(data))])


def test_sizes_that_differ_are_named(tmp_path):
  data_files.write(tmp_path, 'a', np.zeros((4, 6, 3), np.uint8), np.zeros((4, 5), np.uint8))
  with pytest.raises(BadInput) as error:
    data_files.open_folder(tmp_path).read(0)
  one_line(error, tmp_path / 'labels/a.png', '5x4', '6x4')


def test_unknown_ids_are_named(tmp_path):
  label = np.zeros((4, 6), np.uint8)
  label[3, 5] = 19
  data_files.write(tmp_path, 'a', np.zeros((4, 6, 3), np.uint8), label)
  with pytest.raises(BadInput) as error:
    data_files.open_folder(tmp_path).read(0)
  one_line(error, tmp_path / 'labels/a.png', '19', "'identity' with 19 classes")


@pytest.mark.parametrize(
  'picture',
  [
    Image.new('RGB', (6, 4)),
    Image.new('RGBA', (6, 4)),
    Image.new('I;16', (6, 4)),
    Image.new('1', (6, 4)),
  ],
  ids=lambda picture: picture.mode,
)
def test_labels_in_other_png_formats_are_refused(tmp_path, picture):
  data_files.write(tmp_path, 'a', np.zeros((4, 6, 3), np.uint8), None)
  data_files.save(tmp_path / 'labels/a.png', picture)
  with pytest.raises(BadInput, match=r'a.png: is a PNG of colour type .* means 8-bit greyscale'):
    data_files.open_folder(tmp_path).read(0)


def test_labels_that_are_no_png_are_refused(tmp_path):
  data_files.save(tmp_path / 'images/a.png', Image.new('RGB', (6, 4)))
  data_files.save(tmp_path / 'labels/a.jpg', Image.new('L', (6, 4)))
  with pytest.raises(BadInput, match=r'a.jpg: is not a PNG'):
    data_files.open_folder(tmp_path, labels='labels/{id}.jpg').read(0)
