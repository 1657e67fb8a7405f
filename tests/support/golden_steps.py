"""Whole steps against golden arrays: what they start from, and what is compared."""

import jax
import numpy as np
import optax

from diga_jax import models, optimizer, state, weights
from tests.support import golden_formula


def state_dict(keys, prefix: str = '') -> dict[str, np.ndarray]:
  """Tensors from the formula, under `prefix` + name, for 'name|shape' entries."""
  entries = (key.split('|') for key in keys)
  return {
    name: golden_formula.tensor(prefix + name, tuple(map(int, filter(None, shape.split(',')))))
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
