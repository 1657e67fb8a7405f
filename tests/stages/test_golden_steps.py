"""The training steps against what the published code computes, with DeepLabV2-ResNet101 whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diga_jax import mixing, models, optimizer, state, weights
from diga_jax.configs import default, optimizers
from diga_jax.configs.stages import self_training_stage, warmup_stage
from diga_jax.stages import self_training, warmup
from diga_jax.stages.forward import interleave
from diga_jax.stages.views import Views
from diga_jax.types import StepConfig
from tests.support import golden_formula

NAME = 'deeplab_resnet101'
RELATIVE = 1e-3  # of the largest value: float32 through a hundred layers


def start(keys, total: int, centroids=()):
  """The network with weights from the formula, its published optimizer and the state at step 0."""
  model = models.build(NAME, dropout=0.0)
  entries = (key.split('|') for key in keys)
  found = {
    name: golden_formula.tensor(name, tuple(map(int, filter(None, shape.split(',')))))
    for name, shape in entries
  }
  variables = weights.from_torch(NAME, found)
  settings = optimizers.sgd().to_dict() | {'decay_steps': total}
  tx = optimizer.build(settings, variables['params'])
  initial = state.create(
    jax.random.key(0),
    variables['params'],
    tx,
    batch_stats=variables['batch_stats'],
    centroids=centroids,
  )
  return model, tx, initial


def movements(before, after, names) -> np.ndarray:
  """The norm of every tensor's movement, by PyTorch name."""

  def flat(s):
    return weights.to_torch(NAME, {'params': s.params, 'batch_stats': s.batch_stats})

  old, new = flat(before), flat(after)
  return np.array([np.linalg.norm(new[n].astype(np.float64) - old[n]) for n in names])


def check_movements(found: np.ndarray, wanted: np.ndarray, names) -> None:
  """Each tensor's movement within rounding, and exactly none where there is none."""
  still = wanted == 0
  np.testing.assert_array_equal(found[still], 0)
  error = np.abs(found - wanted)[~still] / wanted[~still]
  worst = int(error.argmax())
  assert error.max() < 5e-3, f'{names[~still][worst]}: {error.max()}'


@pytest.mark.slow
def test_two_warmup_steps(golden):
  wanted = golden('warmup_steps')
  batch = tuple(int(n) for n in wanted['batch'])
  model, tx, initial = start(golden(NAME)['keys'], total=80_000)
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

  check_movements(
    movements(initial, current, wanted['names']), wanted['student_moved'], wanted['names']
  )
  trained = weights.to_torch(NAME, {'params': current.params, 'batch_stats': current.batch_stats})
  np.testing.assert_allclose(trained['layer0.0.weight'], wanted['conv1'], atol=1e-5)
  teacher = weights.to_torch(NAME, {'params': current.teacher, 'batch_stats': current.batch_stats})
  norms = [np.linalg.norm(teacher[n].astype(np.float64)) for n in wanted['names']]
  trainable = np.array(['running' not in n for n in wanted['names']])
  np.testing.assert_allclose(
    np.array(norms)[trainable], wanted['teacher_norm'][trainable], rtol=1e-5
  )


@pytest.mark.slow
def test_self_training_step(golden):
  wanted = golden('self_training_step')
  batch = tuple(int(n) for n in wanted['batch'])
  before = jnp.asarray(wanted['centroids_before'])
  model, tx, initial = start(golden(NAME)['keys'], total=80_000, centroids=before)
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
  check_movements(
    movements(initial, after, wanted['names']), wanted['student_moved'], wanted['names']
  )
