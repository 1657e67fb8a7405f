"""Packed data sets: the same batches, resumable, and damage is named."""

import contextlib
import functools
import hashlib
import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from data_pipelines import doctor, label_tables, pipeline, prepare, records, sets
from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder, from_pack
from data_pipelines.pack import INDEX, SPLIT, VERSION, Pack
from diga_jax.__main__ import main
from diga_jax.configs import datasets
from tests.data_pipelines import test_label_files
from tests.support import damage, data_files

SETTINGS = {'images': 'images/{id}.png', 'labels': 'labels/{id}.png'}
CROP = (16, 24)


def manifest_of(folder: Folder) -> dict:
  names = label_tables.NAMES['cityscapes19']
  return doctor.examine(folder, names, list(doctor.inspect_all(folder, 1))).manifest


def opened(root: pathlib.Path, **changes) -> Folder:
  settings = datasets.dataset(**SETTINGS | changes).to_dict()
  options = {'name': 'it', 'root': str(root), 'cache': str(root), 'classes': 19}
  return sets.open_set(settings, labelled=bool(settings['labels']), **options)


def packed(root: pathlib.Path, **changes) -> Folder:
  return opened(root, shards='packed/it', **changes)


def make_pack(root: pathlib.Path, **options) -> pathlib.Path:
  folder = opened(root)
  options = {'images_per_shard': 3} | options
  return prepare.prepare(folder, root / 'packed/it', manifest_of(folder), **options)


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> pathlib.Path:
  """A folder of 7 images and its pack of 3 shards."""
  root = tmp_path_factory.mktemp('set')
  data_files.coded(root, 7)
  make_pack(root)
  return root


def batches(folder: Folder, count: int = 3, **options) -> list[dict[str, np.ndarray]]:
  view = pipeline.View(
    folder,
    low_rows=2,
    full_rows=2,
    low_size=(24, 32),
    crop=CROP,
    cut='sized',
    redraw=bool(folder.labels),
  )
  return list(itertools.islice(pipeline.batches({'v': view}, seed=1, **options), count))


def assert_same(first, second) -> None:
  for got, expected in zip(first, second, strict=True):
    assert got.keys() == expected.keys()
    for name in expected:
      np.testing.assert_array_equal(got[name], expected[name], err_msg=name)


@pytest.fixture(scope='module')
def both(tmp_path_factory) -> pathlib.Path:
  """As `root`, with the images in both sizes."""
  root = tmp_path_factory.mktemp('both')
  data_files.coded(root, 7)
  make_pack(root, low_size=(24, 32))
  return root


def test_the_batches_are_the_same_from_images_in_both_sizes(both, monkeypatch):
  wanted = batches(opened(both), 4)
  folder, read = packed(both), []
  monkeypatch.setattr(
    Folder, 'read_low', lambda self, i, size, real=Folder.read_low: (
      read.append(i) or real(self, i, size)
    )
  )  # fmt: skip
  assert_same(batches(folder, 4), wanted)
  assert len(read) >= 8  # two rows of every step
  assert folder.image_pack.index['low_size'] == [24, 32]
  assert folder.read_low(3, (24, 32))[0].shape == (24, 32, 3)
  assert folder.read_low(3, (25, 32)) is None
  assert_same(batches(packed(both, labels='')), batches(opened(both, labels='')))


def test_pseudo_labels_go_with_images_in_both_sizes(both, tmp_path):
  for index, name in enumerate(opened(both).ids):
    rng = np.random.default_rng(index)
    label = Image.fromarray(rng.integers(0, 19, (48, 64), np.uint8))
    data_files.save(tmp_path / f'{name}.png', label)
  pseudo = str(tmp_path / '{id}.png')
  wanted = batches(opened(both, labels='').with_labels(pseudo))
  assert_same(batches(packed(both, labels='').with_labels(pseudo)), wanted)
  labelled = opened(both, labels='').with_labels(pseudo)
  prepare.prepare(labelled, tmp_path / 'pack', None, images='none', images_per_shard=2)
  pack = Pack(tmp_path / 'pack')
  assert_same(batches(from_pack(labelled, pack)), wanted)
  assert_same(batches(from_pack(packed(both, labels='').with_labels(pseudo), pack)), wanted)


def test_pseudo_labels_of_another_size_are_refused(both, tmp_path):
  for name in opened(both).ids:
    data_files.save(tmp_path / f'{name}.png', Image.new('L', (63, 48), 7))
  for folder in (opened, packed):
    with pytest.raises(BadInput, match='48x63 pixels, its image 48x64'):
      batches(folder(both, labels='').with_labels(str(tmp_path / '{id}.png')))
  low = packed(both, labels='').with_labels(str(tmp_path / '{id}.png'))
  with pytest.raises(BadInput, match='48x63 pixels, its image 48x64'):
    low.read_low(0, (24, 32))


def test_progress_counts_both_sizes_and_files_once(tmp_path):
  data_files.coded(tmp_path, 4)
  for name, options, total in (('raw', {}, 8), ('png', {'images': 'png'}, 4)):
    told = []
    prepare.prepare(
      opened(tmp_path), tmp_path / name, manifest_of(opened(tmp_path)), low_size=(24, 32),
      images_per_shard=3, progress=lambda *counts, told=told: told.append(counts), **options
    )  # fmt: skip
    assert told[0] == (3, total) and told[-1] == (total, total)


def test_the_batches_are_those_of_the_folder(root):
  wanted = batches(opened(root), 4)
  assert_same(batches(packed(root), 4), wanted)
  assert_same(batches(packed(root), 2, start=2, parallel_calls=4), wanted[2:])
  hosts = [batches(packed(root), 4, rows=slice(i, i + 1)) for i in range(4)]
  joined = [
    {name: np.concatenate([host[step][name] for host in hosts]) for name in wanted[step]}
    for step in range(4)
  ]
  assert_same(joined, wanted)


def test_the_folder_may_be_gone(root, tmp_path):
  wanted = batches(opened(root), 2)
  shutil.copytree(root / 'packed', tmp_path / 'packed')
  assert_same(batches(packed(tmp_path), 2), wanted)


def test_a_packed_set_has_the_fingerprint_of_its_folder(root):
  for labels in ('labels/{id}.png', ''):
    files, shards = opened(root, labels=labels), packed(root, labels=labels)
    assert shards.file_digests() == files.file_digests()


def test_shards_of_other_images_than_their_names_are_refused(root, tmp_path):
  shutil.copytree(root / 'packed', tmp_path / 'packed')
  path = tmp_path / 'packed/it' / VERSION / INDEX
  index = records.read(path, '')
  swapped = {'001': '000', '000': '001'}
  renamed = {swapped.get(name, name): facts for name, facts in index['files'].items()}
  records.write(path, index | {'files': renamed})
  with pytest.raises(BadInput, match=r'000 cannot be read .the record there is 001'):
    Pack(tmp_path / 'packed/it').pair('000')
  del index['files']['003']  # as of a list that named an image twice
  records.write(path, index)
  with pytest.raises(BadInput, match='holds 7 images with 6 names: prepare the set again'):
    Pack(tmp_path / 'packed/it')


def test_shards_that_do_not_know_their_files_are_refused(root, tmp_path):
  shutil.copytree(root / 'packed', tmp_path / 'packed')
  path = tmp_path / 'packed/it' / VERSION / INDEX
  index = records.read(path, '')
  index['files']['002']['label'] = index['files']['002']['label'][:1]
  records.write(path, index)
  with pytest.raises(BadInput, match='does not say which label of 002 was packed'):
    packed(tmp_path).file_digests()


def test_lists_select_from_a_pack(root):
  (root / 'some.txt').write_text('005\n001\n')
  assert packed(root, list='some.txt').ids == ['005', '001']
  assert packed(root, without='some.txt').ids == opened(root, without='some.txt').ids
  assert_same(batches(packed(root, list='some.txt')), batches(opened(root, list='some.txt')))


def test_pseudo_labels_go_with_packed_images(root, tmp_path):
  for name in opened(root).ids:
    data_files.save(tmp_path / f'{name}.png', Image.new('L', (64, 48), 7))
  folder = packed(root, labels='').with_labels(str(tmp_path / '{id}.png'))
  image, label = folder.read(2)
  np.testing.assert_array_equal(image, opened(root).read(2)[0])
  assert (label == 7).all()


def test_tensorflow_datasets_opens_it_alone(root):
  source = tfds.builder_from_directory(str(root / 'packed/it' / VERSION)).as_data_source(
    split=SPLIT
  )
  assert len(source) == 7
  image, label = opened(root).read(4)
  assert source[4]['id'].decode() == '004'
  np.testing.assert_array_equal(source[4]['image'], image)
  np.testing.assert_array_equal(source[4]['label'], label)


@pytest.mark.parametrize('images', ['raw', 'png', 'jpeg'])
def test_all_kinds_of_images_give_the_same_pixels(tmp_path, images):
  data_files.coded(tmp_path, 2)
  suffix = 'jpg' if images == 'jpeg' else 'png'
  for path in sorted((tmp_path / 'images').iterdir()):
    if images == 'jpeg':
      Image.open(path).save(path.with_suffix('.jpg'))
      path.unlink()
  pattern = {'images': f'images/{{id}}.{suffix}', 'labels': 'labels/{id}.png'}
  settings = datasets.dataset(**pattern).to_dict()
  folder = sets.open_set(settings, name='it', root=str(tmp_path), cache='', classes=19)
  choice = '' if images == 'jpeg' else images  # JPEG files are kept without being asked to
  prepare.prepare(folder, tmp_path / 'it', manifest_of(folder), images=choice)
  pack = Pack(tmp_path / 'it')
  assert pack.index['images'] == images
  for index, name in enumerate(folder.ids):
    np.testing.assert_array_equal(pack.pair(name)[0], folder.read(index)[0])


@pytest.mark.parametrize('name', ['synthia', 'robotcar', 'camvid32', 'gta5'])
def test_every_label_format_is_packed(tmp_path, name):
  settings, occurring, encode = test_label_files.SETS[name]
  test_label_files.write(tmp_path, settings, encode(test_label_files.ids_of(occurring)))
  classes = test_label_files.CLASSES.get(name, 19)
  folder = test_label_files.opened(tmp_path, settings, classes)
  names = (
    label_tables.NAMES['camvid11'][:classes] if classes < 19 else label_tables.NAMES['cityscapes19']
  )
  manifest = doctor.examine(folder, names, list(doctor.inspect_all(folder, 1))).manifest
  prepare.prepare(folder, tmp_path / 'it', manifest)
  again = test_label_files.opened(tmp_path, settings.copy_and_resolve_references(), classes)
  found = from_pack(again, Pack(tmp_path / 'it')).read(0)
  for got, expected in zip(found, folder.read(0), strict=True):
    np.testing.assert_array_equal(got, expected)


# Making one.


def test_files_as_people_have_them_are_packed(tmp_path):
  """Few bits, 16 bits, alpha, endings in capitals, a letter of two characters: one reader."""
  rng = np.random.default_rng(0)
  labels = {
    'a': (1, lambda ids: data_files.png(ids, 0, 1)),
    'b': (15, lambda ids: data_files.png(ids, 0, 4)),
    'c': (18, lambda ids: data_files.png(ids, 0, 16)),
    'caf\xe9': (18, lambda ids: data_files.png(np.dstack([ids, np.full_like(ids, 255)]), 4)),
  }
  expected = {}
  for name, (largest, encode) in labels.items():
    expected[name] = rng.integers(0, largest + 1, (24, 32), np.uint8)
    image = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
    data_files.save(tmp_path / f'images/{name}.PNG', image)
    on_disk = name.replace('\xe9', 'e\u0301')
    (tmp_path / 'labels').mkdir(exist_ok=True)
    (tmp_path / f'labels/{on_disk}.png').write_bytes(encode(expected[name]))
  make_pack(tmp_path)
  files, pack = opened(tmp_path), packed(tmp_path)
  assert files.ids == pack.ids == list(labels)
  for folder in (files, pack):
    for index, ids in enumerate(expected.values()):
      np.testing.assert_array_equal(folder.read(index)[1], ids)
  assert_same(batches(files), batches(pack))
  assert files.sizes() == pack.sizes() == [(24, 32)] * 4


def times(root: pathlib.Path) -> dict[str, int]:
  files = (root / 'packed/it').rglob('*.array_record-*-of-?????*')
  return {path.name: path.stat().st_mtime_ns for path in files}


def test_a_killed_attempt_goes_on(tmp_path, monkeypatch):
  data_files.coded(tmp_path, 7)
  manifest = manifest_of(opened(tmp_path))
  real = prepare._example
  count = itertools.count()

  def killed(*arguments):
    if next(count) == 5:  # in the second of three shards
      raise KeyboardInterrupt
    return real(*arguments)

  monkeypatch.setattr(prepare, '_example', killed)
  with pytest.raises(KeyboardInterrupt):
    prepare.prepare(opened(tmp_path), tmp_path / 'packed/it', manifest, images_per_shard=3)
  with pytest.raises(BadInput, match='finish `prepare` first'):
    packed(tmp_path)
  before = times(tmp_path)
  assert len([name for name in before if name.endswith('-of-00003')]) == 1
  monkeypatch.undo()
  prepare.prepare(opened(tmp_path), tmp_path / 'packed/it', manifest, images_per_shard=3)
  after = times(tmp_path)
  assert len(after) == 3
  (kept,) = (name for name in before if name.endswith('-of-00003'))
  assert after[kept] == before[kept]
  assert_same(batches(packed(tmp_path)), batches(opened(tmp_path)))


@pytest.mark.parametrize(
  ('owner', 'name', 'calls'),
  [
    (prepare, '_write_metadata', 0),
    (prepare.atomic, 'write_text', 0),  # the plan
    (prepare.atomic, 'write_text', 2),  # the record of the second of three shards
    (prepare.atomic, 'write_text', 4),  # the index
    (os, 'replace', 2),  # the first shard, which has its record
    (os, 'replace', 6),
    (pathlib.Path, 'rename', 0),
    (pathlib.Path, 'unlink', 9),  # a record of the pack that is complete by then
  ],
)
def test_an_attempt_that_is_killed_at_any_moment_goes_on(tmp_path, monkeypatch, owner, name, calls):
  data_files.coded(tmp_path, 7)
  manifest, real, count = manifest_of(opened(tmp_path)), getattr(owner, name), itertools.count()

  def killed(*arguments, **options):
    if next(count) == calls:
      raise KeyboardInterrupt
    return real(*arguments, **options)

  make = functools.partial(
    prepare.prepare, opened(tmp_path), tmp_path / 'packed/it', manifest, images_per_shard=3
  )
  with monkeypatch.context() as patch:
    patch.setattr(owner, name, killed)
    with contextlib.suppress(KeyboardInterrupt):
      make()
  make()
  assert_same(batches(packed(tmp_path)), batches(opened(tmp_path)))


def pack_in(root: pathlib.Path) -> None:
  folder = opened(root)
  manifest = manifest_of(folder)
  (root / 'begun').touch()
  prepare.prepare(folder, root / 'packed/it', manifest, images_per_shard=2, jobs=2)


@pytest.mark.exhaustive
def test_a_command_that_is_killed_can_be_started_again_at_once(tmp_path):
  data_files.coded(tmp_path, 24, (480, 640))
  source = (
    'import pathlib, sys\n'
    'from tests.data_pipelines.test_prepare import pack_in\n'
    'pack_in(pathlib.Path(sys.argv[1]))\n'
  )
  command = [sys.executable, '-c', source, str(tmp_path)]
  for attempt in range(6):
    (tmp_path / 'begun').unlink(missing_ok=True)
    process = subprocess.Popen(command)
    while not (tmp_path / 'begun').exists():
      time.sleep(0.01)
    time.sleep(0.3 + attempt)
    process.kill()
    assert process.wait() in (-signal.SIGKILL, 0)
  subprocess.run(command, check=True)
  for shard in packed(tmp_path).image_pack.index['shards']:
    path = tmp_path / 'packed/it' / VERSION / shard['file']
    assert hashlib.sha256(path.read_bytes()).hexdigest() == shard['sha256']
  assert_same(batches(packed(tmp_path)), batches(opened(tmp_path)))


def test_a_complete_pack_is_not_made_again(root):
  before = times(root)
  make_pack(root)
  assert times(root) == before


def test_other_settings_or_files_are_refused(root, tmp_path):
  with pytest.raises(BadInput, match=r'other files or settings \(images_per_shard\)'):
    make_pack(root, images_per_shard=2)
  shutil.copytree(root, tmp_path / 'copy')
  Image.new('RGB', (64, 48)).save(tmp_path / 'copy/images/003.png')
  with pytest.raises(BadInput, match=r'other files or settings \(fingerprint\)'):
    make_pack(tmp_path / 'copy')


def test_files_that_doctor_did_not_see_are_refused(tmp_path):
  data_files.coded(tmp_path, 3)
  manifest = manifest_of(opened(tmp_path))
  path = tmp_path / 'labels/001.png'
  pixels = np.array(Image.open(path))
  Image.fromarray(pixels[::-1]).save(path)
  with pytest.raises(BadInput, match=r'labels/001.png: is not the file that doctor saw'):
    prepare.prepare(opened(tmp_path), tmp_path / 'packed/it', manifest)


def test_cut_and_missing_shards_are_named(root, tmp_path):
  shutil.copytree(root / 'packed', tmp_path / 'packed')
  path = sorted((tmp_path / 'packed/it' / VERSION).glob('*array_record*'))[1]
  data = path.read_bytes()
  path.write_bytes(data[:-100])
  with pytest.raises(BadInput, match=rf'{path.name}: is damaged .* prepare the set again'):
    packed(tmp_path)
  path.unlink()
  with pytest.raises(BadInput, match=rf'{path.name}: cannot be read \(No such file'):
    packed(tmp_path)


def test_a_flipped_bit_in_any_file_of_a_pack_is_refused_by_name(root, tmp_path):
  place = shutil.copytree(root / 'packed', tmp_path / 'packed') / 'it' / VERSION
  draw = random.Random(0)
  assert packed(tmp_path)
  assert {path.name for path in place.glob('*.json')} == {
    INDEX, 'features.json', 'dataset_info.json',
  }  # fmt: skip
  for path in sorted(place.iterdir()):
    whole = path.read_bytes()
    for _ in range(5):
      damage.flip(path, draw)
      with pytest.raises(BadInput, match=rf'{path.name}: .*(damaged|cannot be read|no record)'):
        packed(tmp_path)
      path.write_bytes(whole)


def test_a_shard_damaged_behind_our_back_is_named_when_it_is_read(root, tmp_path):
  shutil.copytree(root / 'packed', tmp_path / 'packed')
  path = sorted((tmp_path / 'packed/it' / VERSION).glob('*array_record*'))[0]
  data, before = bytearray(path.read_bytes()), path.stat()
  image, _ = opened(root).read(1)
  data[data.find(image.tobytes()) + 700] ^= 1  # one bit of a pixel
  path.write_bytes(data)
  os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a disk does it
  folder = packed(tmp_path)
  with pytest.raises(BadInput, match=rf'{path.name}: 001 cannot be read .* prepare the set again'):
    folder.read(1)
  with pytest.raises(BadInput, match=r'001 cannot be read'):
    batches(folder)


def test_a_shard_damaged_before_the_others_were_written_is_written_again(tmp_path, monkeypatch):
  data_files.coded(tmp_path, 5)
  write, left = prepare._write_shard, [1]

  def stop_at_the_second(*arguments):
    if not left:
      raise KeyboardInterrupt
    left.pop()
    return write(*arguments)

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(prepare, '_write_shard', stop_at_the_second)
    make_pack(tmp_path)
  (path,) = (tmp_path / 'packed/it').glob('*.partial/*array_record-*-of-0000[0-9]')
  damage.flip(path, random.Random(0))
  make_pack(tmp_path)
  assert_same(batches(packed(tmp_path)), batches(opened(tmp_path)))


def test_what_a_pack_lacks_is_named(root, tmp_path):
  (root / 'more.txt').write_text('003\n900\n')
  with pytest.raises(BadInput, match='lacks the image 900'):
    packed(root, list='more.txt')
  with pytest.raises(BadInput, match="not those of label_format 'rgba'"):
    packed(root, label_format='rgba')
  with pytest.raises(BadInput, match='name the folder of one data set'):
    opened(root, shards='packed')
  with pytest.raises(BadInput, match=r'label id \d+ occurs and is unknown to the table of 2 pairs'):
    packed(root, table=((0, 0), (1, 1)))


# The command.


def command(root: pathlib.Path, name: str, *more: str) -> list[str]:
  folder = [f'--config.data.sets.source.{field}={value}' for field, value in SETTINGS.items()]
  return [
    name,
    '--config=tests/configs/tiny.py',
    f'--config.data.root={root}',
    f'--config.data.cache={root / "cache"}',
    '--config.data.sets.source.kind=folder',
    '--sets',
    'source',
    '--jobs=1',
    *folder,
    *more,
  ]


def test_doctor_then_prepare(tmp_path, capsys):
  data_files.coded(tmp_path, 3)
  output = f'--output={tmp_path / "packed"}'
  assert main(command(tmp_path, 'prepare', output)) == 2
  assert 'doctor --sets source first' in capsys.readouterr().err
  assert main(command(tmp_path, 'prepare')) == 2
  assert '--output' in capsys.readouterr().err
  main(command(tmp_path, 'doctor'))
  capsys.readouterr()
  assert main(command(tmp_path, 'prepare', output)) == 0
  place = tmp_path / 'packed/source'
  assert f'--config.data.sets.source.shards={place}' in capsys.readouterr().out
  assert json.loads((place / VERSION / INDEX).read_text())['images'] == 'raw'
  with pytest.raises(SystemExit):
    main(command(tmp_path, 'prepare', output, '--images=bmp'))
