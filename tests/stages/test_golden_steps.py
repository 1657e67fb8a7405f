"""The training steps against what the published code computes, with DeepLabV2-ResNet101 whole."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
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


def state_dict(keys) -> dict[str, np.ndarray]:
  """Tensors from the formula for 'name|shape' entries."""
  entries = (key.split('|') for key in keys)
  return {
    name: golden_formula.tensor(name, tuple(map(int, filter(None, shape.split(',')))))
    for name, shape in entries
  }


def start(name: str, tensors, settings, centroids=(), **options):
  """The network of given tensors without dropout, its optimizer and the state at step 0.

  The optimizer keeps the gradients that it was last given: its state is (its own, gradients).
  """
  model = models.build(name, dropout=0.0, **options)
  variables = weights.from_torch(name, tensors, **options)
  tx = recording(optimizer.build(settings, variables['params']))
  initial = state.create(
    jax.random.key(0),
    variables['params'],
    tx,
    batch_stats=variables['batch_stats'],
    centroids=centroids,
  )
  return model, tx, initial


def recording(tx: optax.GradientTransformation) -> optax.GradientTransformation:
  def update(grads, opt_state, params):
    updates, inner = tx.update(grads, opt_state[0], params)
    return updates, (inner, grads)

  return optax.GradientTransformation(lambda params: (tx.init(params), params), update)


def norms(name: str, tree, names) -> np.ndarray:
  """The norm of every tensor, by PyTorch name; tree: {'params', 'batch_stats'}."""
  found = weights.to_torch(name, tree)
  return np.array([np.linalg.norm(found[n].astype(np.float64)) for n in names])


def tree_of(current):
  return {'params': current.params, 'batch_stats': current.batch_stats}


def movements(name: str, before, after, names) -> np.ndarray:
  """The norm of every tensor's movement between two states, by PyTorch name."""
  moved = jax.tree.map(lambda a, b: np.asarray(b, np.float64) - a, tree_of(before), tree_of(after))
  return norms(name, moved, names)


def gradients(name: str, after, names) -> np.ndarray:
  """The norm of every gradient of the last step; of the statistics nan.

  Frozen parameters have one as well, which is not used.
  """
  none = jax.tree.map(lambda x: np.full_like(x, np.nan), after.batch_stats)
  return norms(name, {'params': after.opt_state[1], 'batch_stats': none}, names)


def check_each(found: np.ndarray, wanted: np.ndarray, names, tolerance: float = 5e-3) -> None:
  """Every entry within rounding, relative to itself, and exactly 0 where it is."""
  still = wanted == 0
  np.testing.assert_array_equal(found[still], 0)
  error = np.abs(found - wanted)[~still] / wanted[~still]
  worst = int(error.argmax())
  assert error.max() < tolerance, f'{names[~still][worst]}: {error.max()}'


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
