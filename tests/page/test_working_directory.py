"""What is read of a working directory in whatever state it is."""

import json

import pytest

from data_pipelines import records
from diga_jax.page import event_files, working_directory
from diga_jax.recipe import iou_curve
from diga_jax.storage import run_record, stage_folder
from tests.page.conftest import RECIPE, write_events


def stage(folder, kind='warmup', reads=(), steps=5, complete=True):
  """Writes the record of a stage."""
  identity = {'stage.kind': kind, 'seed': 3, **{f'input.{name}': '0' for name in reads}}
  done = {'result': {'step': steps, 'steps': steps}, 'files': {}} if complete else {}
  stage_folder.write_record(folder, {'identity': identity, **done})


def start(workdir, *names):
  """Adds a start to run.json, of a process that has noted these stages."""
  with run_record.recorded(workdir):
    for name in names:
      run_record.note(workdir, name, resumed=False)
      with run_record.timed(workdir, name):
        pass


def test_a_finished_run_is_read_in_order_and_without_problems(finished):
  found = working_directory.read(finished / 'a')
  assert [each.name for each in found.stages] == list(RECIPE)
  assert {each.state for each in found.stages} == {'complete'}
  assert [each.name for each in found.measurements] == list(RECIPE)
  assert found.problems == [] and found.config['seed'] == 0
  assert all(each.hours is not None and not each.at_least for each in found.stages)
  assert found.stages[2].reads == ('warmup', 'label_1')


def test_without_a_config_stages_stand_behind_those_they_read(tmp_path):
  for name, reads in {'a': ('z', 'm'), 'z': (), 'm': ('z',), 'b': ('a',)}.items():
    stage(tmp_path / name, reads=reads)
  stage(tmp_path / 'c.partial', reads=('b',), complete=False)
  found = working_directory.read(tmp_path)
  assert [each.name for each in found.stages] == ['z', 'm', 'a', 'b', 'c']
  assert [each.state for each in found.stages] == ['complete'] * 4 + ['begun']


def test_a_circle_of_records_ends(tmp_path):
  stage(tmp_path / 'a', reads=('b',))
  stage(tmp_path / 'b', reads=('a',))
  assert {each.name for each in working_directory.read(tmp_path).stages} == {'a', 'b'}


def test_the_translator_of_a_recipe_that_trains_none_is_no_stage(finished):
  config = working_directory.read(finished / 'a').config
  recipe = {**config, 'recipe': ['translator', *RECIPE]}
  assert working_directory.recipe_of(recipe) == list(RECIPE)
  recipe['translator'] = {'kind': 'network'}
  assert working_directory.recipe_of(recipe)[0] == 'translator'


def test_records_of_earlier_versions_are_shown_and_told(tmp_path):
  stage(tmp_path / 'a')
  path = tmp_path / 'a' / 'stage.json'
  content = json.loads(path.read_text())
  del content['record_sha256']
  path.write_text(json.dumps({**content, 'versions': {'jax': '0.1'}}))
  found = working_directory.read(tmp_path)
  assert found.stages[0].state == 'complete' and found.stages[0].versions == {'jax': '0.1'}
  assert found.problems == [
    '1 records are of an earlier version, which wrote no digests: they are shown as they stand'
  ]


def test_an_edited_record_is_not_shown(tmp_path):
  stage(tmp_path / 'a')
  path = tmp_path / 'a' / 'stage.json'
  path.write_text(path.read_text().replace('"steps": 5', '"steps": 6'))
  found = working_directory.read(tmp_path)
  assert found.stages[0].state == 'damaged' and found.stages[0].result == {}
  assert 'a/stage.json: is damaged, or was edited' in found.problems[0]
  assert str(tmp_path) not in found.problems[0]


def test_hours_are_those_of_all_starts(tmp_path):
  start(tmp_path, 'a')
  start(tmp_path, 'a', 'b')
  stage(tmp_path / 'a')
  path = tmp_path / run_record.NAME
  starts = records.read(path, '', 'starts')['starts']
  starts[0]['hours_of'], starts[1]['hours_of'] = {'a': 1.5}, {'a': 2.0, 'b': 1.0}
  records.write(path, {'starts': starts})
  found = working_directory.read(tmp_path)
  assert (found.stages[0].hours, found.stages[0].at_least) == (3.5, False)
  starts[0]['hours_of'] = {}  # killed
  records.write(path, {'starts': starts})
  found = working_directory.read(tmp_path)
  assert (found.stages[0].hours, found.stages[0].at_least) == (2.0, True)


def test_without_recorded_hours_they_are_those_of_the_event_files(tmp_path, monkeypatch):
  stage(tmp_path / 'a')
  write_events(tmp_path / 'a')
  read = event_files.read

  def longer(directory):
    return read(directory)._replace(hours=0.25)

  monkeypatch.setattr(event_files, 'read', longer)
  assert working_directory.read(tmp_path).stages[0].hours == 0.25


def test_the_steps_that_are_done_are_those_of_the_curves(tmp_path):
  stage(tmp_path / 'a.partial', complete=False)
  with run_record.recorded(tmp_path, {'recipe': ('a',), 'stages': {'a': {'steps': 9}}}):
    pass
  write_events(tmp_path / 'a.partial', steps=4)
  found = working_directory.read(tmp_path).stages
  assert [(each.name, each.state, each.done, each.steps) for each in found] == [
    ('a', 'begun', 4, 9)
  ]


def test_the_curve_of_a_stage_is_read_and_a_damaged_one_told(tmp_path):
  stage(tmp_path / 'a')
  path = tmp_path / 'a' / iou_curve.FILE
  point = {'step': 2, 'data': 'x', 'mean_iou': 0.5, 'iou': {'road': 0.5}}
  records.write(path, {'ways': {}, 'points': [{**point, 'step': 4}, point]})
  found = working_directory.read(tmp_path)
  assert [each['step'] for each in found.stages[0].measured] == [2, 4] and not found.problems
  for text in ('{', path.read_text().replace('0.5', '0.9')):
    path.write_text(text)
    found = working_directory.read(tmp_path)
    assert found.stages[0].measured == () and iou_curve.FILE in found.problems[0]
  records.write(path, {'points': [{'step': 2}]})
  found = working_directory.read(tmp_path)
  assert found.stages[0].measured == () and 'holds no curve' in found.problems[0]


def test_a_link_to_a_folder_that_is_gone_is_told(tmp_path):
  stage(tmp_path / 'a')
  (tmp_path / 'b').symlink_to(tmp_path / 'gone')
  with run_record.recorded(tmp_path, {'recipe': ('a', 'b'), 'stages': {}}):
    pass
  found = working_directory.read(tmp_path)
  assert [each.state for each in found.stages] == ['complete', 'damaged']
  assert 'b: its folder holds no stage.json' in found.problems


@pytest.mark.parametrize(
  'text, count',
  [('1 x cpu', 1), ('8 x NVIDIA H100 80GB HBM3 in 2 processes', 8), ('2 x a, 3 x b', 5), ('', 1)],
)
def test_devices_are_counted(text, count):
  assert working_directory.devices_of({'devices': text}) == count


@pytest.mark.parametrize(
  'row',
  [
    None,
    [],
    {},
    {'kind': 'x'},
    {'kind': ['x']},
    {'kind': 'network', 'iou': {}},
    {'kind': 'labels'},
  ],
)
def test_a_result_that_is_none_is_told(tmp_path, row):
  stage(tmp_path / 'a')
  place = tmp_path / 'evaluation' / 'p' / 'a' / 's'
  stage_folder.write_record(place, {'identity': {}, 'result': row, 'files': {}})
  found = working_directory.read(tmp_path)
  assert found.measurements == [] and len(found.problems) == 1
