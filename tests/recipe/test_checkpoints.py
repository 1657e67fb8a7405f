"""Which checkpoint is used: of what is scored, and of what is left after damage."""

import json
import random
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.errors import BadInput
from diga_jax.recipe import checkpoints
from diga_jax.recipe.experiment import Run
from diga_jax.stages.kinds import criteria_of
from diga_jax.storage import stage_folder
from tests.configs import tiny
from tests.support import damage

EVERYTHING = ('agreement', 'consensus', 'density', 'oracle')
TABLE = [
  {'step': 2, 'agreement': 0.9, 'density': 4.0},
  {'step': 4, 'agreement': 0.7, 'density': 4.5},
  {'step': 6, 'agreement': 0.9, 'density': 4.1},
]


def run_of(tmp_path, record=(), choice='last') -> Run:
  config = tiny.get_config()
  config.data.sets.spare = config.data.sets.camera_test.copy_and_resolve_references()
  config.criteria.record, config.criteria.set = record, 'spare'
  config.checkpoint_choice = choice
  return Run(config, tmp_path)


def test_stages_are_scored_by_what_they_have(tmp_path):
  config = run_of(tmp_path, EVERYTHING).config
  without = ('agreement', 'density', 'oracle')
  wanted = {'translator': (), 'label_1': (), 'warmup': without, 'self_training_1': EVERYTHING}
  for name, criteria in wanted.items():
    assert criteria_of(config.stages[name], config) == criteria
  config.stages.self_training_1.selector = 'none'
  assert criteria_of(config.stages.self_training_1, config) == without
  config.criteria.record = ()
  assert criteria_of(config.stages.warmup, config) == ()
  config.checkpoint_choice = 'density'
  assert criteria_of(config.stages.warmup, config) == ('density',)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_the_best_is_the_highest_and_of_equals_the_latest(values):
  table = [{'step': i, 'density': value} for i, value in enumerate(values)]
  best = checkpoints.best(table, 'density')
  assert values[best] == max(values) and max(values) not in values[best + 1 :]
  assert checkpoints.best(table, 'last') == len(values) - 1


def test_the_choice_and_what_is_kept_beside_it(tmp_path):
  steps = (2, 4, 6)
  found = checkpoints.choose(run_of(tmp_path), 'warmup', TABLE, steps)
  assert found == {'last': 6}
  found = checkpoints.choose(run_of(tmp_path, choice='density'), 'warmup', TABLE, steps)
  assert found == {'density': 4}
  record = ('agreement', 'density')
  found = checkpoints.choose(run_of(tmp_path, record, 'density'), 'warmup', TABLE, steps)
  assert found == {'density': 4, 'last': 6, 'agreement': 6}
  found = checkpoints.choose(run_of(tmp_path, record, 'density'), 'translator', TABLE, steps)
  assert found == {'last': 6}


def test_a_damaged_best_is_replaced_with_a_word(tmp_path, caplog):
  found = checkpoints.choose(run_of(tmp_path, choice='density'), 'warmup', TABLE, (2, 6))
  assert found == {'density': 6}
  assert 'warmup: step 4, the best by density, was damaged: step 6 takes its place' in caplog.text


def test_the_scores_of_a_stage_are_read_as_written(tmp_path):
  checkpoints.write(tmp_path, TABLE, {'last': 6})
  assert checkpoints.read(tmp_path) == {'table': TABLE, 'chosen': {'last': 6}}
  assert json.loads((tmp_path / 'checkpoints.json').read_text())['table'] == TABLE
  assert 'checkpoints.json' in stage_folder.digests_of(tmp_path)
  damage.flip(tmp_path / 'checkpoints.json', random.Random(0))
  with pytest.raises(BadInput, match=r'checkpoints.json: .*damaged'):
    checkpoints.read(tmp_path)
  (tmp_path / 'checkpoints.json').unlink()
  with pytest.raises(BadInput, match=r'checkpoints.json: cannot be read'):
    checkpoints.read(tmp_path)


def test_a_true_score_without_a_labelled_pixel_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(Run, 'predictor_of', lambda *_: None)
  monkeypatch.setattr(
    checkpoints.evaluation, 'scores_in_training', lambda *_, **__: {'mean_iou': None}
  )
  score = checkpoints.scorer(run_of(tmp_path, choice='oracle'), 'warmup')
  with pytest.raises(BadInput, match="'camera_test' has no labelled pixel"):
    score(types.SimpleNamespace(params={}, batch_stats={}))


def stage(workdir, **result) -> None:
  stage_folder.write_record(
    workdir / 'warmup', {'identity': {}, 'result': {'step': 6, **result}, 'files': {}}
  )


def choice_of(run, name):
  return stage_folder.network_of(run.workdir / name)[1:]


def test_a_network_is_named_by_stage_and_choice(tmp_path):
  run = run_of(tmp_path)
  stage(tmp_path, chosen_by='last', kept={'last': 6, 'agreement': 2})
  assert choice_of(run, 'warmup') == (6, 'last') == choice_of(run, 'warmup@last')
  assert choice_of(run, 'warmup@agreement') == (2, 'agreement')
  with pytest.raises(BadInput, match="keeps no checkpoint chosen by 'oracle', but by last, agree"):
    choice_of(run, 'warmup@oracle')


def test_a_stage_without_records_keeps_its_own_choice_alone(tmp_path):
  run = run_of(tmp_path)
  stage(tmp_path, chosen_by='oracle')
  assert choice_of(run, 'warmup@oracle') == (6, 'oracle')
  with pytest.raises(BadInput, match="keeps no checkpoint chosen by 'last', but by oracle"):
    run.predictor('warmup@last', 'student')


def test_a_label_pass_has_no_network(tmp_path):
  record = {'identity': {}, 'result': {'images': 3}, 'files': {}}
  stage_folder.write_record(tmp_path / 'label_1', record)
  with pytest.raises(BadInput, match='label_1: is a label pass, which trains no network'):
    run_of(tmp_path).predictor('label_1', 'student')


def test_nothing_is_told_of_stages_without_criteria(tmp_path):
  run = run_of(tmp_path, choice='oracle')
  assert checkpoints.describe([run]) == []
  recorded = run_of(tmp_path, ('agreement',))
  recorded.config.evaluation.stages = ('warmup',)
  stage(tmp_path, chosen_by='last')  # was trained without
  assert checkpoints.describe([recorded]) == []
