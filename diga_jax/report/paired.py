"""Networks over seeds and images, and against each other: means, differences, intervals.

Two networks of one seed are measured on the same images, so their difference is taken seed by seed
and, in the intervals, image by image. Of fewer than `FEWEST` seeds no spread over seeds is told.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import rich.table
import scipy.stats

from diga_jax.report import tables
from diga_jax.types import ImageCounts

FEWEST = 3  # seeds
RESAMPLES = 4000
SAME = 1e-9  # differences that are rounding


class Average(NamedTuple):
  """A mean of IoUs.

  Attributes:
    classes: whose.
    divisor: of their sum, where classes that no image holds count as 0; None: the number of those
      that some image holds.
  """

  classes: Sequence[int]
  divisor: int | None = None


class Interval(NamedTuple):
  """A number with its 95% interval over seeds and images; None: it cannot be told."""

  mean: float | None
  low: float | None
  high: float | None


class Score(NamedTuple):
  """The mIoU of a row, as fractions.

  Attributes:
    by_seed: of each seed.
    mean, interquartile: over the seeds.
    low, high: 95% interval of the mean, over seeds and images; None with one image.
  """

  by_seed: list[float]
  mean: float
  interquartile: float
  low: float | None
  high: float | None


class Difference(NamedTuple):
  """A row minus a reference, as fractions.

  Attributes:
    by_seed, mean, interquartile, low, high: as of `Score`.
    improves: probability that a seed of the row is above a seed of the reference; None for one.
    p: of the paired t-test over the seeds, None for fewer than `FEWEST` or if they do not differ.
  """

  by_seed: list[float]
  mean: float
  interquartile: float
  low: float | None
  high: float | None
  improves: float | None
  p: float | None


def mean_iou(counts: ImageCounts, weights: np.ndarray, average: Average) -> np.ndarray:
  """The mean IoU of every seed, float64 [seeds].

  Args:
    counts: of one network.
    weights: how often each image counts, [images].
    average: which mean.
  """
  return _mean_iou(_averaged(counts, average), weights, average.divisor)


def _averaged(counts: ImageCounts, average: Average) -> ImageCounts:
  """The counts of the classes of a mean, as float64: exact, and multiplied quickly."""
  return ImageCounts(*(part[..., list(average.classes)].astype(np.float64) for part in counts))


def _mean_iou(counts: ImageCounts, weights: np.ndarray, divisor: int | None) -> np.ndarray:
  hit, union = (weights.astype(np.float64) @ part for part in counts)
  found = np.where(union > 0, hit / np.maximum(union, 1), np.nan)
  return np.nanmean(found, axis=1) if divisor is None else np.nansum(found, axis=1) / divisor


def score(row: ImageCounts, average: Average) -> Score:
  """The mIoU of a row; the interval is that of `interval`."""
  by_seed = mean_iou(row, np.ones(row.union.shape[1]), average)
  found = interval([row], average, lambda own: own)
  return Score(by_seed.tolist(), float(by_seed.mean()), _interquartile(by_seed), *found[1:])


def difference(row: ImageCounts, reference: ImageCounts, average: Average) -> Difference:
  """A row against a reference that was measured with the same seeds on the same images.

  `improves` is the share of pairs of seeds in which the row is above, ties counting half (Agarwal
  et al., arXiv 2108.13264).
  """
  ours, theirs = (
    mean_iou(part, np.ones(part.union.shape[1]), average) for part in (row, reference)
  )
  apart, seeds = ours - theirs, len(ours)
  p, above = None, None
  if seeds >= FEWEST and np.ptp(apart) > SAME:
    p = float(scipy.stats.ttest_rel(ours, theirs).pvalue)
  if seeds > 1:
    above = float(scipy.stats.mannwhitneyu(ours, theirs).statistic / seeds**2)
  found = interval([row, reference], average, lambda own, other: own - other)
  return Difference(
    by_seed=apart.tolist(),
    mean=float(apart.mean()),
    interquartile=_interquartile(apart),
    low=found.low,
    high=found.high,
    improves=above,
    p=p,
  )


def gap_closed(
  row: ImageCounts, lower: ImageCounts, upper: ImageCounts, average: Average
) -> Interval:
  """How much of the way from `lower` to `upper` a row has gone: (row - lower) / (upper - lower).

  Nothing is told if the interval of upper - lower holds 0: the share would be any number.
  """
  apart = interval([upper, lower], average, lambda high, low: high - low)
  if apart.mean is None or apart.low is None or apart.high is None or apart.low <= 0 <= apart.high:
    return Interval(None, None, None)
  return interval([row, lower, upper], average, lambda own, low, high: (own - low) / (high - low))


def interval(
  rows: Sequence[ImageCounts], average: Average, statistic: Callable[..., float]
) -> Interval:
  """A statistic of the mIoUs of rows, with the 95% interval of the percentile bootstrap.

  Seeds and images are drawn together, the same ones for all rows (Efron and Tibshirani 1993,
  chapter 13); of one seed the images alone.

  Args:
    rows: measured with the same seeds on the same images.
    average: which mIoU.
    statistic: the rows' mIoUs, each the mean over the seeds -> number.
  """
  seeds, images = rows[0].union.shape[:2]
  averaged = [_averaged(row, average) for row in rows]

  def found(drawn_images: np.ndarray, drawn_seeds: np.ndarray | None = None) -> float:
    weights = np.bincount(drawn_images, minlength=images)
    each = (_mean_iou(row, weights, average.divisor) for row in averaged)
    return float(statistic(*(own[drawn_seeds].mean() for own in each)))

  mean = found(np.arange(images))
  if images == 1:
    return Interval(mean, None, None)
  drawn = (np.arange(images), np.arange(seeds))[: 1 + (seeds > 1)]
  ends = scipy.stats.bootstrap(
    drawn,
    found,
    vectorized=False,
    n_resamples=RESAMPLES,
    method='percentile',
    rng=np.random.default_rng(0),
  ).confidence_interval
  return Interval(mean, float(ends.low), float(ends.high))


def _interquartile(values: np.ndarray) -> float:
  return float(scipy.stats.trim_mean(values, 0.25))


def corrected(found: Mapping[str, Difference]) -> dict[str, float | None]:
  """The p of every row, by Holm's correction for the number of rows."""
  from statsmodels.stats.multitest import multipletests  # a second that no other command needs

  known = {name: row.p for name, row in found.items() if row.p is not None}
  adjusted = multipletests(list(known.values()), method='holm')[1] if known else []
  return dict.fromkeys(found) | dict(zip(known, map(float, adjusted), strict=True))


def score_table(found: Mapping[str, Score]) -> rich.table.Table:
  """The scores of the rows, in per cent."""
  result = tables.markdown_table('network', 'mIoU', '95% interval', 'middle half')
  for name, row in found.items():
    cells = (_text(100, row.mean, '.1f'), _ends(row, '.1f'), _text(100, row.interquartile, '.1f'))
    result.add_row(name, *cells)
  return result


def table(
  found: Mapping[str, Difference], reference: str, gaps: Mapping[str, Interval] | None = None
) -> rich.table.Table:
  """The differences of the rows to a reference, in points; p is corrected for their number.

  Args:
    found: by row.
    reference: its name.
    gaps: how much of the gap each row closes; None: without that column.
  """
  adjusted, gap = corrected(found), ['gap closed, %'] * (gaps is not None)
  result = tables.markdown_table(
    f'minus {reference}', 'mIoU', '95% interval', 'middle half', 'improves', 'p (Holm)', *gap
  )
  for name, row in found.items():
    closed = gaps[name] if gaps else Interval(None, None, None)
    result.add_row(
      name,
      _text(100, row.mean, '+.1f'),
      _ends(row, '+.1f'),
      _text(100, row.interquartile, '+.1f'),
      _text(1, row.improves, '.2f'),
      _text(1, adjusted[name], '.3f'),
      *[_gap(closed)] * len(gap),
    )
  return result


def _gap(closed: Interval) -> str:
  if closed.mean is None or closed.low is None:
    return _text(100, closed.mean, '.0f')
  return f'{_text(100, closed.mean, ".0f")} ({_ends(closed, ".0f")})'


def _text(scale: float, value: float | None, form: str) -> str:
  return '-' if value is None else format(scale * value, form)


def _ends(row: Score | Difference | Interval, form: str) -> str:
  if row.low is None:
    return '-'
  return f'{_text(100, row.low, form)} to {_text(100, row.high, form)}'
