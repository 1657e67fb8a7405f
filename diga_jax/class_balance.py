"""How the pixels of labels or predictions are spread over the classes, and what is odd about it.

Self-training that goes wrong shows here first: a class that is no longer labelled is no longer
learnt, and one that swallows the others is learnt everywhere.
"""

from collections.abc import Mapping, Sequence

import numpy as np

FALLEN = 0.1  # of its first share: a class that has less is all but lost
DOMINANT = 0.4  # of the pixels, and
GROWN = 1.5  # times its first share: a class that has as much swallows the others
BINS = 50  # of a histogram of shares or confidences
SAMPLES = 1000  # values that stand for a histogram
LEAST = 1e-4  # first shares below this are a few objects, which may come and go


def shares(counts: np.ndarray | Sequence[float]) -> np.ndarray:
  """Counts of pixels [C], or what is proportional to them, over their sum; 0 without a pixel."""
  counts = np.asarray(counts, np.float64)
  total = counts.sum()
  return counts / total if total > 0 else np.zeros_like(counts)


def entropy(counts: np.ndarray | Sequence[float]) -> float:
  """The entropy of the classes [C] over ln C: 1 if all are equally frequent, 0 for one alone."""
  found = shares(counts)
  present = found[found > 0]
  if len(found) < 2 or not len(present):
    return 0.0
  return float(-(present * np.log(present)).sum() / np.log(len(found)))


def classes_present(counts: np.ndarray | Sequence[float]) -> int:
  """How many classes have a pixel."""
  return int(np.count_nonzero(np.asarray(counts)))


def oddities(
  now: np.ndarray | Sequence[float],
  first: np.ndarray | Sequence[float],
  names: Sequence[str],
  what: str,
  before: str,
) -> dict[str, str]:
  """Classes that are all but lost, or swallow the others, and a text about each.

  Args:
    now, first: counts [C], or shares.
    names: of the classes.
    what: is counted now, such as 'pseudo-labels'.
    before: where `first` is from, as it follows a number, such as 'in label_1'.

  Returns:
    class -> text; '' -> text if there is no pixel at all.
  """
  share, reference = shares(now), shares(first)
  if not share.any():
    return {'': f'there are no {what} at all'} if reference.any() else {}
  found = {}
  for name, has, had in zip(names, share, reference, strict=True):
    if had >= LEAST and has < FALLEN * had:
      found[name] = f'{name} falls to {percent(has)} of the {what}, {percent(had)} {before}'
    elif has >= DOMINANT and has >= GROWN * had:
      found[name] = f'{name} takes {percent(has)} of the {what}, {percent(had)} {before}'
  return found


def bin_of(share: np.ndarray) -> np.ndarray:
  """Which of the `BINS` equal bins of [0, 1] shares or confidences lie in."""
  return np.minimum((share * BINS).astype(int), BINS - 1)


def samples(counts: np.ndarray | Sequence[int]) -> np.ndarray:
  """Values that are spread as the counts of the bins of [0, 1] tell; at most `SAMPLES`.

  Writers of histograms take values, and an image has too many.
  """
  ends = np.cumsum(np.asarray(counts, np.float64))
  number = int(min(SAMPLES, ends[-1]))
  places = (np.arange(number) + 0.5) / max(number, 1) * ends[-1]
  return (np.searchsorted(ends, places, 'right') + 0.5) / len(ends)


def percent(share: float) -> str:
  """A share with two digits at least: 41%, 2.4%, 0.031%."""
  return f'{100 * share:.0f}%' if share >= 0.1 else f'{100 * share:.2g}%'


def by_name(values: np.ndarray | Sequence[float], names: Sequence[str]) -> Mapping[str, float]:
  """Values [C] with their names, for a record."""
  return dict(zip(names, map(float, values), strict=True))
