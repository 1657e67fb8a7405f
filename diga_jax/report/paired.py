"""Networks against each other over seeds and images: differences, intervals, corrections.

Two networks of one seed are measured on the same images, so their difference is taken seed by seed
and, in the intervals, image by image. Of fewer than `FEWEST` seeds no spread over seeds is told.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import rich.table
import scipy.stats

from diga_jax.report import tables
from diga_jax.types import ImageCounts

FEWEST = 3  # seeds
RESAMPLES = 4000
SAME = 1e-9  # differences that are rounding


class Difference(NamedTuple):
  """A row minus a reference, as fractions.

  Attributes:
    by_seed: of each seed.
    mean, interquartile: over the seeds.
    low, high: 95% interval of the mean, over seeds and images.
    improves: probability that a seed of the row is above a seed of the reference.
    p: of the paired t-test over the seeds, None for fewer than `FEWEST` or if they do not differ.
  """

  by_seed: list[float]
  mean: float
  interquartile: float
  low: float
  high: float
  improves: float
  p: float | None


def mean_iou(counts: ImageCounts, weights: np.ndarray, classes: Sequence[int]) -> np.ndarray:
  """The mean IoU of every seed, float64 [seeds]; classes that no image holds are left out.

  Args:
    counts: of one network.
    weights: how often each image counts, [images].
    classes: whose IoUs are averaged.
  """
  hit, union = (np.einsum('n,snc->sc', weights, part[..., classes]) for part in counts)
  return np.nanmean(np.where(union > 0, hit / np.maximum(union, 1), np.nan), axis=1)


def difference(row: ImageCounts, reference: ImageCounts, classes: Sequence[int]) -> Difference:
  """A row against a reference that was measured with the same seeds on the same images.

  The interval is the percentile bootstrap's; seeds and images are drawn together, the same ones
  for both (Efron and Tibshirani 1993, chapter 13). `improves` is the share of pairs of seeds in
  which the row is above, ties counting half (Agarwal et al., arXiv 2108.13264).
  """
  seeds, images = row.union.shape[:2]

  def gain(drawn_seeds: np.ndarray, drawn_images: np.ndarray) -> float:
    weights = np.bincount(drawn_images, minlength=images)
    apart = mean_iou(row, weights, classes) - mean_iou(reference, weights, classes)
    return float(apart[drawn_seeds].mean())

  found = scipy.stats.bootstrap(
    (np.arange(seeds), np.arange(images)),
    gain,
    vectorized=False,
    n_resamples=RESAMPLES,
    method='percentile',
    rng=np.random.default_rng(0),
  ).confidence_interval
  ours, theirs = (mean_iou(part, np.ones(images), classes) for part in (row, reference))
  apart = ours - theirs
  above = scipy.stats.mannwhitneyu(ours, theirs).statistic / seeds**2
  p = None
  if seeds >= FEWEST and np.ptp(apart) > SAME:
    p = float(scipy.stats.ttest_rel(ours, theirs).pvalue)
  return Difference(
    by_seed=apart.tolist(),
    mean=float(apart.mean()),
    interquartile=float(scipy.stats.trim_mean(apart, 0.25)),
    low=float(found.low),
    high=float(found.high),
    improves=float(above),
    p=p,
  )


def over_images(
  row: ImageCounts, reference: ImageCounts, classes: Sequence[int]
) -> tuple[float, float] | None:
  """The 95% interval of a row minus a reference over the images, with their seeds as they are.

  As of `difference`, but for as few as one seed; None for fewer than two images.
  """
  images = row.union.shape[1]
  if images < 2:
    return None

  def gain(drawn: np.ndarray) -> float:
    weights = np.bincount(drawn, minlength=images)
    return float((mean_iou(row, weights, classes) - mean_iou(reference, weights, classes)).mean())

  found = scipy.stats.bootstrap(
    (np.arange(images),),
    gain,
    vectorized=False,
    n_resamples=RESAMPLES,
    method='percentile',
    rng=np.random.default_rng(0),
  ).confidence_interval
  return float(found.low), float(found.high)


def corrected(found: Mapping[str, Difference]) -> dict[str, float | None]:
  """The p of every row, by Holm's correction for the number of rows."""
  from statsmodels.stats.multitest import multipletests  # a second that no other command needs

  known = {name: row.p for name, row in found.items() if row.p is not None}
  adjusted = multipletests(list(known.values()), method='holm')[1] if known else []
  return dict.fromkeys(found) | dict(zip(known, map(float, adjusted), strict=True))


def table(found: Mapping[str, Difference], reference: str) -> rich.table.Table:
  """The differences of the rows to a reference, in points; p is corrected for their number."""
  adjusted = corrected(found)
  result = tables.markdown_table(
    f'minus {reference}', 'mIoU', '95% interval', 'middle half', 'improves', 'p (Holm)'
  )
  for name, row in found.items():
    p = adjusted[name]
    result.add_row(
      name,
      f'{100 * row.mean:+.1f}',
      f'{100 * row.low:+.1f} to {100 * row.high:+.1f}',
      f'{100 * row.interquartile:+.1f}',
      f'{row.improves:.2f}',
      '-' if p is None else f'{p:.3f}',
    )
  return result
