"""Hard-class copy-paste: which images lend their hard classes' pixels to another one.

Source: HIAST (arXiv 2302.06992), docs/hiast.md. Everything is drawn from an index of
the pseudo-labels, without looking at an image: it says which classes every image holds.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from data_pipelines.errors import BadInput


@dataclasses.dataclass(frozen=True, eq=False)
class CopyPaste:
  """Draws donors: images whose hard-class pixels are pasted.

  Raises BadInput on construction if no image holds a hard class.
  """

  counts: np.ndarray  # integer [N, C], pixels of each class in each image's pseudo-label
  confidence: np.ndarray  # float [C], mean of each class's pseudo-labels; 0 for one without any
  hard_classes: int = 14  # how many classes count as hard: those with the lowest confidence
  excluded_classes: Sequence[int] = ()  # never hard (for SYNTHIA: 9, 14 and 16, which it lacks)
  max_donors: int = 1  # published; the paper describes 3
  leave_out: float = 0.1  # share of a class's images, with the fewest pixels of it, not to lend it

  def __post_init__(self) -> None:
    if not any(map(len, self.donors)):
      raise BadInput(
        'copy-paste: no image holds a pseudo-label of a hard class: lower the thresholds of the '
        "label stage's selector, raise copy_paste.hard_classes, or set target_mixing to 'none'"
      )

  @functools.cached_property
  def hard(self) -> np.ndarray:
    """The hard classes, hardest first: int [K]. A class without any label is the hardest."""
    order = np.argsort(self.confidence, kind='stable')
    return order[~np.isin(order, self.excluded_classes)][: self.hard_classes]

  @functools.cached_property
  def donors(self) -> list[np.ndarray]:
    """For each hard class the positions of the images that may lend it, rising in its pixels."""
    found = []
    for pixels in self.counts[:, self.hard].T:
      holding = np.argsort(pixels, kind='stable')[np.count_nonzero(pixels == 0) :]
      found.append(holding[round(len(holding) * self.leave_out) :])
    return found

  @functools.cached_property
  def weights(self) -> np.ndarray:
    """What each hard class is drawn by, [K], not normalised; 0 for one that no image can lend."""
    able = np.array([len(donors) > 0 for donors in self.donors])
    return able * (1 - np.asarray(self.confidence, np.float64)[self.hard]) ** 2

  def draw(self, random: np.random.Generator) -> np.ndarray:
    """The donors for one image: int64 [max_donors], padded with -1.

    A hard class not pasted yet is drawn by (1 - confidence)^2, then one of its donors, which brings
    all of its hard classes along; until half of the hard classes have come, or `max_donors` donors.
    """
    pasted = np.zeros(len(self.hard), bool)
    drawn = np.full(self.max_donors, -1, np.int64)
    for i in range(self.max_donors):
      weights = np.where(pasted, 0, self.weights)
      if not weights.sum():
        break
      drawn[i] = random.choice(self.donors[random.choice(len(weights), p=weights / weights.sum())])
      pasted |= self.counts[drawn[i], self.hard] > 0
      if 2 * pasted.sum() >= len(self.hard):
        break
    return drawn
