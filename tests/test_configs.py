"""The published configs: they build, and their steps trace and lower (shapes only)."""

import jax
import pytest

from configs import gta5_generalization, gta5_to_cityscapes, synthia_to_cityscapes
from diga_jax import plan
from diga_jax.experiment import Experiment

CONFIGS = (gta5_to_cityscapes, synthia_to_cityscapes, gta5_generalization)


@pytest.mark.slow
@pytest.mark.parametrize('module', CONFIGS, ids=lambda m: m.__name__.split('.')[-1])
def test_every_step_lowers(module):
  experiment = Experiment(module.get_config(), None)
  kinds = {}
  for name in experiment.config.recipe:
    kinds.setdefault(experiment.stage(name).kind, name)
  kinds.pop('label', None)
  for name in kinds.values():
    batch = experiment.stage(name).batch
    step, *shapes = plan.abstract_step(experiment, name, batch.low + batch.full)
    after, metrics = jax.jit(step).lower(*shapes).out_info
    assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, shapes[0])
    assert metrics['loss'].shape == ()


def test_published_values():
  gta5, synthia, general = (module.get_config() for module in CONFIGS)
  assert gta5.stages.warmup.steps == gta5.stages.self_training_2.steps == 80_000
  assert gta5.stages.translator.steps == 50_000
  assert gta5.stages.self_training_1.view.beta == 0.3
  assert (gta5.stages.self_training_1.batch.low, gta5.stages.self_training_1.batch.full) == (2, 1)
  assert synthia.stages.warmup.optimizer.warmup == 1000
  assert synthia.stages.warmup.loss == 'ohem'
  assert general.stages.warmup.view.sharpness == 0
  assert not general.stages.warmup.target_statistics
