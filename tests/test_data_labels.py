"""Label tables against the data sets' documentation, and how they are turned into arrays."""

import numpy as np
import pytest

from data_pipelines import labels
from data_pipelines.errors import BadInput


@pytest.mark.parametrize('table', ['cityscapes', 'gta5'])
def test_cityscapes_ids(table):
  lut = labels.lut(table, 19)
  assert [lut[raw] for raw in (7, 8, 11, 12, 13, 17, 19, 20, 21)] == list(range(9))
  assert [lut[raw] for raw in (22, 23, 24, 25, 26, 27, 28, 31, 32, 33)] == list(range(9, 19))
  assert all(lut[raw] == 255 for raw in (0, 6, 9, 29, 30, 34, 255))


def test_synthia_has_all_classes_and_its_benchmark_sixteen():
  assert sorted(set(labels.lut('synthia'))) == [*range(19), 255]
  sixteen = [train for train in range(19) if train not in (9, 14, 16)]
  assert sorted(set(labels.lut('synthia16'))) == [*sixteen, 255]


def test_mapillary_joins_classes():
  lut = labels.lut('mapillary', 19)
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
  lut = labels.lut('cityscapes_to_camvid11', 11)
  for small, names in joined.items():
    for name in names:
      raw = labels.NAMES['cityscapes19'].index(name)
      assert labels.NAMES['camvid11'][lut[raw]] == small
  assert lut[255] == 255
  assert lut[19] == labels.UNKNOWN


def test_camvid_ignores_its_eleventh_id_and_knows_no_twelfth():
  lut = labels.lut('camvid11', 11)
  assert lut[:12].tolist() == [*range(11), 255]
  assert lut[12] == labels.UNKNOWN


def test_identity_is_cut_to_the_classes():
  assert (labels.lut('identity') == np.arange(256)).all()
  lut = labels.lut('identity', 11)
  assert lut[10] == 10 and lut[11] == lut[254] == labels.UNKNOWN and lut[255] == 255


@pytest.mark.parametrize('table', labels.TABLES)
def test_every_table_yields_train_ids(table):
  lut = labels.lut(table, 255)
  assert lut.shape == (256,)
  assert lut[255] == 255
  assert ((lut >= -1) & (lut <= 255)).all()


@pytest.mark.parametrize('task', ['cityscapes19', 'camvid11'])
def test_names_and_colours_go_together(task):
  names, colours = labels.NAMES[task], labels.PALETTE[task]
  assert colours.shape == (len(names), 3) and colours.dtype == np.uint8
  assert len(set(names)) == len(set(map(tuple, colours))) == len(names)


def test_wrong_tables_are_refused():
  with pytest.raises(BadInput, match=r"'gta' does not exist: choose one of .*gta5"):
    labels.lut('gta')
  with pytest.raises(BadInput, match="'gta5' yields train ids up to 18, but classes is 11"):
    labels.lut('gta5', 11)
