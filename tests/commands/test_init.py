"""init: from folders to a config that doctor passes."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from data_pipelines import label_tables
from diga_jax.__main__ import main
from diga_jax.config import load
from tests.support import data_files

SIZE = (120, 160)
COLOURS = np.array([(255, 0, 0), (0, 255, 0), (10, 20, 30), (0, 0, 0)], np.uint8)
CITYSCAPES = np.zeros((256, 3), np.uint8)
for _colour, _raw in label_tables.COLOURS['gta5'].items():
  CITYSCAPES[_raw] = _colour
RNG = np.random.default_rng(0)


def blocks(values) -> np.ndarray:
  """A label of all these ids."""
  found = RNG.choice(np.array([*values], np.uint8), (SIZE[0] // 8, SIZE[1] // 8))
  found.flat[: len([*values])] = [*values]
  return found.repeat(8, 0).repeat(8, 1)


def images(root: pathlib.Path, pattern: str, names, size=SIZE) -> None:
  for name in names:
    pixels = RNG.integers(0, 256, (*size, 3), np.uint8)
    data_files.save(root / pattern.format(name), Image.fromarray(pixels))


def labels(root: pathlib.Path, pattern: str, names, make) -> None:
  for name in names:
    data_files.save(root / pattern.format(name), make())


def palette_label() -> Image.Image:
  made = Image.fromarray(blocks([7, 8, 11, 13, 17, 19, 21, 23, 24, 26, 0, 4]))
  made.putpalette(CITYSCAPES.tobytes())
  return made


def cityscapes(root: pathlib.Path) -> None:
  for number, split in enumerate(('train', 'val')):
    names = [
      f'{town}/{town}_{10 * number + i:06d}_0' for town in ('aachen', 'ulm') for i in range(2)
    ]
    images(root, f'i/{split}/{{}}_leftImg8bit.png', names)
    for kind in ('labelIds', 'color', 'instanceIds'):
      pattern = f'l/{split}/{{}}_gtFine_{kind}.png'
      labels(root, pattern, names, lambda: Image.fromarray(blocks(range(34))))


def gta5(root: pathlib.Path) -> None:
  images(root, 'i/{}.png', ['00001', '00002'])
  labels(root, 'l/{}.png', ['00001', '00002'], palette_label)


def colours(root: pathlib.Path) -> None:
  images(root, 'i/IMG_{}.JPG', '012')
  labels(root, 'l/IMG_{}.png', '012', lambda: Image.fromarray(COLOURS[blocks(range(4))]))


def masks_beside(root: pathlib.Path) -> None:
  images(root, 'i/x{}.png', '012')
  labels(root, 'i/x{}_mask.png', '012', lambda: Image.fromarray(blocks([0, 255])))


def bits(root: pathlib.Path) -> None:
  images(root, 'i/{}.png', '012')
  labels(root, 'l/{}.png', '012', lambda: Image.fromarray(blocks([0, 1]).astype(bool)))


def lists(root: pathlib.Path) -> None:
  images(root, 'i/{}.png', '0123')
  labels(root, 'l/{}_gt.png', '0123', lambda: Image.fromarray(blocks([3, 7, 50, 255])))
  (root / 'train.txt').write_bytes('\ufeff0.png 1\r\n1.png 2\r\n'.encode())
  (root / 'val.txt').write_text('2\n3\n')


# Layout -> (what makes it, folder of the labels, classes, sets, further arguments).
LAYOUTS = {
  'cityscapes': (cityscapes, 'l', 19, ['source', 'source_val', 'target'], []),
  'gta5': (gta5, 'l', 10, ['source', 'target'], []),
  'colours': (colours, 'l', 4, ['source', 'target'], []),
  'masks beside': (masks_beside, 'i', 2, ['source', 'target'], ['--names', 'sea', 'land']),
  'bits': (bits, 'l', 2, ['source', 'target'], []),
  'lists': (lists, 'l', 3, ['source', 'source_val', 'target'], ['--names', 'a', 'b', 'c']),
}


def init(root: pathlib.Path, label_folder: str = 'l', *more: str) -> int:
  output = f'--output={root}/out/own.py'
  given = [f'--images={root}/i', f'--labels={root}/{label_folder}', output, '--jobs=1']
  (root / 'out').mkdir(exist_ok=True)
  return main(['init', *given, *more])


@pytest.mark.parametrize('layout', LAYOUTS)
def test_the_config_passes_doctor(tmp_path, layout, capsys):
  make, label_folder, count, sets, more = LAYOUTS[layout]
  make(tmp_path)
  images(tmp_path, 'street/{}.jpg', 'abc', (60, 90))
  assert init(tmp_path, label_folder, f'--target={tmp_path}/street', *more) == 0
  said, file = capsys.readouterr().out, tmp_path / 'out/own.py'
  assert 'target: 3 images' in said and f'{count} classes: ' in said and 'doctor' in said
  assert len(file.read_text().splitlines()) <= 40
  assert max(map(len, file.read_text().splitlines())) <= 100
  config = load(str(file))
  assert list(config.data.sets) == sets and config.data.classes == count
  with Image.open(file.with_suffix('.png')) as picture:
    assert picture.width > 300
  cache = f'--config.data.cache={tmp_path}/cache'
  assert main(['doctor', f'--config={file}', '--jobs=1', cache]) == 0, capsys.readouterr().out


def test_two_published_sets_share_their_classes(tmp_path, capsys):
  """Ids of GTA5 are learned, those of Cityscapes measured; only what GTA5 shows is a class."""
  gta5(tmp_path)
  cityscapes(tmp_path / 'street')
  target = [f'--target={tmp_path}/street/i', f'--target_labels={tmp_path}/street/l']
  assert init(tmp_path, 'l', *target) == 0
  assert 'no label of source holds them: wall, traffic sign' in capsys.readouterr().out
  config = load(f'{tmp_path}/out/own.py')
  assert config.data.class_names[:2] == ('road', 'sidewalk') and config.data.classes == 10
  assert config.evaluation.sets == ('target_test',) and not config.data.sets.target.labels
  cache = f'--config.data.cache={tmp_path}/cache'
  assert main(['doctor', f'--config={tmp_path}/out/own.py', '--jobs=1', cache]) == 0


def test_nothing_is_overwritten_and_nothing_written_among_images(tmp_path, capsys):
  bits(tmp_path)
  assert init(tmp_path) == 0
  file = tmp_path / 'out/own.py'
  assert "config.recipe = ('source_only',)" in file.read_text()
  file.write_text('mine')
  assert init(tmp_path) == 2 and 'own.py exists' in capsys.readouterr().err
  assert file.read_text() == 'mine'
  file.unlink()
  assert init(tmp_path) == 2 and 'own.png exists' in capsys.readouterr().err
  assert init(tmp_path, 'l', '--overwrite') == 0 and file.exists()
  for place, said in ((f'{tmp_path}/i/own.py', 'lies in --images'), ('own.txt', 'end in .py')):
    assert init(tmp_path, 'l', f'--output={place}') == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
  'more, said',
  [
    (['--images={}/none'], 'none does not exist'),
    (['--target={}/i'], 'is both --images and --target'),
    (['--target_labels={}/l'], 'give the images of these labels as --target'),
    (['--target={}/street', '--target_labels={}/street'], 'put some into folders train and'),
    (['--names', 'a'], 'give 2 different names'),
    (['--labels={}/street'], 'no label goes with an image'),
    (['--target={}/empty'], 'holds no image'),
  ],
)
def test_what_cannot_be_guessed_is_one_line(tmp_path, capsys, more, said):
  bits(tmp_path)
  images(tmp_path, 'street/s{}.jpg', 'ab')
  labels(tmp_path, 'street/s{}_gt.png', 'ab', lambda: Image.fromarray(blocks([0, 1])))
  (tmp_path / 'empty').mkdir()
  assert init(tmp_path, 'l', *(argument.format(tmp_path) for argument in more)) == 2
  error = capsys.readouterr().err
  assert said in error and error.strip().count('\n') == 0
  assert list((tmp_path / 'out').iterdir()) == []


def test_lists_that_are_not_used_are_said(tmp_path, capsys):
  lists(tmp_path)
  (tmp_path / 'train.txt').write_text('0\n77\n')
  assert init(tmp_path) == 0
  assert 'train.txt, which names 77' in capsys.readouterr().out
