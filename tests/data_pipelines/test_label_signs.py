"""Labels under another set's table, and other files than the settings mean."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from data_pipelines import image_files, label_signs, label_tables, published_sets
from data_pipelines.folder import Folder, open_folder
from tests.data_pipelines.test_label_files import colours_of, png
from tests.support import data_files

NAMES = label_tables.NAMES['cityscapes19']
SIZE = (60, 80)
ROADS = published_sets.SHARES['cityscapes']


def train_ids(rng: np.random.Generator, ignored: float = 0.1) -> np.ndarray:
  """A label of Cityscapes' train ids with the shares of the real ones."""
  label = rng.choice(19, SIZE, p=ROADS).astype(np.uint8)
  return np.where(rng.random(SIZE) < ignored, 255, label).astype(np.uint8)


def raw_ids(table: str, rng: np.random.Generator) -> np.ndarray:
  """A label as the set of a table holds it: its own raw ids, 0 where nothing is labelled."""
  to_raw = np.zeros(256, np.uint8)
  for raw, train in reversed(label_tables.TABLES[table].items()):
    if train != 255:
      to_raw[train] = raw
  return to_raw[train_ids(rng)]


def looked_at(
  root: pathlib.Path, make, count: int = 9, pattern: str = '{id}.png', names=NAMES, **options
) -> list[label_signs.Sign]:
  """The signs in labels made by `make`: generator -> uint8 [h, w], or the bytes of a file."""
  rng = np.random.default_rng(0)
  for index in range(count):
    path = root / 'labels' / pattern.replace('{id}', f'{index}')
    data_files.save(root / f'images/{index}.png', Image.new('RGB', SIZE[::-1]))
    made = make(rng)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(made if isinstance(made, bytes) else png(made, colour=0))
  options = {'classes': len(names)} | options
  folder = open_folder(str(root), 'images/{id}.png', f'labels/{pattern}', **options)
  return label_signs.look_at(folder, names)


def of_16(label: np.ndarray) -> np.ndarray:
  """Train ids of the 19 classes as those of SYNTHIA's 16."""
  return label_tables.lut(
    [(k, v) for k, v in label_tables._pack({i: i for i in range(19)}).items()]
    + [(i, 255) for i in (9, 14, 16, 255)]
  )[label].astype(np.uint8)


# Right settings: (label, table), of which nothing is said.
RIGHT = {
  'cityscapes': lambda rng: raw_ids('cityscapes', rng),
  'gta5': lambda rng: raw_ids('gta5', rng),
  'mapillary': lambda rng: raw_ids('mapillary', rng),
  'synthia': lambda rng: raw_ids('synthia', rng),
  'synthia16': lambda rng: raw_ids('synthia16', rng),
  'train_ids': train_ids,
  'bdd100k': train_ids,
  'identity': train_ids,
}


@pytest.mark.parametrize('table', RIGHT)
def test_nothing_is_said_of_labels_that_fit(tmp_path, table):
  assert [s for s in looked_at(tmp_path, RIGHT[table], table=table) if s.fatal] == []
  if not table.startswith('synthia'):  # made with Cityscapes' shares
    assert looked_at(tmp_path, RIGHT[table], table=table) == []


@pytest.mark.parametrize('table', ['cityscapes', 'gta5', 'mapillary', 'synthia', 'synthia16'])
@pytest.mark.parametrize('count', [2, 30])
def test_labels_that_were_converted_before_are_refused(tmp_path, table, count):
  (sign, *_) = looked_at(tmp_path, train_ids, count, table=table)
  assert sign.fatal and 'which are train ids' in sign.text and "'train_ids'" in sign.text


def test_converted_labels_without_ignored_pixels_are_refused(tmp_path):
  signs = looked_at(tmp_path, lambda rng: train_ids(rng, 0), table='gta5')
  assert signs[0].fatal and 'which are train ids' in signs[0].text


def test_labels_of_9_classes_under_the_table_of_raw_ids_are_refused(tmp_path):
  names = label_tables.NAMES['robotcar9']

  def make(rng):
    return rng.choice([*range(9), 255], SIZE).astype(np.uint8)

  assert looked_at(tmp_path, make, names=names, table='robotcar9')[0].fatal


@pytest.mark.parametrize(
  ('pattern', 'table', 'right'),
  [
    ('{id}_gtFine_labelTrainIds.png', 'cityscapes', 'train_ids'),
    ('{id}_gt_labelTrainIds.png', 'gta5', 'train_ids'),
    ('{id}_labelTrainIds.png', 'synthia16', 'train_ids'),
    ('{id}_train_id.png', 'mapillary', 'train_ids'),
    ('{id}_trainids/{id}.png', 'cityscapes16_packed', 'train_ids'),
    ('{id}_gtFine_labelIds.png', 'train_ids', 'cityscapes'),
    ('{id}_gt_labelIds.png', 'bdd100k', 'cityscapes'),
  ],
)
def test_names_that_contradict_the_table_are_refused(tmp_path, pattern, table, right):
  classes = 16 if '16' in table else 19
  signs = looked_at(
    tmp_path, train_ids if right == 'train_ids' else lambda rng: raw_ids('cityscapes', rng),
    pattern=pattern, table=table, classes=classes if table.endswith('packed') else 19,
  )  # fmt: skip
  assert signs[0].fatal and f"set table to '{right}'" in signs[0].text


def test_raw_ids_under_a_table_of_train_ids_are_refused(tmp_path):
  signs = looked_at(tmp_path, lambda rng: raw_ids('cityscapes', rng), table='train_ids')
  assert signs[0].fatal and 'does not know (19' in signs[0].text


def test_mapillarys_newer_release_is_refused(tmp_path):
  def newer(rng):
    return rng.choice([21, 30, 61, 64, 108, 118], SIZE).astype(np.uint8)

  signs = looked_at(tmp_path, newer, table='mapillary')
  assert signs[0].fatal and 'ids up to 118' in signs[0].text and 'v1.2' in signs[0].text


def test_masks_of_0_and_255_are_refused(tmp_path):
  def mask(rng):
    return rng.choice([0, 255], SIZE).astype(np.uint8)

  for table in ('identity', 'cityscapes', 'mapillary'):  # the last two ignore 0 as well
    names = ('a', 'b') if table == 'identity' else NAMES
    signs = looked_at(tmp_path, mask, names=names, table=table)
    assert signs[0].fatal and "set table to 'masks'" in signs[0].text
  for table in ('masks', ((0, 0), (255, 1))):
    assert looked_at(tmp_path, mask, names=('a', 'b'), table=table) == []
  # One's own table says what is meant.
  assert not looked_at(tmp_path, mask, names=('a', 'b'), table=((0, 0), (255, 255)))[0].fatal


def test_colours_are_not_read_as_ids(tmp_path):
  def make(rng):
    colours = colours_of('cityscapes', raw_ids('cityscapes', rng))
    return png(np.dstack([colours, np.full(SIZE, 255)]), colour=6)

  signs = looked_at(tmp_path, make, table='cityscapes', label_format='rgba')
  assert signs[0].fatal and 'colours' in signs[0].text
  right = {'table': 'cityscapes', 'label_format': 'colour'}
  assert looked_at(tmp_path, make, **right) == []


def test_labels_of_nothing_are_refused(tmp_path):
  for table, value in (
    ('identity', 255), ('cityscapes', 0), ('cityscapes', 255), ('train_ids', 255), ('synthia', 0)
  ):  # fmt: skip
    signs = looked_at(tmp_path, lambda rng, v=value: np.full(SIZE, v, np.uint8), table=table)
    assert (
      signs[0].fatal and 'none of 9 label files looked at has a labelled pixel' in signs[0].text
    )


def test_few_classes_and_odd_shares_are_said(tmp_path):
  (one,) = looked_at(tmp_path, lambda rng: np.full(SIZE, 3, np.uint8))
  assert not one.fatal and 'only 1 of 19 classes occur' in one.text
  (two,) = looked_at(tmp_path, lambda rng: rng.choice([0, 1], SIZE).astype(np.uint8))
  assert not two.fatal and 'only 2 of 19 classes occur' in two.text
  signs = looked_at(tmp_path, lambda rng: raw_ids('synthia', rng), table='cityscapes')
  assert signs and any('%' in sign.text for sign in signs)

  def backwards(rng):
    return (18 - train_ids(rng, 0)).astype(np.uint8)

  (sign,) = looked_at(tmp_path, backwards, table='train_ids')
  assert not sign.fatal and 'other shares of the pixels than known' in sign.text
  (sign,) = looked_at(tmp_path, lambda rng: train_ids(rng, 0.9))
  assert not sign.fatal and '90% of the pixels looked at are ignored' in sign.text


def test_one_file_among_many_is_no_contradiction(tmp_path):
  made = iter([np.full(SIZE, 77, np.uint8), b'', np.full(SIZE, 255, np.uint8)])
  assert looked_at(tmp_path, lambda rng: next(made, train_ids(rng)), 12) == []


def test_few_files_from_all_over_the_folder_are_read(tmp_path, monkeypatch):
  read = []
  label = np.zeros(SIZE, np.uint8)
  monkeypatch.setattr(Folder, 'read_raw', lambda self, index: read.append(index) or label)
  folder = Folder('{id}', '{id}', map(str, range(1000)))
  label_signs.count_ids(folder)
  assert len(read) == 16 and all(
    any(low <= index < low + 125 for index in read) for low in range(0, 1000, 125)
  )
  read.clear()
  label = np.zeros((6000, 6000), np.uint8)
  label_signs.count_ids(folder)
  assert len(read) == 2 and image_files.MAX_PIXELS > label_signs.PIXELS
