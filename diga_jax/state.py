"""Everything about a training run that must survive: the state that steps map to states."""

import jax
import jax.numpy as jnp
import optax
from flax import struct

from diga_jax.parallel import collectives
from diga_jax.types import Params, PyTree

NETWORKS = {'student': 'params', 'teacher': 'teacher'}  # -> the field with its parameters


class TrainState(struct.PyTreeNode, kw_only=True):
  """One pytree for every stage; what a stage does not use is an empty tuple."""

  step: jax.Array  # int32 [], the number of steps taken
  params: Params  # what the optimizer trains; for the translator a dict of its networks' parameters
  batch_stats: PyTree = ()  # the student's BatchNorm running statistics
  opt_state: optax.OptState
  teacher: Params = ()  # the EMA teacher's parameters; it has no statistics of its own
  centroids: PyTree = ()  # [C, D] class centroids (self-training only)
  discriminator: PyTree = ()  # {'params', 'opt_state'} of the adversarial warm-up's discriminator
  key: jax.Array  # the stage's root key; a step derives its keys from it and never replaces it


def create(
  key: jax.Array,
  params: Params,
  tx: optax.GradientTransformation,
  *,
  batch_stats: PyTree = (),
  centroids: PyTree = (),
  discriminator: PyTree = (),
) -> TrainState:
  """The state of a segmentation stage at step 0: a fresh optimizer, a teacher like the student.

  The teacher is a copy: the same buffers twice in a donated argument are an error in JAX.
  """
  return TrainState(
    step=jnp.int32(0),
    params=params,
    batch_stats=batch_stats,
    opt_state=tx.init(params),
    teacher=jax.tree.map(jnp.copy, params),
    centroids=centroids,
    discriminator=discriminator,
    key=key,
  )


def apply_gradients(
  state: TrainState,
  grads: Params,
  tx: optax.GradientTransformation,
  axis_name: str | None = None,
  **changes: PyTree,
) -> TrainState:
  """The state one step on: the optimizer's update, and the other fields that `changes` names."""
  params, opt_state = update_params(state.params, state.opt_state, grads, tx, axis_name)
  return state.replace(step=state.step + 1, params=params, opt_state=opt_state, **changes)


def update_params(
  params: Params,
  opt_state: optax.OptState,
  grads: Params,
  tx: optax.GradientTransformation,
  axis_name: str | None = None,
) -> tuple[Params, optax.OptState]:
  """Parameters and optimizer state after a step along the mean of all devices' gradients."""
  updates, opt_state = tx.update(collectives.mean(grads, axis_name), opt_state, params)
  return optax.apply_updates(params, updates), opt_state
