"""What data sets share: test images, scenes and drives that are trained on."""

import pathlib

import numpy as np
import pytest

from data_pipelines import doctor, overlaps
from data_pipelines.folder import Folder
from tests.support import data_files


def inspected(root: pathlib.Path, **options) -> overlaps.Inspected:
  folder = data_files.open_folder(root, **options)
  return overlaps.Inspected(folder, list(doctor.inspect_all(folder, 1)))


def test_test_images_in_a_training_set_are_found(tmp_path):
  for name, first in (('train', 0), ('test', 10)):
    for index in range(first, first + 3):
      image = np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8)
      data_files.write(tmp_path / name, f'{index}', image, np.zeros((8, 8), np.uint8))
  data_files.recode(tmp_path / 'test/images/11.png', tmp_path / 'train/images/7.png')
  sets = {name: inspected(tmp_path / name, labels='') for name in ('train', 'test')}
  pair = [f'{tmp_path}/test/images/11.png = {tmp_path}/train/images/7.png']
  facts, (finding,) = overlaps.compare(sets, ('test',), ('train',))
  assert finding.kind == 'test images in a training set' and finding.where == pair and not facts
  facts, findings = overlaps.compare(sets, (), ('train', 'test'))
  assert facts == ['test and train: 1 images are the same'] and not findings
  _, (finding,) = overlaps.compare({}, ('a', 'b'), ('b', 'c'))
  assert finding.kind == 'a set is trained on and measured' and finding.where == ['b']


def test_scenes_that_are_measured_and_trained_on_are_found():
  scenes = {'kind': 'scenes', 'look': 'camera', 'first': 0, 'count': 10}
  sets = {
    'train': scenes,
    'apart': {**scenes, 'first': 10},
    'other': {**scenes, 'look': 'game'},
    'files': {**scenes, 'kind': 'folder'},
    'test': {**scenes, 'first': 7},
  }
  (finding,) = overlaps.shared_scenes(sets, ('test', 'apart', 'other', 'files'), ('train',))
  assert finding.where == ['test and train: 3 scenes, the first is number 7']
  assert not overlaps.shared_scenes(sets, ('apart', 'other', 'files'), ('train',))
  assert not overlaps.shared_scenes(sets, ('train',), ('train',))  # `compare` says so


@pytest.mark.parametrize(
  'train, test, found, fact',
  [
    ('a/aachen_000003_000019', 'b/aachen_000003_000020', 'aachen_000003: 1', ''),
    ('aachen_000003_000019', 'aachen_000004_000019', '', ''),
    ('0001TP_006690', '0001TP_006720', '', 'drive 0001TP'),
    ('7d06fefd-f7be05a6', '7d06fefd-f7be05a6-0000002', '7d06fefd-f7be05a6: 1', ''),
    ('2014-12-05-11-09-10_06-000088', '2014-12-05-11-09-10_07_000010', '2014-12-05-11-09', ''),
    ('00001', '00002', '', ''),
  ],
)
def test_drives_in_test_and_training_are_found(train, test, found, fact):
  sets = {
    name: overlaps.Inspected(Folder(f'{name}/{{id}}.png', ids=[image]), [])
    for name, image in (('train', train), ('test', test))
  }
  facts, findings = overlaps.compare(sets, ('test',), ('train',))
  assert [finding.kind for finding in findings] == (
    ['frames of one drive in a test and a training set'] if found else []
  )
  assert not found or findings[0].where[0].startswith(found)
  assert fact in ''.join(facts) and bool(facts) == bool(fact)
  assert overlaps.compare(sets, (), ('train',)) == ([], [])
