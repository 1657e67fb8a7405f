"""A pass of the network inside a training step, and pairs of views in one batch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from diga_jax import resize
from diga_jax.types import Params, PyTree, SegmentationNet


class Output(NamedTuple):
  """What a pass gives; examples in the order of the images, for pairs of views interleaved."""

  heads: tuple[jax.Array, ...]  # logits [B, H, W, C] at image size: main and, if any, auxiliary
  logits: jax.Array  # the main ones at the network's stride [B, h, w, C]
  feature: jax.Array  # [B, h, w, D]
  batch_stats: PyTree  # the running statistics, moved if `train`


def forward(
  model: SegmentationNet,
  params: Params,
  batch_stats: PyTree,
  images: jax.Array,
  keys: jax.Array | None = None,
  *,
  train: bool = True,
) -> Output:
  """A pass over normalised images [B, H, W, 3].

  Args:
    keys: [B] keys for dropout; None for none.
    train: by batch statistics, which move the running ones; else by the running statistics.
  """
  variables = {'params': params, 'batch_stats': batch_stats}
  outputs, moved = model.apply(variables, images, train=train, keys=keys, mutable=['batch_stats'])
  heads = (outputs[name] for name in ('logits', 'auxiliary_logits') if name in outputs)
  return Output(
    tuple(resize.align_corners(logits, images.shape[1:3]) for logits in heads),
    outputs['logits'],
    outputs['feature'],
    moved.get('batch_stats', batch_stats),
  )


def interleave(a: jax.Array, b: jax.Array) -> jax.Array:
  """Two [B, ...] -> [2B, ...], pairs side by side.

  Concatenating would move examples between devices (an all-to-all); this moves nothing, and
  BatchNorm over the 2B images does not depend on their order.
  """
  return jnp.stack([a, b], axis=1).reshape(-1, *a.shape[1:])


def deinterleave(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The inverse of `interleave`."""
  first, second = jnp.unstack(x.reshape(-1, 2, *x.shape[1:]), axis=1)
  return first, second


def second_view(output: Output) -> Output:
  """Of a pass over interleaved pairs, what it gave for the second image of each."""
  second = jax.tree.map(lambda x: deinterleave(x)[1], output._replace(batch_stats=()))
  return second._replace(batch_stats=output.batch_stats)
