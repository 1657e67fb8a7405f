"""One training, measured by several choices of its checkpoints, and stopped on the way."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from diga_jax import weights
from diga_jax.__main__ import main
from diga_jax.recipe import checkpoints
from diga_jax.storage import stage_folder
from tests.end_to_end.test_recipe import final_state, refused, stop_once

CHOICES = ('last', 'agreement', 'consensus', 'density', 'oracle')
MEASURED = f'--config.evaluation.checkpoints={CHOICES}'


@pytest.fixture(scope='module')
def cache(tmp_path_factory) -> pathlib.Path:
  return tmp_path_factory.mktemp('scenes')


def run(command: str, workdir: pathlib.Path, cache: pathlib.Path, *more: str) -> int:
  config = '--config=tests/configs/tiny_criteria.py'
  return main([command, config, f'--workdir={workdir}', f'--config.data.cache={cache}', *more])


@pytest.fixture(scope='module')
def finished(tmp_path_factory, cache) -> pathlib.Path:
  workdir = tmp_path_factory.mktemp('finished') / 'run'
  assert run('run', workdir, cache) == 0
  return workdir


@pytest.mark.slow
def test_scores_are_recorded_and_the_best_networks_kept(finished):
  for name, choices in {
    'warmup': ('last', 'agreement', 'density', 'oracle'),
    'self_training_1': CHOICES,
  }.items():
    scores = checkpoints.read(finished / name)
    table = scores['table']
    assert [row['step'] for row in table] == [2, 4, 5] and scores['chosen'].keys() == {*choices}
    assert all(row.keys() == {'step', *choices} - {'last'} for row in table)
    for choice in choices[1:]:
      found = next(row[choice] for row in table if row['step'] == scores['chosen'][choice])
      assert found == max(row[choice] for row in table)
    record = stage_folder.read_record(finished / name)
    assert record['result']['step'] == 5 and record['result']['chosen_by'] == 'last'
    assert record['result']['kept'] == scores['chosen'] and 'checkpoints.json' in record['files']
    kept = {path.name for path in (finished / name / 'checkpoints').glob('[0-9]*')}
    assert kept == {str(step) for step in scores['chosen'].values()}


@pytest.mark.slow
def test_choices_are_measured_side_by_side_without_training_again(
  finished, cache, tmp_path, capsys
):
  copy = shutil.copytree(finished, tmp_path / 'run')
  before = [(path, path.stat().st_mtime_ns) for path in copy.glob('*/checkpoints/**/*')]
  fields = (MEASURED, '--config.evaluation.name=chosen')
  assert run('evaluate', copy, cache, *fields) == 0
  said = capsys.readouterr().out
  assert before == [(path, path.stat().st_mtime_ns) for path in copy.glob('*/checkpoints/**/*')]
  assert 'self_training_1@consensus' in said.partition("Spearman's rho")[2]
  assert 'warmup@oracle' in said and 'oracle*' in said and 'warmup@consensus' not in said
  place = copy / 'evaluation' / 'chosen'
  scores = checkpoints.read(copy / 'self_training_1')
  for choice in CHOICES:
    path = place / f'self_training_1@{choice}' / 'camera_test' / 'metrics.json'
    row = json.loads(path.read_text())
    step = scores['chosen'][choice]
    assert (row['protocol']['chosen_by'], row['protocol']['step']) == (choice, step)
    true = next(row['oracle'] for row in scores['table'] if row['step'] == step)
    np.testing.assert_allclose(row['mean_iou'], true, rtol=1e-6)
  own = copy / 'evaluation' / 'published' / 'self_training_1' / 'camera_test' / 'metrics.json'
  last = place / 'self_training_1@last' / 'camera_test' / 'metrics.json'
  assert json.loads(last.read_text())['confusion'] == json.loads(own.read_text())['confusion']


@pytest.mark.slow
def test_the_network_of_a_choice_is_exported(finished, tmp_path):
  path = tmp_path / 'network.pth'
  step = checkpoints.read(finished / 'self_training_1')['chosen']['agreement']
  assert (
    main(['weights', 'export', f'{finished}/self_training_1@agreement', f'--output={path}']) == 0
  )
  kernel = final_state(finished / 'self_training_1', step)[
    "['params']['layer1.0']['conv2']['kernel']"
  ]
  found = weights.read(path)['layer1.0.conv2.weight']
  np.testing.assert_array_equal(found, kernel.transpose(3, 2, 0, 1))


@pytest.mark.slow
def test_a_stage_that_was_stopped_has_the_same_scores(finished, cache, tmp_path, monkeypatch):
  copy = shutil.copytree(finished, tmp_path / 'run')
  shutil.rmtree(copy / 'self_training_1')
  stop_once(monkeypatch, self_training_1=3)
  more = (copy, cache, '--stage=self_training_1')
  with pytest.raises(KeyboardInterrupt):
    run('train', *more)
  assert (copy / 'self_training_1.partial').exists()
  assert run('train', *more) == 0
  name = 'self_training_1/checkpoints.json'
  assert (copy / name).read_bytes() == (finished / name).read_bytes()
  for step in checkpoints.read(copy / 'self_training_1')['chosen'].values():
    found, wanted = (final_state(each / 'self_training_1', step) for each in (copy, finished))
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
      np.testing.assert_array_equal(found[key], value, err_msg=key)


@pytest.mark.slow
def test_a_changed_record_and_a_choice_that_is_not_there_are_refused(finished, cache, capsys):
  fields = ("--config.criteria.record=('agreement',)", '--config.evaluation.checkpoints=()')
  status = run('run', finished, cache, *fields)
  refused(capsys, status, 'was made with other settings', 'criteria.record')
  status = run('run', finished, cache, '--config.data.sets.held_out.first=51')
  refused(capsys, status, 'data.sets.held_out.first: 50 there, 51 now')
  assert main(['weights', 'export', f'{finished}/warmup@best', f'--output={finished}.pth']) == 2
  refused(capsys, 2, f'{finished}/warmup keeps no checkpoint chosen by', 'best')
  stage = 'self_training_1@median'
  status = run('predict', finished, cache, f'--stage={stage}', f'--output={finished}-out', __file__)
  refused(capsys, status, "keeps no checkpoint chosen by 'median', but by last, agreement")
