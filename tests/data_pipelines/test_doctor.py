"""Every planted fault of a data set is found, named, and nothing else is."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from data_pipelines import digests, doctor, label_tables, published_sets, records
from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder, open_folder
from data_pipelines.image_ids import LISTS, read_list
from diga_jax.__main__ import main
from tests.support import data_files

NAMES = label_tables.NAMES['cityscapes19']
SIZE = (24, 32)


def sound(root: pathlib.Path, count: int = 6) -> None:
  """A data set without faults: all 19 classes in each label."""
  rng = np.random.default_rng(0)
  for index in range(count):
    label = rng.permutation(np.resize([*range(19), 255], SIZE[0] * SIZE[1])).astype(np.uint8)
    image = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    data_files.write(root, f'{index:03d}', image, label.reshape(SIZE))


@pytest.fixture
def root(tmp_path) -> pathlib.Path:
  sound(tmp_path)
  return tmp_path


def opened(root: pathlib.Path, **options) -> Folder:
  options = {'labels': 'labels/{id}.png', 'classes': 19, 'check': False} | options
  return open_folder(str(root), 'images/{id}.png', **options)


def examined(root: pathlib.Path, jobs: int = 1, **options) -> doctor.Report:
  folder = opened(root, **options)
  return doctor.examine(folder, NAMES, list(doctor.inspect_all(folder, jobs)))


def kinds(report: doctor.Report) -> dict[str, list[str]]:
  return {finding.kind: finding.where for finding in report.findings}


def test_a_sound_set_has_no_findings(root):
  report = examined(root)
  assert report.findings == []
  assert dict(report.facts)['images'] == '6' and dict(report.facts)['sizes'] == '24x32 (6)'
  np.testing.assert_allclose(report.shares, 1 / 19, rtol=0.1)


@pytest.mark.slow
def test_processes_see_what_one_sees(root):
  (root / 'labels/002.png').write_bytes(b'')
  alone, together = examined(root), examined(root, jobs=2)
  assert alone.findings == together.findings
  made = {'made': None}
  assert alone.manifest | made == together.manifest | made


def truncate(path: pathlib.Path, share: float) -> None:
  data = path.read_bytes()
  path.write_bytes(data[: int(len(data) * share)])


def repaint(path: pathlib.Path, pixels: np.ndarray) -> None:
  Image.fromarray(pixels).save(path)


def label_with(path: pathlib.Path, value: int) -> None:
  pixels = np.array(Image.open(path))
  pixels[0, 0] = value
  repaint(path, pixels)


# What is planted: (what is done to the folder, the kind that is found, the file that is named).
FAULTS = {
  'a missing label': (
    lambda r: (r / 'labels/011.png').unlink(), 'missing label', 'labels/011.png'
  ),
  'an unpaired label': (
    lambda r: shutil.copy(r / 'labels/010.png', r / 'labels/900.png'),
    'labels without an image',
    'labels/900.png',
  ),
  'an empty image': (
    lambda r: truncate(r / 'images/003.png', 0), 'unreadable image', 'images/003.png'
  ),
  'a cut image': (
    lambda r: truncate(r / 'images/003.png', 0.6), 'unreadable image', 'images/003.png'
  ),
  'a cut label': (
    lambda r: truncate(r / 'labels/001.png', 0.6), 'unreadable label', 'labels/001.png'
  ),
  'a label in colours': (
    lambda r: repaint(r / 'labels/001.png', np.zeros((*SIZE, 3), np.uint8)),
    'unreadable label',
    'labels/001.png',
  ),
  'a label of another size': (
    lambda r: repaint(r / 'labels/004.png', np.zeros((23, 32), np.uint8)),
    'label of another size',
    'labels/004.png',
  ),
  'an image of another size': (
    lambda r: (
      repaint(r / 'images/005.png', np.random.default_rng(0).integers(0, 9, (9, 9, 3), np.uint8)),
      repaint(r / 'labels/005.png', np.zeros((9, 9), np.uint8)),
    ),
    'images of another size',
    'images/005.png: 9x9',
  ),
  'an unknown id': (lambda r: label_with(r / 'labels/000.png', 77), 'unknown id', 'id 77'),
  'a label of nothing': (
    lambda r: repaint(r / 'labels/002.png', np.full(SIZE, 255, np.uint8)),
    'nothing but ignored pixels',
    'labels/002.png',
  ),
  'a black image': (
    lambda r: repaint(r / 'images/002.png', np.zeros((*SIZE, 3), np.uint8)),
    'one colour',
    'images/002.png',
  ),
}  # fmt: skip


def many(root: pathlib.Path) -> None:
  """So many images that one of another size is an exception."""
  sound(root, 24)


@pytest.mark.parametrize('fault', FAULTS)
def test_a_planted_fault_is_found_and_nothing_else(tmp_path, fault):
  many(tmp_path)
  plant, kind, named = FAULTS[fault]
  plant(tmp_path)
  report = examined(tmp_path)
  assert list(kinds(report)) == [kind]
  (where,) = kinds(report)[kind]
  assert named in where
  assert report.findings[0].fix


def test_all_faults_at_once(tmp_path):
  many(tmp_path)
  for plant, _, _ in FAULTS.values():
    plant(tmp_path)
  assert {kind for _, kind, _ in FAULTS.values()} <= set(kinds(examined(tmp_path)))


def test_a_missing_image_of_a_list(root):
  (root / 'train.txt').write_text('000\n007\n')
  assert kinds(examined(root, list='train.txt')) == {
    'missing image': [str(root / 'images/007.png')],
    'missing label': [str(root / 'labels/007.png')],
  }


@pytest.mark.parametrize(
  'name', ['000_labelTrainIds', '001_labelIds', '002_color', '003-mask', '004.gt', '005_trainIds19']
)
def test_labels_converted_by_others_are_said_and_no_orphans(root, name):
  shutil.copy(root / 'labels/000.png', root / f'labels/{name}.png')
  report = examined(root)
  assert report.findings == []
  assert 'such as' in dict(report.facts)['converted labels']
  assert f'{name}.png' in dict(report.facts)['converted labels']


def test_a_converted_label_whose_label_is_gone_is_an_orphan(root):
  shutil.copy(root / 'labels/000.png', root / 'labels/006_labelTrainIds.png')
  assert list(kinds(examined(root))) == ['labels without an image']


def test_hidden_files_are_said_and_no_finding(root):
  for part in ('images', 'labels'):
    (root / part / '._000.png').write_bytes(b'Mac OS X')
  report = examined(root)
  assert report.findings == []
  assert dict(report.facts)['hidden'].startswith('2 are left out, such as ')


def test_endings_in_capitals_are_inspected_and_remembered(root, monkeypatch):
  for part in ('images', 'labels'):
    (root / part / '003.png').rename(root / part / '003.PNG')
  folder = opened(root)
  files = list(doctor.inspect_all(folder, 1))
  assert doctor.examine(folder, NAMES, files).findings == []
  monkeypatch.setattr(digests, 'SETTLED', 0)
  doctor.remember(str(root / 'cache'), folder, doctor.stamps(folder), 2**63, files)
  monkeypatch.setattr(digests, 'of_file', None)
  assert folder.file_digests(str(root / 'cache'))['003']['label']


@pytest.mark.parametrize(
  'sizes, crop, small',
  [
    ({None}, (24, 32), []),
    ({None}, (25, 32), range(6)),
    ({None}, (24, 33), range(6)),
    ({(48, 64)}, (40, 60), []),
    ({(48, 64), None}, (40, 60), range(6)),
    ({(20, 64)}, (24, 32), range(6)),
    (set(), (100, 100), []),
  ],
)
def test_images_smaller_than_the_crop(root, sizes, crop, small):
  folder = opened(root)
  found = doctor.small_images(folder, list(doctor.inspect_all(folder, 1)), sizes, crop)
  assert [line.split(': ')[0] for line in found.where] == [folder.image_path(i) for i in small]


def test_classes_that_the_table_yields_but_no_label_holds(root):
  for path in (root / 'labels').iterdir():
    pixels = np.array(Image.open(path))
    pixels[pixels == 16] = 0
    repaint(path, pixels)
  assert kinds(examined(root)) == {'classes that never occur': ['train']}


def test_other_shares_than_known_are_found(tmp_path, monkeypatch):
  """Cityscapes' trainId files read as labelIds: every file is readable, and all of it is wrong."""
  monkeypatch.setattr(doctor, 'SHARE_IMAGES', 6)
  monkeypatch.setitem(published_sets.SIZES, 'cityscapes', {SIZE})
  right, wrong = tmp_path / 'right', tmp_path / 'wrong'
  ids = {train: raw for raw, train in label_tables.TABLES['cityscapes'].items() if train != 255}
  rng = np.random.default_rng(0)
  shares = published_sets.SHARES['cityscapes']
  for index in range(6):
    label = rng.choice(19, (400, 400), p=shares).astype(np.uint8)
    image = rng.integers(0, 256, (400, 400, 3), np.uint8)
    data_files.write(wrong, f'{index}', image, label)
    raw = np.array([ids[c] for c in range(19)], np.uint8)[label]
    data_files.write(right, f'{index}', image, raw)
  monkeypatch.setitem(published_sets.SIZES, 'cityscapes', {(400, 400)})
  assert kinds(examined(right, table='cityscapes')) == {}
  found = kinds(examined(wrong, table='cityscapes'))
  assert 'classes that never occur' in found
  odd = 'classes with another share of the pixels than known'
  assert any(where.startswith('sidewalk') for where in found[odd])


def test_the_selections_that_numbers_depend_on_are_recognised():
  everything = [f'{i:05d}' for i in range(1, 24_967)]
  assert published_sets.which_list('gta5', everything) == 'all of GTA5'
  unusable = published_sets.unusable('gta5', everything)
  assert len(unusable) == 25
  rest = sorted(set(everything) - set(unusable))
  assert 'HIAST' in published_sets.which_list('gta5', rest)
  assert (
    published_sets.unusable('gta5', rest) == published_sets.unusable('cityscapes', everything) == []
  )
  diga = read_list(str(LISTS / 'gta5_diga_18111.txt'))
  assert published_sets.which_list('gta5', diga) == 'the list gta5_diga_18111'
  split = read_list(str(LISTS / 'cityscapes_labelled_1-8.txt'))
  cities = [f'{name.partition("_")[0]}/{name}' for name in split]
  assert published_sets.which_list('cityscapes', cities) == 'the list cityscapes_labelled_1-8'
  assert published_sets.which_list('cityscapes', cities[1:]) == ''


def test_lists_have_their_lengths():
  lengths = {path.stem: len(read_list(str(path))) for path in LISTS.glob('*.txt')}
  assert lengths == {
    'bdd100k_val': 1000, 'mapillary_vistas_val': 2000, 'gta5_diga_18111': 18_111,
    'gta5_unusable_25': 25, 'oxford_robotcar_train': 894, 'oxford_robotcar_val': 271,
    'cityscapes_labelled_1-16': 186, 'cityscapes_labelled_1-8': 372,
    'cityscapes_labelled_1-4': 744, 'cityscapes_labelled_1-2': 1488,
    'camvid_labelled_1-4': 92,  # not a paper's: configs/camvid_semi.py
  }  # fmt: skip


# The manifest.


@pytest.fixture
def seen(root):
  """(folder, the path of its manifest)."""
  folder = opened(root)
  path = root / 'manifest.json'
  records.write(path, examined(root).manifest)
  return folder, str(path)


def test_the_manifest_counts_and_hashes(seen):
  manifest = json.loads(pathlib.Path(seen[1]).read_text())
  assert manifest['images'] == 6 and sum(manifest['pixels'].values()) > 6 * 0.9 * 24 * 32
  size, digest, *shape = manifest['files']['003']['image']
  data = pathlib.Path(seen[0].image_path(3)).read_bytes()
  assert size == len(data) and len(digest) == 64 and shape == [24, 32]


def compared(path: str, folder: Folder) -> doctor.Manifest | None:
  return doctor.check_manifest(path, folder, folder.file_digests())


def test_unchanged_files_and_selections_of_them_pass(seen, root):
  folder, path = seen
  assert compared(path, folder)['images'] == 6
  (root / 'some.txt').write_text('001\n004\n')
  assert compared(path, opened(root, list='some.txt'))
  assert compared(path, folder.with_labels(''))
  assert compared(str(root / 'none.json'), folder) is None


@pytest.mark.parametrize('part', ['images', 'labels'])
def test_changed_and_new_files_are_named(seen, root, part):
  folder, path = seen
  data = bytearray((root / part / '004.png').read_bytes())
  data[-5] ^= 1
  (root / part / '004.png').write_bytes(data)
  with pytest.raises(BadInput, match=r'004.png: .* not what doctor saw .* \(1 of 6 differ\)'):
    compared(path, folder)
  shutil.copy(root / 'labels/000.png', root / 'labels/new.png')
  shutil.copy(root / 'images/000.png', root / 'images/new.png')
  with pytest.raises(BadInput, match='2 of 7 differ'):
    compared(path, opened(root))


@pytest.mark.parametrize('content', ['', '{"made": 1', '{}', '[]', '3', '{"made":0,"files":[]}'])
def test_a_damaged_manifest_is_named(seen, content):
  folder, path = seen
  pathlib.Path(path).write_text(content)
  with pytest.raises(BadInput, match='damaged'):
    compared(path, folder)


def test_a_record_that_is_no_manifest_is_named(seen):
  folder, path = seen
  records.write(path, {'made': 0, 'identity': []})
  with pytest.raises(BadInput, match='is the record of something else: it has no files'):
    compared(path, folder)


def test_a_file_that_was_missing_or_unreadable_is_known_again(root):
  FAULTS['a cut image'][0](root)
  (root / 'labels/001.png').unlink()
  records.write(root / 'manifest.json', examined(root).manifest)
  images = opened(root, labels='')
  assert compared(str(root / 'manifest.json'), images)
  shutil.copy(root / 'labels/000.png', root / 'labels/001.png')
  with pytest.raises(BadInput, match=r'001.png: .* \(1 of 6 differ\)'):
    compared(str(root / 'manifest.json'), opened(root))


# The same images and drives.


def test_the_same_image_twice_is_found_however_it_is_stored(root):
  data_files.recode(root / 'images/004.png', root / 'images/006.png')
  shutil.copy(root / 'labels/001.png', root / 'labels/006.png')
  assert kinds(examined(root)) == {
    'the same image twice': [f'{root}/images/006.png = {root}/images/004.png']
  }


# The command.


def command(root: pathlib.Path, *more: str) -> list[str]:
  folder = [
    f'--config.data.sets.source.{field}={value}'
    for field, value in {
      'kind': 'folder', 'images': 'images/{id}.png', 'labels': 'labels/{id}.png'
    }.items()
  ]  # fmt: skip
  return [
    'doctor',
    '--config=tests/configs/tiny.py',
    f'--config.data.root={root}',
    f'--config.data.cache={root / "cache"}',
    '--jobs=1',
    *(f'--config.data.sets.source.{kind}_size=(32,48)' for kind in ('low', 'full')),
    *folder,
    *more,
  ]


def test_the_command_says_what_is_right_and_ends_with_0(root, capsys):
  assert main(command(root)) == 0
  said = capsys.readouterr().out
  assert 'nothing is wrong' in said and 'road' in said and 'camera_test: rendered scenes' in said
  (manifest,) = (root / 'cache' / 'manifests').glob('*.json')
  samples = sorted(manifest.with_suffix('').iterdir())
  assert [path.name for path in samples] == ['000.png', '002.png', '005.png']
  with Image.open(samples[0]) as sample:
    assert sample.width > 2 * 256  # image and label side by side
  assert str(manifest) in said and json.loads(manifest.read_text())['images'] == 6


def test_the_command_names_what_is_wrong_and_ends_with_1(root, capsys):
  FAULTS['a cut label'][0](root)
  assert main(command(root, '--sets', 'source')) == 1
  said = capsys.readouterr().out
  assert 'unreadable label: 1' in said and 'labels/001.png' in said and '-> ' in said


def test_the_command_names_images_that_are_stretched(root, capsys):
  assert main(command(root, '--sets', 'source', '--config.data.crop=(32,64)')) == 1
  said = capsys.readouterr().out
  assert 'images smaller than the crop: 6' in said and 'stretched to data.crop, 32x64' in said


def test_wrong_use_ends_with_2(root, capsys):
  assert main(command(root, '--sets', 'sauce')) == 2
  assert "no 'sauce'" in capsys.readouterr().err
  assert main(command(root / 'nowhere')) == 2
  assert 'data.root' in capsys.readouterr().err


def test_the_command_compares_the_sets_and_remembers_their_digests(root, capsys, monkeypatch):
  monkeypatch.setattr(digests, 'SETTLED', 0)
  test = [
    '--config.data.sets.camera_test.kind=folder',
    '--config.data.sets.camera_test.images=test/{id}.png',
    '--config.data.sets.target.kind=folder',
    '--config.data.sets.target.images=images/{id}.png',
  ]
  data_files.recode(root / 'images/004.png', root / 'test/900.png')
  assert main(command(root, *test)) == 1
  said = capsys.readouterr().out
  assert 'test images in a training set: 2' in said
  assert f'{root}/test/900.png = {root}/images/004.png' in said
  assert 'source and target: 6 images are the same' in said
  monkeypatch.setattr(digests, 'of_file', None)
  folder = opened(root)
  assert folder.file_digests(str(root / 'cache/digests'))['003']['label']


def test_the_command_compares_scenes(root, capsys):
  assert main([*command(root), '--config.data.sets.camera_test.first=3']) == 1
  assert 'camera_test and target: 1 scenes, the first is number 3' in capsys.readouterr().out


def test_a_run_refuses_files_that_doctor_did_not_see(root, capsys):
  assert main(command(root)) == 0
  path = root / 'images/004.png'
  before = path.stat()
  path.write_bytes(path.read_bytes()[:-4] + bytes(4))
  os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
  arguments = [word for word in command(root)[1:] if not word.startswith('--jobs')]
  run = ['train', *arguments, f'--workdir={root / "run"}', '--stage=warmup']
  assert main([*run, '--config.translator.kind=fourier']) == 2
  error = capsys.readouterr().err.strip().splitlines()[-1]
  assert '004.png' in error and 'run doctor again' in error
