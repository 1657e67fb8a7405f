"""Keys that belong to the example: the same on any number of devices and after any restart."""

import zlib

import jax
import jax.numpy as jnp

# The independent uses of randomness in a step. A new use gets a new name at the end, so that
# existing runs keep their draws.
STREAMS = (
  'source_view', 'target_view', 'jitter_order', 'source_classes', 'target_classes',
  'student_dropout', 'teacher_dropout', 'target_dropout', 'mixed_dropout', 'strong_view',
)  # fmt: skip


def root_key(seed: int, stage: str) -> jax.Array:
  """The root key of a stage, by its name; those of one seed share no draw."""
  return jax.random.fold_in(jax.random.key(seed), zlib.crc32(stage.encode()))


def initial_key(seed: int, network: str) -> jax.Array:
  """The key by which a network starts at random; no stage is called so."""
  return root_key(seed, f'initial/{network}')


def stream_key(key: jax.Array, step: jax.Array, name: str) -> jax.Array:
  """The key of one use of randomness at one step of a stage, common to the whole batch."""
  return jax.random.fold_in(jax.random.fold_in(key, step), STREAMS.index(name))


def example_keys(
  key: jax.Array, step: jax.Array, name: str, batch: int, axis_name: str | None = None
) -> jax.Array:
  """[batch] keys, each depending only on (root key, step, name, position in the global batch)."""
  first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * batch
  positions = first + jnp.arange(batch)
  return jax.vmap(jax.random.fold_in, (None, 0))(stream_key(key, step, name), positions)
