"""Segmentation scores from one confusion matrix [C, C]: rows are truth, columns predictions.

inference/evaluate.py makes the matrix, recipe/evaluation.py writes the scores to metrics.json.
"""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

# Cityscapes train ids; 16 and 13 are the classes of the two SYNTHIA benchmarks.
CLASS_SUBSETS = {
  '19': tuple(range(19)),
  '16': tuple(i for i in range(19) if i not in (9, 14, 16)),
  '13': tuple(i for i in range(19) if i not in (3, 4, 5, 9, 14, 16)),
}


class Means(NamedTuple):
  """Which means of IoUs are reported beside the one over all classes.

  Attributes:
    subsets: name -> class ids.
    divisors: name -> what the sum of a subset's IoUs is divided by, classes that do not occur
      counting as 0 there and in the mean over all. None: plain means over the classes that occur.
  """

  subsets: Mapping[str, Sequence[int]]
  divisors: Mapping[str, int] | None = None


# By class set, where a part of the classes is reported as well.
MEANS = {
  'cityscapes19': Means(CLASS_SUBSETS),
  'synthia16': Means({'16': range(16), '13': (0, 1, 2, *range(6, 16))}),
}
# HIAST's, of Cityscapes' 19 outputs: what is predicted of classes that SYNTHIA lacks counts.
HIAST_MEANS = Means(
  {'19': range(19), '16': range(19), '13': (0, 1, 2, *range(6, 19))}, {'19': 19, '16': 16, '13': 13}
)
WAYS = ('present', 'hiast')  # of taking means; see `class_means`


def class_means(class_set: str, classes: int, way: str) -> Means:
  """The means that are reported of a class set.

  Args:
    class_set: its name, by `label_tables.class_set`.
    classes: C.
    way: 'present' (over the classes that occur) or, of Cityscapes' 19 classes, 'hiast'.

  Source: docs/diga.md section 8.
  """
  if way == 'hiast' and class_set == 'cityscapes19':
    return HIAST_MEANS
  return MEANS.get(class_set, Means({str(classes): range(classes)}))


Array = TypeVar('Array', np.ndarray, jax.Array)


def confusion_matrix(prediction: Array, labels: Array, classes: int) -> Array:
  """Counts pixels by (label, prediction).

  A pixel counts if its label and its prediction are both in 0..classes-1, so ignored labels and
  dropped pseudo-labels (255) do not.

  Args:
    prediction, labels: integer arrays of one shape; both NumPy, or JAX (then it can be jitted).
    classes: C.

  Returns:
    [C, C], rows = labels. NumPy: int64; JAX: int32, so add matrices up on the host.
  """
  bins = classes**2 + 1
  xp = _module_of(prediction, labels)
  prediction, labels = (xp.ravel(a).astype(xp.int32) for a in (prediction, labels))
  counted = (labels >= 0) & (labels < classes) & (prediction >= 0) & (prediction < classes)
  # Pixels that do not count fall into one bin of their own at the end: static shapes.
  index = xp.where(counted, labels * classes + prediction, classes**2)
  counts = np.bincount(index, minlength=bins) if xp is np else jnp.bincount(index, length=bins)
  return xp.asarray(counts)[:-1].reshape(classes, classes)


def _module_of(*arrays: np.ndarray | jax.Array) -> ModuleType:
  return np if all(isinstance(array, np.ndarray) for array in arrays) else jnp


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
  return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float:
  values = values[~np.isnan(values)]
  return float(values.mean()) if values.size else float('nan')


def iou(confusion: np.ndarray | jax.Array) -> np.ndarray:
  """Intersection over union, float64 [C]; nan for a class in neither truth nor prediction."""
  confusion = np.asarray(confusion, np.float64)
  hit = np.diag(confusion)
  return _ratio(hit, confusion.sum(0) + confusion.sum(1) - hit)


def summary(confusion: np.ndarray | jax.Array, means: Means | None = None) -> dict[str, Any]:
  """All scores as fractions, not per cent; means leave out classes whose score is nan.

  Args:
    confusion: [C, C].
    means: over which subsets, and whether nan counts as 0; None: over all classes that occur.

  Returns:
    iou [C]; mean_iou over all classes; mean_iou_NAME for each of `means`; accuracy (of pixels);
    mean_accuracy (of classes, those in the truth); fw_accuracy (IoU weighted by the classes'
    frequency in the truth). Scalars are Python floats.
  """
  confusion = np.asarray(confusion, np.float64)
  per_class, hit, truth = iou(confusion), np.diag(confusion), confusion.sum(1)
  total = np.asarray(confusion.sum())
  scores: dict[str, Any] = {'iou': per_class, 'mean_iou': _mean(per_class)}
  means = means or Means({})
  if means.divisors:
    scores['mean_iou'] = float(np.nansum(per_class)) / len(per_class)
  for name, classes in means.subsets.items():
    part = per_class[list(classes)]
    divided = means.divisors and float(np.nansum(part)) / means.divisors[name]
    scores[f'mean_iou_{name}'] = _mean(part) if divided is None else divided
  scores['accuracy'] = float(_ratio(np.asarray(hit.sum()), total))
  scores['mean_accuracy'] = _mean(_ratio(hit, truth))
  frequency = _ratio(truth, np.broadcast_to(total, truth.shape))
  scores['fw_accuracy'] = float(np.sum(np.where(truth > 0, frequency * per_class, 0)))
  return scores
