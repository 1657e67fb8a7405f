"""Everything about a training run that must survive: the state that steps map to states."""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax

from diga_jax.parallel import collectives


@flax.struct.dataclass
class TrainState:
  """One pytree for every stage; what a stage does not use is an empty tuple.

  Attributes:
    step: int32 [], the number of steps taken.
    params: what the optimizer trains; for the translator a dict of its networks' parameters.
    batch_stats: the student's BatchNorm running statistics.
    opt_state: the optimizer's state.
    teacher: the EMA teacher's parameters (the teacher has no statistics of its own).
    centroids: [C, D] class centroids (self-training only).
    discriminator: {'params', 'opt_state'} of the adversarial warm-up's discriminator.
    key: the run's root key; a step derives its keys from it and never replaces it.
  """

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: optax.OptState
  teacher: Any
  centroids: Any
  discriminator: Any
  key: jax.Array


def create(
  key: jax.Array,
  params: Any,
  tx: optax.GradientTransformation,
  *,
  batch_stats: Any = (),
  with_teacher: bool = True,
  centroids: Any = (),
  discriminator: Any = (),
) -> TrainState:
  """The state at step 0: a fresh optimizer, and a teacher equal to the student.

  The teacher is a copy: the same buffers twice in a donated argument are an error in JAX.
  """
  return TrainState(
    step=jnp.int32(0),
    params=params,
    batch_stats=batch_stats,
    opt_state=tx.init(params),
    teacher=jax.tree.map(jnp.copy, params) if with_teacher else (),
    centroids=centroids,
    discriminator=discriminator,
    key=key,
  )


def descend(
  state: TrainState,
  grads: Any,
  tx: optax.GradientTransformation,
  axis_name: str | None = None,
  **moved: Any,
) -> TrainState:
  """The state one step on: the optimizer's update, and the other fields that `moved` names."""
  params, opt_state = update(state.params, state.opt_state, grads, tx, axis_name)
  return state.replace(step=state.step + 1, params=params, opt_state=opt_state, **moved)


def update(
  params: Any,
  opt_state: optax.OptState,
  grads: Any,
  tx: optax.GradientTransformation,
  axis_name: str | None = None,
) -> tuple[Any, optax.OptState]:
  """Parameters and optimizer state after a step along the gradients of all devices."""
  updates, opt_state = tx.update(collectives.mean(grads, axis_name), opt_state, params)
  return optax.apply_updates(params, updates), opt_state
