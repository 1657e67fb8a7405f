"""The repository's benchmark: its controls follow its chain, its data sets share no image."""

import itertools

import pytest

from data_pipelines.errors import BadInput
from diga_jax.config import read_config
from diga_jax.recipe.variants import variants

FILE = '--config=configs/benchmark.py'
VARIANTS = ('', ':all', ':choices', ':search')
SHORTER = ('--config.stages.warmup.steps=7', '--config.stages.self_training_1.steps=5')


def trained(config):
  return {n: config.stages[n] for n in config.recipe if config.stages[n].kind != 'label'}


def test_controls_have_the_steps_of_the_chain():
  stages = read_config([f'{FILE}:all', *SHORTER]).stages
  for name in ('source_only_equal_steps', 'source_statistics_equal_steps', 'supervised'):
    assert stages[name].steps == 7 + 5 + 5
  assert stages.supervised_longer.steps == 2 * stages.supervised.steps
  assert stages.source_only_equal_time.steps > stages.source_only_equal_steps.steps


def test_rows_differ_in_what_they_are_called_by_alone():
  config = read_config([f'{FILE}:all', *SHORTER])
  rows = trained(config)
  for name, stage in rows.items():
    assert stage.optimizer.to_dict() == config.stages.warmup.optimizer.to_dict(), name
    rounds = {'self_training': 5, 'hiast': 5, 'adversarial': 7, 'warmup': 7}
    if not name.startswith(('source', 'supervised')):
      assert stage.steps == rounds[stage.kind], name
    assert stage.batch.low_rows + stage.batch.full_rows == 3, name
  assert rows['source_statistics'].target_statistics and not rows['source_only'].target_statistics
  assert {name for name in rows if rows[name].batch.source == 'target_labelled'} == {
    'supervised', 'supervised_longer',
  }  # fmt: skip


@pytest.mark.parametrize('variant', VARIANTS)
def test_no_image_is_of_two_uses(variant):
  config = read_config([FILE + variant])
  sets = {k: v for k, v in config.data.sets.items() if k not in ('source', 'target_labelled')}
  for one, two in itertools.combinations(sets.values(), 2):
    apart = one.first + one.count <= two.first or two.first + two.count <= one.first
    assert apart and one.look == two.look == 'camera'
  assert ('camera_test' in config.evaluation.sets) == (variant != ':search')
  assert config.checkpoint_choice == 'last'


def test_the_search_changes_one_factor_at_a_time():
  config = read_config([f'{FILE}:search'])
  found = variants(f'{FILE.partition("=")[2]}:search', [], config, [])
  assert found[0].name == 'base' and len(found) == len(config.variants)
  assert {'source_statistics_equal_steps', 'self_training_2'} <= {*config.recipe}
  for each in found[1:]:
    assert each.config.evaluation == config.evaluation and each.config.data == config.data
    assert each.config.to_dict() != config.to_dict()


def test_an_unknown_variant_is_refused():
  with pytest.raises(BadInput, match="no variant 'al': there are all, choices, search"):
    read_config([f'{FILE}:al'])
