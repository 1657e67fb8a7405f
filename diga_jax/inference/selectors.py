"""The selectors of label passes: which pseudo-labels are kept (docs/hiast.md).

A new selector is an entry of `SELECTORS` here, and its fields in configs/stages.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from diga_jax import selection


class Selector(NamedTuple):
  """How a label pass selects. `settings` are those of its stage: a selector reads its own fields.

  Attributes:
    start: (settings, classes, counts) -> the thresholds float32 [C] that the first batch meets.
    select: (settings, confidence, predicted, thresholds) -> (labels, thresholds), under `jax.jit`;
      [H, W] or, if it adapts, [B, H, W].
    counts_first: whether `start` needs the summed `confidence_counts` of the data set, which take
      a pass of their own; else `counts` is None.
    adapts: whether `select` moves the thresholds: it gets `selector_batch` images at a time.
    text: what it keeps, on one line, for `list`.
  """

  start: Callable[[ConfigDict, int, np.ndarray | None], np.ndarray]
  select: Callable[[ConfigDict, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
  counts_first: bool = False
  adapts: bool = False
  text: str = ''


def _equal_thresholds(settings: ConfigDict, classes: int, counts: np.ndarray | None) -> np.ndarray:
  return np.full(classes, settings.threshold, np.float32)


def _by_threshold(
  settings: ConfigDict, confidence: jax.Array, predicted: jax.Array, thresholds: jax.Array
) -> tuple[jax.Array, jax.Array]:
  return selection.by_threshold(confidence, predicted, thresholds), thresholds


SELECTORS: dict[str, Selector] = {
  'none': Selector(
    lambda settings, classes, counts: np.zeros(classes, np.float32),
    lambda settings, confidence, predicted, thresholds: (selection.none(predicted), thresholds),
    text='Keeps every label.',
  ),
  'constant': Selector(
    _equal_thresholds, _by_threshold, text='Keeps labels of a confidence of at least `threshold`.'
  ),
  'cbst': Selector(
    lambda settings, classes, counts: selection.class_balanced_thresholds(counts, settings.share),
    _by_threshold,
    counts_first=True,
    text='Keeps the most confident `share` of each class (CBST).',
  ),
  'ias': Selector(
    _equal_thresholds,
    lambda settings, *maps: selection.instance_adaptive(
      *maps, alpha=settings.alpha, beta=settings.beta, gamma=settings.gamma
    ),
    adapts=True,
    text='Instance adaptive thresholds, which follow images and classes (HIAST).',
  ),
}
