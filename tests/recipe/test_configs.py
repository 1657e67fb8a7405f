"""The published configs: they build, and their steps trace (shapes only)."""

import jax
import pytest

from configs import (
  gta5_generalization,
  gta5_to_cityscapes,
  hiast_gta5,
  hiast_robotcar,
  hiast_synthia,
  synthia_to_cityscapes,
)
from diga_jax.plan import steps
from diga_jax.recipe.experiment import Experiment

DIGA = (gta5_to_cityscapes, synthia_to_cityscapes, gta5_generalization)
TRACED = []
HIAST = (hiast_gta5, hiast_synthia, hiast_robotcar)


@pytest.mark.slow
@pytest.mark.parametrize('module', DIGA + HIAST, ids=lambda m: m.__name__.split('.')[-1])
def test_every_step_traces_and_keeps_its_shapes(module):
  experiment = Experiment(module.get_config())
  model = str((experiment.config.model.to_dict(), experiment.config.data.to_dict()['crop']))
  kinds = {}
  for name in experiment.config.recipe:
    kinds.setdefault(experiment.stage(name).kind, name)
  kinds.pop('label', None)
  for name in kinds.values():
    if (model, experiment.stage(name)) in TRACED:  # by another config
      continue
    TRACED.append((model, experiment.stage(name)))
    batch = experiment.stage(name).batch
    step, *shapes = steps.abstract_step(experiment, name, batch.low_rows + batch.full_rows)
    after, metrics = jax.eval_shape(step, *shapes)
    assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, shapes[0])
    assert metrics['loss'].shape == ()


def test_published_values():
  gta5, synthia, general = (module.get_config() for module in DIGA)
  assert gta5.stages.warmup.steps == gta5.stages.self_training_2.steps == 80_000
  assert gta5.stages.translator.steps == 50_000
  assert gta5.stages.self_training_1.view.beta == 0.3
  assert (
    gta5.stages.self_training_1.batch.low_rows,
    gta5.stages.self_training_1.batch.full_rows,
  ) == (2, 1)
  assert synthia.stages.warmup.optimizer.warmup == 1000
  assert synthia.stages.warmup.loss == 'ohem'
  assert general.stages.warmup.view.sharpness == 0
  assert not general.stages.warmup.target_statistics


def test_published_values_of_hiast():
  gta5, synthia, robotcar = (module.get_config() for module in HIAST)
  rates = [gta5.stages[f'hiast_{i}'].optimizer.learning_rate for i in (1, 2, 3)]
  assert rates == [3e-6, 2e-6, 1e-6]
  first, second = gta5.stages.label_1, gta5.stages.label_2
  assert (first.start, first.network) == ('warmup', 'student')
  assert (second.start, second.network) == ('hiast_1', 'teacher')
  assert gta5.stages.hiast_2.start == 'hiast_1' and gta5.stages.hiast_2.labels == 'label_2'
  assert (first.selector, first.alpha, first.beta, first.gamma, first.selector_batch) == (
    'ias', 0.5, 0.9, 8.0, 2,
  )  # fmt: skip
  assert first.image_size == (768, 1536)
  stage = gta5.stages.hiast_3
  assert (stage.smoothing, stage.sharpening, stage.consistency) == (0.1, 1.0, 0.5)
  assert (stage.steps, stage.batch.full_rows, stage.copy_paste.hard_classes) == (8000, 12, 14)
  assert gta5.data.sets.source.zoom_heights == (341, 950)
  assert gta5.data.sets.target.zoom_heights == (341, 1000)
  assert synthia.data.sets.source.zoom_heights == (341, 640)
  assert synthia.stages.hiast_1.copy_paste.excluded_classes == (9, 14, 16)
  assert (robotcar.data.classes, robotcar.data.crop) == (9, (768, 1024))
