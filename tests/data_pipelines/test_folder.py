"""Folders of images: what is found, what is read, and which mistakes are named."""

import dataclasses
import itertools
import os
import pathlib
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder, fingerprint, open_folder
from data_pipelines.image_ids import find_files
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


def test_fingerprint_sees_ids_and_bytes(tmp_path):
  def now(folder: Folder) -> str:
    return fingerprint(folder.file_digests())

  folder = data_files.numbered(tmp_path, 3)
  first = now(folder)
  assert first == now(data_files.open_folder(tmp_path)) and len(first) == 64
  assert now(dataclasses.replace(folder, ids=folder.ids[::-1])) != first
  assert now(folder.with_labels('')) != first
  for part in ('images', 'labels'):
    before, path = now(folder), tmp_path / part / '001.png'
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert now(folder) != before


# Ids.


@pytest.mark.parametrize(
  'lines, named',
  [
    (['000', '001', '', '000'], "'000' stands twice (lines 1 and 4)"),
    (['001 ', '001'], "'001' stands twice (lines 1 and 2)"),
    (['../images/000'], "line 1: '../images/000' is no id"),
    (['000', '/etc/passwd'], "line 2: '/etc/passwd' is no id"),
    (['a/../../b'], "'a/../../b' is no id"),
    (['./000'], 'is no id'),
    (['a//b'], 'is no id'),
    (['a/'], 'is no id'),
    (['..'], 'is no id'),
    (['a\\\\..\\\\b'], 'is no id'),
    (['a\0b'], 'is no id'),
    (['a\x1b[2Jb'], 'is no id'),
  ],
)
@pytest.mark.parametrize('field', ['list', 'without'])
def test_a_list_with_a_wrong_id_is_refused(tmp_path, lines, named, field):
  data_files.numbered(tmp_path, 3)
  (tmp_path / 'it.txt').write_text('\n'.join(lines))
  with pytest.raises(BadInput) as error:
    data_files.open_folder(tmp_path, **{field: 'it.txt'})
  one_line(error, tmp_path / 'it.txt', named)


def test_a_short_and_a_long_name_of_one_image_are_refused(tmp_path):
  for name in ('zurich/b', 'aachen/c'):
    data_files.write(tmp_path, name, np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8))
  (tmp_path / 'it.txt').write_text('c\nb\naachen/c\n')
  with pytest.raises(BadInput) as error:
    data_files.open_folder(tmp_path, list='it.txt')
  one_line(error, tmp_path / 'it.txt', "'aachen/c' stands twice (lines 1 and 3)")


@pytest.mark.parametrize('ids', [['a', 'b', 'a'], ['/a'], ['../a']])
def test_every_folder_checks_its_ids(tmp_path, ids):
  with pytest.raises(BadInput, match=r'images/\{id\}.png: .* (stands twice|is no id)'):
    Folder('images/{id}.png', ids=ids)
  folder = data_files.numbered(tmp_path, 1)
  with pytest.raises(BadInput, match=r'stands twice|is no id'):
    dataclasses.replace(folder, ids=ids)


def test_a_pattern_without_its_slash_makes_no_absolute_ids(tmp_path):
  data_files.numbered(tmp_path, 2)
  with pytest.raises(BadInput, match=r"'/000' is no id: .*change the pattern"):
    data_files.open_folder(tmp_path, images='images{id}.png')


def test_names_that_a_file_system_takes_for_one_are_refused(tmp_path):
  data_files.numbered(tmp_path, 1, labels='')
  os.link(tmp_path / 'images/000.png', tmp_path / 'images/a.png')
  os.link(tmp_path / 'images/000.png', tmp_path / 'images/A.png')
  with pytest.raises(BadInput, match=r'a.png: is the same file as .*A.png'):
    data_files.open_folder(tmp_path, labels='')
  (tmp_path / 'images/A.png').unlink()
  data_files.save(tmp_path / 'images/A.png', Image.new('RGB', (2, 2)))
  assert data_files.open_folder(tmp_path, labels='').ids == ['000', 'A', 'a']


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


def test_linked_folders_are_followed_each_folder_once(tmp_path):
  for name in ('images/aachen/a', 'elsewhere/b', 'elsewhere/deep/c'):
    data_files.save(tmp_path / f'{name}.png', Image.new('RGB', (2, 2)))
  (tmp_path / 'images/bochum').symlink_to('../elsewhere')
  (tmp_path / 'images/again').symlink_to('aachen')  # its images are there by their own path
  (tmp_path / 'images/aachen/loop').symlink_to('..')
  (tmp_path / 'elsewhere/deep/up').symlink_to('../..')
  found = find_files(str(tmp_path / 'images/{id}.png'))
  assert found == (['aachen/a', 'bochum/b', 'bochum/deep/c'], {})


def test_files_that_differ_in_upper_case_are_said(tmp_path, caplog):
  for name in ('a_left.png', 'b_Left.png', 'c_left.jpg'):
    data_files.save(tmp_path / 'images' / name, Image.new('RGB', (2, 2)))
  folder = data_files.open_folder(tmp_path, images='images/{id}_left.png', labels='')
  assert folder.ids == ['a']
  assert '1 files are left out' in caplog.text
  assert 'b_Left.png: differs from the pattern in upper case alone' in caplog.text


def test_endings_may_be_in_capitals(tmp_path, caplog):
  folder = data_files.numbered(tmp_path, 4)
  pixels = [folder.read(index) for index in range(4)]
  for part, name, ending in (
    ('images', '001', 'PNG'), ('images', '002', 'Png'), ('labels', '002', 'PNG'),
    ('labels', '003', 'pNG'),
  ):  # fmt: skip
    (tmp_path / part / f'{name}.png').rename(tmp_path / part / f'{name}.{ending}')
  (tmp_path / 'it.txt').write_text('001\n002\n')
  for folder, expected in (
    (data_files.open_folder(tmp_path), pixels),
    (data_files.open_folder(tmp_path, list='it.txt'), pixels[1:3]),
    (pickle.loads(pickle.dumps(data_files.open_folder(tmp_path))), pixels),
  ):
    folder.check()
    for index, (image, label) in enumerate(expected):
      np.testing.assert_array_equal(folder.read(index)[0], image)
      np.testing.assert_array_equal(folder.read(index)[1], label)
    assert len(folder.file_digests()) == len(expected)
  shutil.copy(tmp_path / 'images/000.png', tmp_path / 'images/000.PNG')
  assert data_files.open_folder(tmp_path).image_path(0).endswith('000.png')
  assert 'images/000.PNG: has the id of' in caplog.text


COMPOSED, APART = 'stra\xdfe/caf\xe9', 'stra\xdfe/cafe\u0301'  # é as one character and as two


@pytest.mark.parametrize('image, label, listed', [*itertools.product((COMPOSED, APART), repeat=3)])
def test_names_in_another_unicode_form_are_the_same(tmp_path, image, label, listed):
  data_files.save(tmp_path / f'images/{image}.png', Image.new('RGB', (2, 2), (7, 7, 7)))
  data_files.save(tmp_path / f'labels/{label}.png', Image.new('L', (2, 2), 5))
  (tmp_path / 'it.txt').write_text(f'{listed}\n')
  for folder in (data_files.open_folder(tmp_path), data_files.open_folder(tmp_path, list='it.txt')):
    assert folder.ids == [COMPOSED]
    pixels, ids = folder.read(0)
    assert (pixels == 7).all() and ids is not None and (ids == 5).all()
  with pytest.raises(BadInput, match='stands twice'):
    (tmp_path / 'it.txt').write_text(f'{COMPOSED}\n{APART}\n')
    data_files.open_folder(tmp_path, list='it.txt')


def test_a_folder_in_another_unicode_form_is_found(tmp_path):
  for part in ('images', 'labels'):
    mode = 'RGB' if part == 'images' else 'L'
    data_files.save(tmp_path / f'{part}/cafe\u0301/a.png', Image.new(mode, (2, 2), 0))
  folder = data_files.open_folder(tmp_path)
  assert folder.ids == ['caf\xe9/a'] and folder.read(0)[1] is not None


def test_sizes_are_those_of_the_images(tmp_path):
  for name, size in (('a', (4, 6)), ('b', (9, 3))):
    data_files.write(tmp_path, name, np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8))
  folder = data_files.open_folder(tmp_path)
  assert folder.sizes() == [(4, 6), (9, 3)]
  (tmp_path / 'images/b.png').write_bytes(b'')
  with pytest.raises(BadInput, match=r'b.png: cannot be decoded'):
    folder.sizes()


def test_hidden_files_are_left_out_and_said(tmp_path, caplog):
  data_files.numbered(tmp_path, 2)
  for name in ('._000.png', '.ipynb_checkpoints/000-checkpoint.png', 'a/._b.png'):
    (tmp_path / 'images' / name).parent.mkdir(exist_ok=True)
    (tmp_path / 'images' / name).write_bytes(b'Mac OS X')
  assert data_files.open_folder(tmp_path).ids == ['000', '001']
  assert '3 files are left out' in caplog.text and 'hidden by a dot' in caplog.text


def test_labels_beside_images_are_no_images(tmp_path):
  pixels, mask = Image.new('RGB', (2, 2)), Image.new('L', (2, 2), 3)
  for name in ('a', 'b_mask', 'c'):
    data_files.save(tmp_path / f'{name}.png', pixels)
  for name in ('a', 'b_mask', 'c'):
    data_files.save(tmp_path / f'{name}_mask.png', mask)
  options = {'images': '{id}.png', 'labels': '{id}_mask.png'}
  folder = data_files.open_folder(tmp_path, **options)
  assert folder.ids == ['a', 'b_mask', 'c'] and (folder.read(1)[1] == 3).all()
  # b_mask.png is an image that has a label, whatever its name; there is no b.png.
  without = data_files.open_folder(tmp_path, **options | {'labels': ''}, apart='{id}_mask.png')
  assert without.ids == folder.ids


# Lists.


@pytest.mark.parametrize(
  'lines',
  [
    '\ufeff{0}\n{1}\n', '{0}\r\n{1}\r\n', '{0}\r{1}', '\n {0} \n\n{1}',
    '{0}.png\n{1}.png\n', '{0}.jpg\n{1}.PNG\n', '{0}.png 4\n{1}.png\t5',
    '{0}, train\n{1}, test\n', '{0}.png labels/{0}.png\n{1}.png labels/{1}.png\n',
    'images/{0}.png\nimages/{1}.png\n', 'images/{0}\nimages/{1}\n',
    'data/images/{0}.png data/labels/{0}.png\ndata/images/{1}.png data/labels/{1}.png\n',
  ],
)  # fmt: skip
def test_lists_are_read_as_people_write_them(tmp_path, lines):
  root = tmp_path / 'data'
  data_files.numbered(root, 4)
  (root / 'it.txt').write_bytes(lines.format('003', '001').encode())
  assert data_files.open_folder(root, list='it.txt').ids == ['003', '001']
  assert data_files.open_folder(root, without='it.txt').ids == ['000', '002']


def test_a_list_may_be_in_utf_16_and_hold_whole_paths(tmp_path):
  data_files.numbered(tmp_path, 3)
  (tmp_path / 'it.txt').write_bytes(f'{tmp_path}/images/002.png\r\n'.encode('utf-16'))
  assert data_files.open_folder(tmp_path, list='it.txt').ids == ['002']


def test_names_with_blanks_and_dots_are_their_own(tmp_path):
  for name in ('a b', 'a', 'c.png', 'c'):
    data_files.write(tmp_path, name, np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8))
  (tmp_path / 'it.txt').write_text('a b\nc.png\n')
  assert data_files.open_folder(tmp_path, list='it.txt').ids == ['a b', 'c.png']


@pytest.mark.parametrize('line', ['val/001.png', 'labels/001.png', '001_labels.png', '1.png'])
def test_a_line_that_names_no_image_is_no_other_image(tmp_path, line):
  data_files.numbered(tmp_path, 3)
  (tmp_path / 'it.txt').write_text(f'000\n{line}\n')
  with pytest.raises(BadInput, match='no such image'):
    data_files.open_folder(tmp_path, list='it.txt')


def test_a_line_that_fits_two_images_is_refused(tmp_path):
  for name in ('zurich/b', 'aachen/b', 'aachen/c'):
    data_files.write(tmp_path, name, np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8))
  (tmp_path / 'it.txt').write_text('c\nb\n')
  with pytest.raises(BadInput) as error:
    data_files.open_folder(tmp_path, list='it.txt')
  one_line(error, tmp_path / 'it.txt', 'line 2', 'aachen/b and zurich/b')
  (tmp_path / 'it.txt').write_text('c\nzurich/b.png\n')
  assert data_files.open_folder(tmp_path, list='it.txt').ids == ['aachen/c', 'zurich/b']


def test_names_that_cannot_be_written_down_are_left_out_and_said(tmp_path, caplog):
  data_files.numbered(tmp_path, 2)
  picture = (tmp_path / 'images/000.png').read_bytes()
  for name in (b'caf\xe9', b'two\nlines', b'back\\slash'):
    for part in ('images', 'labels'):
      path = os.fsencode(tmp_path / part) + b'/' + name + b'.png'
      pathlib.Path(os.fsdecode(path)).write_bytes(picture)
  assert data_files.open_folder(tmp_path).ids == ['000', '001']
  assert '3 files are left out' in caplog.text and 'backslash' in caplog.text
  caplog.text.encode()


@pytest.mark.parametrize('part', ['image', 'label'])
def test_what_is_no_file_is_refused_when_a_folder_is_opened(tmp_path, part):
  folder = data_files.numbered(tmp_path, 3)
  path = tmp_path / f'{part}s/001.png'
  for make, words in (
    (lambda: os.mkfifo(path), 'is a pipe'),
    (lambda: path.symlink_to('nowhere'), 'is a link to nowhere'),
    (path.mkdir, 'is a folder'),
  ):
    path.unlink()
    make()
    with pytest.raises(BadInput, match=f'{part}s/001.png: {words}'):
      folder.check()
    with pytest.raises(BadInput, match=f'{part}s/001.png: '):
      folder.file_digests()
    assert folder.file_digests(skip=True)['001'][part] == ''
    if path.is_dir():
      path.rmdir()
      path.touch()


def test_a_list_that_is_no_file_is_refused(tmp_path):
  data_files.numbered(tmp_path, 2)
  os.mkfifo(tmp_path / 'train.txt')
  with pytest.raises(BadInput, match=r'train.txt: is a pipe'):
    data_files.open_folder(tmp_path, list='train.txt')


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
  one_line(error, tmp_path / 'labels/a.png', '4x5', '4x6')


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
  ],
  ids=lambda picture: picture.mode,
)
def test_labels_in_other_png_formats_are_refused(tmp_path, picture):
  data_files.write(tmp_path, 'a', np.zeros((4, 6, 3), np.uint8), None)
  data_files.save(tmp_path / 'labels/a.png', picture)
  with pytest.raises(BadInput, match=r'a.png: is a PNG of colour type .* means grey or palette'):
    data_files.open_folder(tmp_path).read(0)


def test_labels_that_are_no_png_are_refused(tmp_path):
  data_files.save(tmp_path / 'images/a.png', Image.new('RGB', (6, 4)))
  data_files.save(tmp_path / 'labels/a.jpg', Image.new('L', (6, 4)))
  with pytest.raises(BadInput, match=r'a.jpg: is not a PNG'):
    data_files.open_folder(tmp_path, labels='labels/{id}.jpg').read(0)


def test_a_glance_sees_ids_and_changed_files_without_reading(tmp_path):
  for name in ('a', 'b'):
    (tmp_path / f'{name}.png').write_bytes(b'1')
  pattern = str(tmp_path / '{id}.png')
  before = Folder(pattern, '', ids=['a', 'b']).glance()
  assert (
    Folder(pattern, '', ids=['a', 'b']).glance()
    == before
    != Folder(pattern, '', ids=['b', 'a']).glance()
  )
  (tmp_path / 'b.png').unlink()
  assert Folder(pattern, '', ids=['a', 'b']).glance() != before
