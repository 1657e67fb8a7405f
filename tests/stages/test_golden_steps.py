"""The training steps against what the published code computes, with DeepLabV2-ResNet101 whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diga_jax import mixing, weights
from diga_jax.configs import default, optimizers
from diga_jax.configs.stages import self_training_stage, warmup_stage
from diga_jax.stages import self_training, warmup
from diga_jax.stages.forward import interleave
from diga_jax.stages.views import Views
from diga_jax.types import StepConfig
from tests.support import golden_formula
from tests.support.golden_steps import check_each, movements, norms, start, state_dict

NAME = 'deeplab_resnet101'
RELATIVE = 1e-3  # of the largest value: float32 through a hundred layers


def newer_sgd():
  """The published optimizer under the version of PyTorch that made the first arrays."""
  return optimizers.sgd(first_step_momentum=False).to_dict() | {'decay_steps': 80_000}


@pytest.mark.slow
def test_two_warmup_steps(golden):
  wanted = golden('warmup_steps')
  batch = tuple(int(n) for n in wanted['batch'])
  model, tx, initial = start(NAME, state_dict(golden(NAME)['keys']), newer_sgd())
  stage = warmup_stage(target_statistics=False)
  config = StepConfig(stage, default.get_config().translator)

  @jax.jit
  def step(current, plain, mixed, labels):
    batch, views = {'source_label': labels}, interleave(plain, mixed)
    return warmup.train_step(
      current, batch, model=model, tx=tx, config=config, view_fn=lambda *_: views
    )

  current = initial
  for i in range(2):
    current, metrics = step(
      current,
      golden_formula.image(f'source{i}', (*batch, 3)),
      golden_formula.image(f'mixed{i}', (*batch, 3)),
      golden_formula.labels(f'source_labels{i}', batch).astype(np.int32),
    )
    found = [float(metrics['cross_entropy']), float(metrics['distillation'])]
    np.testing.assert_allclose(found, wanted['losses'][i], rtol=1e-4)

  names = wanted['names']
  check_each(movements(NAME, initial, current, names), wanted['student_moved'], names)
  trained = weights.to_torch(NAME, {'params': current.params, 'batch_stats': current.batch_stats})
  np.testing.assert_allclose(trained['layer0.0.weight'], wanted['conv1'], atol=1e-5)
  teacher = norms(NAME, {'params': current.teacher, 'batch_stats': current.batch_stats}, names)
  trainable = np.array(['running' not in n for n in names])
  np.testing.assert_allclose(teacher[trainable], wanted['teacher_norm'][trainable], rtol=1e-5)


@pytest.mark.slow
def test_self_training_step(golden):
  wanted = golden('self_training_step')
  batch = tuple(int(n) for n in wanted['batch'])
  before = jnp.asarray(wanted['centroids_before'])
  model, tx, initial = start(NAME, state_dict(golden(NAME)['keys']), newer_sgd(), before)
  labels = golden_formula.labels('st_source_labels', batch).astype(np.int32)
  drawn = np.zeros((batch[0], 256), bool)
  for i, image in enumerate(labels):
    present = np.unique(image)
    drawn[i, present[: len(present) // 2]] = True
  mask = mixing.drawn_mask(jnp.asarray(drawn), jnp.asarray(labels))
  np.testing.assert_array_equal(mask, wanted['pasted'].astype(bool))

  plain, mixed, target = (
    golden_formula.image(f'st_{name}', (*batch, 3)) for name in ('source', 'mixed', 'target')
  )
  views = Views(interleave(plain, mixed), target, mixing.paste(mask, plain, target), mask)
  config = StepConfig(self_training_stage('', ''), default.get_config().translator)

  @jax.jit
  def step(current, batch, views):
    return self_training.train_step(
      current, batch, model=model, tx=tx, config=config, view_fn=lambda *_: views
    )

  pseudo_labels = wanted['probability_label'].astype(np.int32)
  after, metrics = step(initial, {'source_label': labels, 'target_label': pseudo_labels}, views)
  found = [float(metrics[k]) for k in ('cross_entropy', 'target', 'distillation')]
  np.testing.assert_allclose(found, wanted['losses'], rtol=RELATIVE)
  moved = np.abs(after.centroids - wanted['centroids_before']).max()
  assert moved > 0
  np.testing.assert_allclose(after.centroids, wanted['centroids_after'], atol=2e-2 * moved)
  coverage = float((wanted['selected'] != 255).mean())
  assert abs(float(metrics['coverage']) - coverage) < 1e-3
  names = wanted['names']
  check_each(movements(NAME, initial, after, names), wanted['student_moved'], names)
