"""The few places where a step looks beyond its own examples.

Under `jax.jit` a batch is the global one, sharded over the mesh, and the compiler puts in what has
to be exchanged: `axis_name` is None, and these functions return what they are given. Under
`jax.pmap` a step sees one device's share, and `axis_name` names the axis to exchange over. All
devices hold equally many examples.
"""

import jax

from diga_jax.types import PyTree


def mean(tree: PyTree, axis_name: str | None) -> PyTree:
  """The mean over devices of every array: of means over examples, the mean over all of them."""
  return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def total(x: jax.Array, axis_name: str | None) -> jax.Array:
  """The sum over devices."""
  return x if axis_name is None else jax.lax.psum(x, axis_name)


def gather(x: jax.Array, axis_name: str | None) -> jax.Array:
  """[b, ...] of one device -> [B, ...] of all, in the order of the examples."""
  return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)


def devices(axis_name: str | None) -> int:
  """Over how many devices the batch is spread, as far as the step knows."""
  return 1 if axis_name is None else jax.lax.axis_size(axis_name)
