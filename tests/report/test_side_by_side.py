"""What forbids to compare two results, what is unknown, and the table of those that are equal."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diga_jax.report import side_by_side

PASSPORT = {
  'name': 'warmup',
  'scores': {
    'mean_iou': 0.36,
    'mean_iou_subsets': {'19': 0.36, '16': 0.4},
    'iou': {'road': 0.9, 'traffic light': 0.25, 'train': None},
  },
  'protocol': {
    'data': 'cityscapes_val',
    'class_set': 'cityscapes19',
    'classes': ['road', 'traffic light', 'train'],
    'class_means': 'present',
    'images': 500,
    'list_sha256': 'a' * 64,
    'image_files_sha256': 'b' * 64,
    'label_files_sha256': 'c' * 64,
    'label_table': 'cityscapes',
    'label_size': [1024, 2048],
    'image_size': [512, 1024],
    'scales': [1.0, 0.5],
    'fusion': 'max',
    'flip': False,
    'chosen_by': 'last',
    'network': 'student',
  },
  'made_from': {
    'seed': 0,
    'step': 80,
    'made_under': {'commit': 'd' * 40 + '+', 'devices': '1 x cpu'},
    'data_sha256': {'source': 'e'},
  },
}
ROW = {
  'name': 'DiGA',
  'source': 'a paper',
  'scores': {'mean_iou': 0.5, 'mean_iou_subsets': {}, 'iou': {'road': 0.95}},
  'protocol': {'class_set': 'cityscapes19', 'images': 500},
}
OTHER = {
  'class_set': ('own 3 (12345678)', 'class set: cityscapes19 in A, own 3 (12345678) in B'),
  'classes': (['road', 'light', 'train'], 'classes: road, traffic light, train in A, road, light'),
  'class_means': ('hiast', 'way of taking means: present in A, hiast in B'),
  'images': (1525, 'split: number of images: 500 in A, 1525 in B'),
  'list_sha256': ('f' * 64, 'split: list of images: aaaaaaaaaaaa in A, ffffffffffff in B'),
  'image_files_sha256': ('f' * 64, 'image files: bbbbbbbbbbbb in A'),
  'label_files_sha256': ('f' * 64, 'label files: cccccccccccc in A'),
  'label_table': ('gta5', 'label table: cityscapes in A, gta5 in B'),
  'label_size': ([512, 1024], 'label resolution: 1024x2048 in A, 512x1024 in B'),
  'image_size': ('various', 'image resolution: 512x1024 in A, various in B'),
  'scales': ([1.0], 'scales: 1, 0.5 in A, 1 in B'),
  'fusion': ('mean', 'fusion of scales: max in A, mean in B'),
  'flip': (True, 'flip: False in A, True in B'),
  'chosen_by': ('oracle', 'weights chosen by: the last step in A, labels of the target in B'),
}


def passport(**protocol):
  changed = copy.deepcopy(PASSPORT)
  changed['protocol'] |= protocol
  return side_by_side.result_of(changed)


@pytest.mark.parametrize('field', OTHER)
def test_every_fact_of_the_protocol_forbids(field):
  other, text = OTHER[field]
  assert side_by_side.differences(passport(), passport()) == []
  found = side_by_side.differences(passport(), passport(**{field: other}))
  assert any(line.startswith(text) for line in found), found


def test_all_that_is_compared_is_tested():
  assert OTHER.keys() == side_by_side.COMPARED.keys()


@given(st.sets(st.sampled_from(sorted(OTHER))))
def test_differences_are_those_that_there_are_in_either_order(fields):
  first, second = passport(), passport(**{field: OTHER[field][0] for field in fields})
  there, back = side_by_side.differences(first, second), side_by_side.differences(second, first)
  assert len(there) == len(back) == len(fields - ({'fusion'} if 'scales' in fields else set()))


def test_the_order_of_scales_and_what_tells_results_apart_forbid_nothing():
  changed = copy.deepcopy(PASSPORT)
  changed['protocol'] |= {'scales': [0.5, 1], 'network': 'teacher', 'data': 'val'}
  changed['made_from'] |= {'seed': 3, 'step': 1, 'made_under': {}}
  assert not side_by_side.differences(passport(), side_by_side.result_of(changed))


def test_what_a_row_does_not_state_is_unknown():
  row = side_by_side.result_of(ROW)
  assert side_by_side.differences(passport(), row) == []
  assert side_by_side.unknown(passport()) == []
  found = side_by_side.unknown(row)
  assert 'label resolution' in found and 'class set' not in found and len(found) == 11


def test_classes_and_means_that_the_other_one_lacks_forbid():
  row = copy.deepcopy(ROW)
  row['scores']['iou']['light'] = 0.3
  [reason] = side_by_side.differences(passport(), side_by_side.result_of(row))
  assert reason.startswith('classes: light in B alone; the other has road, traffic light, train')
  row['scores'] = {'mean_iou': None, 'mean_iou_subsets': {'13': 0.5}, 'iou': {}}
  found = side_by_side.differences(passport(), side_by_side.result_of(row))
  assert found[0] == 'mean: over all classes, over 19, over 16 in A, over 13 in B'
  row['scores'] = {'mean_iou': 0.3, 'mean_iou_subsets': {'13': 0.5}, 'iou': {}}
  assert not side_by_side.differences(passport(), side_by_side.result_of(row))


def test_two_rows_without_a_number_in_common_are_refused():
  one, other = (copy.deepcopy(ROW) for _ in range(2))
  one['scores'] = {'mean_iou': 0.3, 'mean_iou_subsets': {}, 'iou': {}}
  other['scores'] = {'mean_iou': None, 'mean_iou_subsets': {}, 'iou': {'road': 0.3}}
  found = side_by_side.differences(*map(side_by_side.result_of, (one, other)))
  assert found == ['numbers: A and B have no class and no mean in common']


@pytest.mark.parametrize('width', [60, 80, 120])
def test_the_table_has_every_class_and_fits(width):
  text = side_by_side.render(passport(), side_by_side.result_of(ROW), width)
  lines = text.splitlines()
  assert max(map(len, lines)) <= width
  cells = {line[:13].strip(): line[13:].split() for line in lines}
  assert cells['road'] == ['90.0', '95.0', '+5.0']
  assert cells['traffic light'] == ['25.0', '-', '-'] and cells['train'] == ['-', '-', '-']
  assert cells['mean'] == ['36.0', '50.0', '+14.0'] and cells['mean of 16'] == ['40.0', '-', '-']
  assert 'dddddddddddd+' in text and 'a paper' in text
  assert 'class set cityscapes19; ' in ' '.join(lines)


def test_classes_of_the_shorter_one_come_last():
  row = copy.deepcopy(ROW)
  row['scores']['iou'] = {'sky': 0.1, 'road': 0.2}
  text = side_by_side.render(side_by_side.result_of(row), passport(), 80)
  rows = [line.split('  ')[0] for line in text.splitlines()]
  assert rows.index('road') < rows.index('train') < rows.index('sky')
