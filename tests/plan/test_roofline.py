"""Steps compiled for devices: what they exchange, what they cost, and the table of it."""

import jax
import pytest

from data_pipelines.errors import BadInput
from diga_jax.configs import gta5_to_cityscapes, hiast_gta5, quickstart
from diga_jax.plan import roofline
from diga_jax.plan.chips import GIB, Chip
from diga_jax.recipe.experiment import Experiment
from diga_jax.report import tables
from tests.configs import tiny


def experiment(**changes) -> Experiment:
  config = tiny.get_config()
  config.devices = 0
  config.update_from_flattened_dict(changes)
  return Experiment(config)


@pytest.mark.slow
@pytest.mark.parametrize(
  'config, name', [(tiny, 'translator'), (tiny, 'warmup'), (quickstart, 'source_only')]
)
def test_a_step_exchanges_sums_alone(config, name):
  small = Experiment(config.get_config())
  found = roofline.stage_cost(small, name, 'cpu:4', rows=4).collectives
  assert set(found) == {'all-reduce'}
  parameters = sum(
    x.size * 4 for x in jax.tree.leaves(roofline.abstract_step(small.config, name, 4)[1].params)
  )
  # The gradients, and beside them only statistics and metrics. The translator's networks each act
  # on up to three images, and the CPU's compiler sums every use of a weight over the devices.
  uses = 3 if name == 'translator' else 1
  assert found['all-reduce'][1] < 1.2 * uses * parameters


@pytest.mark.slow
def test_self_training_gathers_centroid_means_alone():
  found = roofline.stage_cost(experiment(), 'self_training_1', 'cpu:4', rows=4).collectives
  assert set(found) == {'all-reduce', 'all-gather'}
  rows, classes, depth = 4, 19, 16
  means, valid = rows * classes * depth * 4, rows * classes
  assert found['all-gather'] == (4, 2 * (means + valid))


def test_the_roofline_is_the_slowest_resource():
  chip = Chip(memory=GIB, flops=100.0, bandwidth=10.0, interconnect=4.0)
  cost = roofline.StepCost(1, 2, 3, flops=200.0, accessed=5.0, collectives={'all-reduce': (1, 8)})
  found = roofline.bounds(cost, chip, chips=4)
  assert found == {'arithmetic': 2.0, 'memory': 0.5, 'interconnect': 3.0}
  assert roofline.on_chip(cost, chip, 4, steps=3600)['hours'] == 3.0


def test_float32_products_take_several_passes(monkeypatch):
  cost = roofline.StepCost(0, 0, 0, flops=197e12, accessed=1.0, collectives={})
  monkeypatch.setattr(roofline, 'stage_cost', lambda *_: cost)

  def seconds(**model):
    changes = {f'model.{field}': value for field, value in model.items()}
    rows = roofline.plan(experiment(recipe=('translator', 'warmup'), **changes), 'v5e:1x1')
    return [row['bounds']['arithmetic'] for row in rows]

  assert seconds(precision='default') == [1, 1]
  assert seconds(precision='high') == [3, 3]
  assert seconds(precision='highest') == [6, 6]
  assert seconds(precision='highest', dtype='bfloat16') == [6, 1]


def test_gpus_are_estimated_by_the_program_of_the_cpu(monkeypatch):
  cost = roofline.StepCost(0, 0, 0, flops=989e12, accessed=1.0, collectives={})
  asked = []

  def counted(experiment, name, topology, rows):
    asked.append((topology, rows))
    return cost

  monkeypatch.setattr(roofline, 'stage_cost', counted)
  rows = roofline.plan(experiment(recipe=('warmup',)), 'h100:4')
  assert asked == [('h100:4', 4)]
  assert rows[0]['bounds']['arithmetic'] == 2.0  # TF32
  narrow = roofline.plan(experiment(**{'recipe': ('warmup',), 'model.dtype': 'bfloat16'}), 'h100')
  assert narrow[0]['bounds'] == {'arithmetic': 1.0, 'memory': 1 / 3350e9, 'interconnect': 0.0}
  text = tables.render_tables(roofline.table('h100:4', rows), width=1000)
  assert "No GPU's compiler was asked" in text
  assert "No GPU's" not in tables.render_tables(roofline.table('v5e:2x2', rows), width=1000)


def test_a_step_that_does_not_fit_says_what_would():
  big = roofline.StepCost(GIB, 2 * GIB, 3 * GIB, 1e12, 1e9, {})
  small = big._replace(total=GIB // 2)
  row = {
    'stage': 'warmup', 'steps': 10, 'chips': 2, 'rows': 4, 'asked': 3, 'cost': big,
    'memory': 2 * GIB, 'bounds': {'arithmetic': 1.0}, 'hours': 0.5,
    'remedies': [('remat=True', small), ('a smaller batch', big)],
  }  # fmt: skip
  text = tables.render_tables(roofline.table('v5e:1x2', [row]), width=1000)
  assert 'with remat=True: 0.50 GiB, which fits' in text
  assert 'with a smaller batch: 3.00 GiB, which does not fit' in text
  assert '4*' in text and 'rounded up' in text and '0.5 hours' in text


def test_a_recipe_that_trains_nothing_is_refused():
  with pytest.raises(BadInput, match='nothing to plan'):
    roofline.plan(experiment(recipe=('label_1',)), 'cpu:2')


def test_batches_are_rounded_up_to_the_chips():
  stage = gta5_to_cityscapes.get_config().stages.warmup
  assert [roofline.batch_rows(stage, chips) for chips in (1, 2, 8, 64)] == [3, 4, 8, 64]


def test_stages_without_a_step_are_left_out(monkeypatch):
  asked = []

  def nothing(experiment, name, topology, rows):
    asked.append(name)
    return roofline.StepCost(0, 0, 0, 0.0, 0.0, {})

  monkeypatch.setattr(roofline, 'stage_cost', nothing)
  rows = roofline.plan(Experiment(quickstart.get_config()), 'cpu')
  assert [row['stage'] for row in rows] == ['source_only', 'warmup', 'self_training_1']
  config = tiny.get_config()
  rows = roofline.plan(Experiment(config), 'cpu')
  assert [row['stage'] for row in rows] == [name for name in config.recipe if 'label' not in name]
  assert asked[3:] == ['translator', 'warmup', 'self_training_1']  # round 2 is round 1's step


def test_remedies_are_sought_once(monkeypatch):
  compilations = []

  def much(experiment, name, topology, rows):
    compilations.append((name, rows, experiment.config.remat, experiment.config.model.dtype))
    return roofline.StepCost(0, 0, 33 * GIB, 1.0, 1.0, {})

  monkeypatch.setattr(roofline, 'stage_cost', much)
  rows = roofline.plan(experiment(**{'recipe': ('self_training_1', 'self_training_2')}), 'v5e:1x2')
  assert [row['stage'] for row in rows] == ['self_training_1', 'self_training_2']
  assert rows[0]['remedies'] == rows[1]['remedies'] and len(rows[0]['remedies']) == 3
  assert compilations == [
    ('self_training_1', 2, False, 'float32'),
    ('self_training_1', 2, True, 'float32'),
    ('self_training_1', 2, False, 'bfloat16'),
    ('self_training_1', 2, True, 'bfloat16'),
  ]


def test_rounds_that_differ_in_rate_and_length_are_one_program(monkeypatch):
  config = hiast_gta5.get_config()
  config.stages.hiast_3.steps = 4 * config.stages.hiast_1.steps
  asked = []

  def some(experiment, name, topology, rows):
    asked.append(name)
    return roofline.StepCost(0, 0, 0, 1e12, 1.0, {})

  monkeypatch.setattr(roofline, 'stage_cost', some)
  rows = roofline.plan(Experiment(config), 'v5e-8')
  assert asked == ['source_only', 'warmup', 'hiast_1']
  first, last = rows[2], rows[4]
  assert (first['stage'], last['stage']) == ('hiast_1', 'hiast_3')
  assert last['hours'] == pytest.approx(4 * first['hours']) and first['hours'] > 0
  config.stages.hiast_2.smoothing = 0.2
  roofline.plan(Experiment(config), 'v5e-8')
  assert asked[3:] == ['source_only', 'warmup', 'hiast_1', 'hiast_2']
