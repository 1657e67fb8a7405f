"""The tables and curves of a page."""

import dataclasses

import numpy as np
import pytest

from diga_jax.page import event_files, results, working_directory
from tests.page.conftest import COLLAPSED


@pytest.fixture
def run(finished):
  return working_directory.read(finished / 'a')


def test_results_are_told_with_the_change_against_the_first(run):
  (table,) = results.result_tables(run.measurements)
  assert [name for name, _ in table.rows] == ['warmup', 'self_training_1', 'self_training_2']
  rows = {name: dict(zip(table.columns, cells, strict=True)) for name, cells in table.rows}
  means = {name: float(cells['mIoU 19'].text) for name, cells in rows.items()}
  assert rows['warmup']['against the first'].text == ''
  apart = float(rows['self_training_2']['against the first'].text)
  assert apart == pytest.approx(means['self_training_2'] - means['warmup'], abs=0.11)
  assert rows['warmup']['step'].text == '5'
  assert table.title.startswith('camera_test, 3 images')


def test_rows_of_other_protocols_have_tables_of_their_own(run):
  last = run.measurements[-1]
  protocol = {**last.row['protocol'], 'flip': True}
  run.measurements[-1] = last._replace(row={**last.row, 'protocol': protocol})
  assert len(results.result_tables(run.measurements)) == 2
  assert len(results.class_tables(run.measurements)) == 2


def test_classes_are_sorted_by_their_change(run):
  (table,) = results.class_tables(run.measurements)
  changes = [float(cells[-1].text) for _, cells in table.rows]
  assert changes == sorted(changes, reverse=True) and len(changes) == 19
  for _, cells in table.rows:
    assert cells[-1].sign in ('', cells[-1].text[0])
    assert float(cells[-1].text) == pytest.approx(
      float(cells[-2].text) - float(cells[0].text), abs=0.11
    )


def test_a_class_that_is_nowhere_comes_last(run):
  for each in run.measurements:
    if each.row['kind'] == 'network':
      each.row['iou']['road'] = None
  (table,) = results.class_tables(run.measurements)
  assert table.rows[-1][0] == 'road' and table.rows[-1][1][-1].text == '-'


def test_confusions_are_shares_of_the_true_class(run):
  tables = results.confusion_tables(run.measurements)
  assert len(tables) == 3
  for _, cells in tables[0].rows:
    assert sum(cell.share for cell in cells) == pytest.approx(1)
  first = next(each for each in run.measurements if each.row['kind'] == 'network')
  first.row['confusion'][0] = [0] * 19
  assert {cell.text for cell in results.confusion_tables(run.measurements)[0].rows[0][1]} == {''}


def test_the_audit_marks_classes_that_collapse(run):
  first, second = results.audit(run)
  assert not any(cells[0].note for _, cells in first.rows)
  marked = {name: cells[0].note for name, cells in second.rows if cells[0].note}
  assert {cells[0].text for _, cells in second.rows} == {'', 'collapses'}
  assert marked == {COLLAPSED: f'{COLLAPSED} falls to 0% of the pseudo-labels, 5.3% in label_1'}
  for column in ('of the labels', 'kept by the pass', 'coverage', 'precision'):
    assert column in first.columns
  assert 'confidence' not in first.columns  # which nobody recorded
  assert any('keeps labels of 50.0%' in note for note in first.notes)
  assert results.warnings(run) == [f'label_2: {COLLAPSED} falls']


def test_the_audit_marks_a_class_that_takes_over(run):
  stage = next(each for each in run.stages if each.name == 'label_2')
  stage.result['pixels'][0] = 10**4
  marks = {name: cells[0].text for name, cells in results.audit(run)[1].rows}
  assert marks['road'] == 'takes over' and marks[COLLAPSED] == 'collapses'


def test_the_audit_needs_no_measurement(run):
  names = results.class_names(run)
  run.measurements = []
  assert results.class_names(run) == names
  assert [table.title for table in results.audit(run)] == ['label_1', 'label_2']


def test_curves_lie_one_behind_the_other(run):
  found = results.curves(run)
  assert found['bounds'] == [
    {'x': 0, 'stage': 'warmup'},
    {'x': 5, 'stage': 'self_training_1'},
    {'x': 10, 'stage': 'self_training_2'},
  ]
  losses = [p for p in found['points'] if p['panel'] == 'loss' and p['tag'] == 'loss']
  assert [p['x'] for p in losses] == list(range(1, 16))
  assert [p['step'] for p in losses] == 3 * [1, 2, 3, 4, 5]
  assert found['tags'] == ['loss', 'cross_entropy']
  scores = [p for p in found['points'] if p['panel'] == 'score']
  assert [p['x'] for p in scores] == [5, 10, 15]
  assert {p['series'] for p in scores} == {'mIoU on camera_test'}
  assert {p['series'] for p in results.curves(run, 'mine')['points']} == {'mine'}


def with_curve(run, name: str, *means: float | None) -> None:
  """A stage that was evaluated at steps 2, 4 and so on, to 5 at most."""
  position = next(i for i, stage in enumerate(run.stages) if stage.name == name)
  points = tuple(
    {'step': min(2 * i + 2, 5), 'data': 'camera_test', 'mean_iou': mean, 'iou': {'road': mean}}
    for i, mean in enumerate(means)
  )
  run.stages[position] = dataclasses.replace(run.stages[position], measured=points)


def test_the_curve_of_a_stage_ends_in_its_measurement(run):
  with_curve(run, 'self_training_1', 0.1, 0.2, 0.3)
  scores = [p for p in results.curves(run)['points'] if p['panel'] == 'score']
  assert [p['x'] for p in scores] == [5, 7, 9, 10, 15]
  measured = [p['y'] for p in scores if p['x'] == 10]
  assert measured != [0.3] and {p['series'] for p in scores} == {'mIoU on camera_test'}
  run.measurements = []
  scores = [p for p in results.curves(run)['points'] if p['panel'] == 'score']
  assert [(p['x'], p['y'], p['step']) for p in scores] == [(7, 0.1, 2), (9, 0.2, 4), (10, 0.3, 5)]


def test_a_stage_without_event_files_has_its_curve(run):
  with_curve(run, 'warmup', 0.1, None)
  run.stages[0] = dataclasses.replace(run.stages[0], events=event_files.Events({}, 0.0, []))
  scores = [p for p in results.curves(run)['points'] if p['stage'] == 'warmup']
  assert [(p['x'], p['panel']) for p in scores] == [(2, 'score'), (5, 'score')]


def test_without_a_measurement_the_last_point_is_shown(run):
  with_curve(run, 'warmup', 0.1, 0.2)
  with_curve(run, 'self_training_1', 0.3, None)
  assert results.tables_while_training(run) == []
  run.measurements = [each for each in run.measurements if each.name == 'warmup']
  (table,) = results.tables_while_training(run)
  assert 'camera_test, while stages train: measured on its labels, for the curve' in table.title
  assert table.columns == ['step', 'mIoU', 'road']
  assert [(name, [cell.text for cell in cells]) for name, cells in table.rows] == [
    ('self_training_1', ['4', '-', '-'])
  ]


def test_numbers_that_are_not_finite_are_not_drawn(run):
  curve = run.stages[0].events.curves['loss']
  curve.points[0] = (1, float('nan'))
  assert all(np.isfinite(p['y']) for p in results.curves(run)['points'])


@pytest.mark.parametrize(
  'x, text, sign', [(0.1, '+10.0', '+'), (-0.02, '-2.0', '-'), (0, '+0.0', '')]
)
def test_differences_have_signs(x, text, sign):
  assert results.points(x)[:3:2] == (text, sign)
  assert results.points(None).text == '-'
