"""Criteria by which a checkpoint is chosen without labels: numbers of each image, higher is better.

B = images, H x W = pixels, C = classes, N = sampled pixels.
"""

import jax
import jax.numpy as jnp

from data_pipelines.label_tables import IGNORE
from diga_jax import selection

UNLABELLED = AGREEMENT, CONSENSUS, DENSITY = 'agreement', 'consensus', 'density'
ORACLE = 'oracle'  # mIoU on the first evaluation set, by its labels
NAMES = (*UNLABELLED, ORACLE)
LAST = 'last'  # no criterion: the last step
TEMPERATURE = 0.05  # of `density`, as published


def agreement(student: jax.Array, teacher: jax.Array) -> jax.Array:
  """The share of each image's pixels to which two networks give the same class: float32 [B].

  Args:
    student, teacher: predicted classes, integer [B, H, W].
  """
  return _share(student == teacher)


def consensus(labels: jax.Array, weights: jax.Array, rank: int = 1) -> jax.Array:
  """The share of each image's pixels whose label passes the bilateral consensus: float32 [B].

  Args:
    labels: predicted classes, integer [B, H, W].
    weights, rank: as of `selection.ranked_consensus`.
  """
  return _share(selection.ranked_consensus(labels, weights, rank) != IGNORE)


def _share(chosen: jax.Array) -> jax.Array:
  # Counted in integers: float32 sums are exact to 2^24 pixels only.
  _, height, width = chosen.shape
  return jnp.sum(chosen, (1, 2), dtype=jnp.int32) / (height * width)


def density(probabilities: jax.Array, temperature: float = TEMPERATURE) -> jax.Array:
  """Soft neighbourhood density of each image: float32 [B], from 0 to log(N - 1).

  For every sampled pixel the softmax over its cosine similarities to the others, divided by the
  temperature; then the entropy of that distribution, averaged over the pixels. It is high where
  many pixels have the same few neighbours: predictions in dense clusters.

  Args:
    probabilities: softmax outputs of the sampled pixels, float [B, N, C]; N is at least 2.
    temperature: published 0.05.

  Source: Saito et al., "Tune it the Right Way: Unsupervised Validation of Domain Adaptation via
  Soft Neighborhood Density", ICCV 2021, arXiv 2108.10860.
  """
  unit = probabilities / jnp.linalg.norm(probabilities, axis=-1, keepdims=True)
  similar = jnp.einsum('bnc,bmc->bnm', unit, unit, precision=jax.lax.Precision.HIGHEST)
  itself = jnp.eye(similar.shape[-1], dtype=bool)
  scaled = jnp.where(itself, -jnp.inf, similar / temperature)
  log_share = jnp.where(itself, 0, jax.nn.log_softmax(scaled))
  return -jnp.mean(jnp.sum(jnp.where(itself, 0, jnp.exp(log_share)) * log_share, -1), -1)
