"""Label tables against the data sets' documentation, and how they are turned into arrays."""

import numpy as np
import pytest

from data_pipelines import label_tables
from data_pipelines.errors import BadInput


@pytest.mark.parametrize('table', ['cityscapes', 'gta5'])
def test_cityscapes_ids(table):
  lut = label_tables.lut(table, 19)
  assert [lut[raw] for raw in (7, 8, 11, 12, 13, 17, 19, 20, 21)] == list(range(9))
  assert [lut[raw] for raw in (22, 23, 24, 25, 26, 27, 28, 31, 32, 33)] == list(range(9, 19))
  assert all(lut[raw] == 255 for raw in (0, 6, 9, 29, 30, 34, 255))


def test_synthia_has_all_classes_and_its_benchmark_sixteen():
  assert sorted(set(label_tables.lut('synthia'))) == [*range(19), 255]
  sixteen = [train for train in range(19) if train not in (9, 14, 16)]
  assert sorted(set(label_tables.lut('synthia16'))) == [*sixteen, 255]


def test_mapillary_joins_classes():
  lut = label_tables.lut('mapillary', 19)
  assert lut[13] == lut[24] == lut[41] == 0
  assert lut[45] == lut[47] == 5
  assert lut[65] == 255


def test_cityscapes_to_camvid_by_name():
  joined = {
    'sky': ['sky'], 'building': ['building', 'wall'], 'pole': ['pole'], 'road': ['road'],
    'pavement': ['sidewalk'], 'tree': ['vegetation', 'terrain'],
    'sign': ['traffic light', 'traffic sign'], 'fence': ['fence'],
    'car': ['car', 'truck', 'bus', 'train'], 'pedestrian': ['person'],
    'bicyclist': ['rider', 'motorcycle', 'bicycle'],
  }  # fmt: skip
  lut = label_tables.lut('cityscapes_to_camvid11', 11)
  for small, names in joined.items():
    for name in names:
      raw = label_tables.NAMES['cityscapes19'].index(name)
      assert label_tables.NAMES['camvid11'][lut[raw]] == small
  assert lut[255] == 255
  assert lut[19] == label_tables.UNKNOWN


def test_camvid_ignores_its_eleventh_id_and_knows_no_twelfth():
  lut = label_tables.lut('camvid11', 11)
  assert lut[:12].tolist() == [*range(11), 255]
  assert lut[12] == label_tables.UNKNOWN


def test_identity_is_cut_to_the_classes():
  assert (label_tables.lut('identity') == np.arange(256)).all()
  lut = label_tables.lut('identity', 11)
  assert lut[10] == 10 and lut[11] == lut[254] == label_tables.UNKNOWN and lut[255] == 255


@pytest.mark.parametrize('table', label_tables.TABLES)
def test_every_table_yields_train_ids(table):
  lut = label_tables.lut(table, 255)
  assert lut.shape == (256,)
  assert lut[255] == (1 if table == 'masks' else 255)
  assert ((lut >= -1) & (lut <= 255)).all()


@pytest.mark.parametrize('task', ['cityscapes19', 'camvid11'])
def test_names_and_colours_go_together(task):
  names, colours = label_tables.NAMES[task], label_tables.PALETTE[task]
  assert colours.shape == (len(names), 3) and colours.dtype == np.uint8
  assert len(set(names)) == len(set(map(tuple, colours))) == len(names)


def test_wrong_tables_are_refused():
  with pytest.raises(BadInput, match=r"'gta' does not exist: choose one of .*gta5"):
    label_tables.lut('gta')
  with pytest.raises(BadInput, match="'gta5' yields train ids up to 18, but classes is 11"):
    label_tables.lut('gta5', 11)


def test_pairs_are_a_table_that_knows_nothing_else():
  lut = label_tables.lut(((3, 0), (7, 1), (9, 255)), 2)
  assert [lut[raw] for raw in (3, 7, 9)] == [0, 1, 255]
  assert (np.delete(lut, [3, 7, 9]) == label_tables.UNKNOWN).all()
  for pairs, words in (
    (((3, 0), (3, 1)), 'stands in two pairs'),
    (((3, 256),), 'not a pair'),
    (((3, 0, 1),), 'not a pair'),
    ((('road', 0),), 'not a pair'),
  ):
    with pytest.raises(BadInput, match=words):
      label_tables.lut(pairs, 2)
  with pytest.raises(BadInput, match='of 1 pairs yields train ids up to 5'):
    label_tables.lut(((3, 5),), 2)


@pytest.mark.parametrize('table', label_tables.COLOURS)
def test_colours_mean_what_their_ids_mean(table):
  pairs = label_tables.colours(table)
  assert len({colour for colour, _ in pairs}) == len(pairs)
  lut = label_tables.lut(table)
  assert [train for _, train in pairs] == [lut[raw] for raw in label_tables.COLOURS[table].values()]
  task = 'camvid11' if table == 'camvid32' else 'cityscapes19'
  assert {train for _, train in pairs} == {*range(len(label_tables.NAMES[task])), 255}


def test_colours_of_classes_are_those_of_the_figures():
  """The drawn colours of the 19 classes are Cityscapes' own, so its colours turn back into them."""
  meaning = dict(label_tables.colours('cityscapes'))
  for train, colour in enumerate(label_tables.PALETTE['cityscapes19']):
    assert meaning[tuple(colour.tolist())] == train


@pytest.mark.parametrize(
  ('name', 'colour', 'expected'),
  [
    ('road', (128, 64, 128), 'road'),
    ('lane marking', (128, 0, 192), 'road'),
    ('sidewalk', (0, 0, 192), 'pavement'),
    ('child', (192, 128, 64), 'pedestrian'),
    ('bicyclist', (0, 128, 192), 'bicyclist'),
    ('traffic light', (0, 64, 64), 'sign'),
    ('truck or bus', (192, 128, 192), 'car'),
    ('archway', (192, 0, 128), 'building'),
    ('wall', (64, 192, 0), 'building'),
    ('pole', (192, 192, 128), 'pole'),
    ('vegetation', (192, 192, 0), 'tree'),
    ('void', (0, 0, 0), None),
  ],
)
def test_camvids_32_colours_are_joined(name, colour, expected):
  train = dict(label_tables.colours('camvid32'))[colour]
  assert (label_tables.NAMES['camvid11'][train] if train != 255 else None) == expected


def test_wrong_colours_are_refused():
  with pytest.raises(BadInput, match="colours of table 'synthia' are not known"):
    label_tables.colours('synthia')
  with pytest.raises(BadInput, match='stands in two'):
    label_tables.colours((((0, 0, 0), 1), ((0, 0, 0), 2)))
  with pytest.raises(BadInput, match='not a colour'):
    label_tables.colours((((0, 0), 1),))
  with pytest.raises(BadInput, match='not a colour'):
    label_tables.colours(((300, 1),))


def test_a_class_set_is_called_by_its_names():
  names = label_tables.NAMES
  assert all(label_tables.class_set(known) == known for known in names)
  assert label_tables.class_set('cityscapes19', names['camvid11']) == 'camvid11'
  assert label_tables.class_set('cityscapes19', list(names['cityscapes19'])) == 'cityscapes19'
  own = label_tables.class_set('cityscapes19', ('road', 'sky'))
  assert own.startswith('own 2 (') and own == label_tables.class_set('camvid11', ['road', 'sky'])
  others = [('sky', 'road'), ('road', 'sky', 'a'), ('road sky',), ('roadsky', ''), ('road', 'Sky')]
  assert len({own, *(label_tables.class_set('camvid11', other) for other in others)}) == 6
