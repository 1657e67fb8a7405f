"""The numbers of a study: every network over seeds and images, and against one of them."""

import csv
import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from data_pipelines import atomic
from data_pipelines.errors import BadInput
from diga_jax.parallel import processes
from diga_jax.recipe import cells, evaluation, graph
from diga_jax.recipe.experiment import Run
from diga_jax.recipe.variants import Variant
from diga_jax.report import paired, tables
from diga_jax.types import ImageCounts, PyTree

COLUMNS = ('set', 'row', 'seed', 'class', 'intersection', 'union', 'iou')


class Bounds(NamedTuple):
  """The rows that others are compared with; '' for none."""

  against: str = ''
  upper: str = ''


class Comparison(NamedTuple):
  """What is found on one data set.

  Attributes:
    ids: of its images.
    counts, scores: of every network, by row.
    differences: to the reference, of the other rows.
    gaps: how much of the gap between reference and upper bound each row closes; None without one.
  """

  ids: list[str]
  counts: dict[str, ImageCounts]
  scores: dict[str, paired.Score]
  differences: dict[str, paired.Difference]
  gaps: dict[str, paired.Interval] | None


def bounds(study: cells.Study, against: str | None, upper: str | None) -> Bounds:
  """The named rows, by the names that the tables have.

  Raises:
    BadInput: one is no row of a network, the upper bound is the reference, or stands alone.
  """
  rows = list(cells.networks(study))

  def named(option: str, text: str | None) -> str:
    for row in rows:
      if text in (row.name, *row.others):
        return row.name
    if text is None:
      return ''
    known = ', '.join(row.name for row in rows)
    raise BadInput(f'{option}={text}: is no row of a network: there are {known}')

  found = Bounds(named('--against', against), named('--upper', upper))
  if found.upper and not found.against:
    raise BadInput('--upper: is the upper end of a gap: name the lower one by --against')
  if found.upper and found.upper == found.against:
    raise BadInput('--upper: is the same row as --against')
  return found


def average_of(run: Run) -> paired.Average:
  """The mean that a config's evaluation is about."""
  means, name = evaluation.class_means(run), run.config.evaluation.mean
  classes = means.subsets.get(name, range(run.config.data.classes))
  if means.divisors is None:
    return paired.Average(classes)
  return paired.Average(classes, means.divisors.get(name, len(classes)))


def compare(study: cells.Study, key: str, named: Bounds) -> Comparison:
  """What is found on a data set, of a study all of whose cells are complete.

  Raises:
    BadInput: as `graph.counts_of`, or rows were measured on other images.
  """
  average = average_of(study.runs(study.variants[0])[0])
  ids, counts = [], {}
  for row in cells.networks(study):
    found = graph.counts_of(study.runs(row.variant), row.stage, key)
    ids = ids or found.ids
    if found.ids != ids:
      raise BadInput(f'{row.name}: was measured on other images of {key} than {next(iter(counts))}')
    counts[row.name] = found.counts
  scores = {name: paired.score(each, average) for name, each in counts.items()}
  differences, gaps = {}, None
  if named.against:
    others = [name for name in counts if name != named.against]
    lower = counts[named.against]
    differences = {name: paired.difference(counts[name], lower, average) for name in others}
    if named.upper:
      upper = counts[named.upper]
      gaps = {name: paired.gap_closed(counts[name], lower, upper, average) for name in others}
  return Comparison(ids, counts, scores, differences, gaps)


# What is written of it.


def describe(found: Mapping[str, Comparison], named: Bounds, seeds: int) -> list[tables.Part]:
  """Tables of every data set, each with what it is of."""
  parts: list[tables.Part] = []
  intervals = '95% intervals by bootstrap over seeds and images' if seeds > 1 else (
    '95% intervals by bootstrap over images'
  )  # fmt: skip
  for key, each in found.items():
    parts += ['', f'{key}: mIoU in per cent; {intervals}; middle half: interquartile mean.']
    parts += [f'{line}.' for line in unsaid(seeds)]
    parts.append(paired.score_table(each.scores))
    if each.differences:
      parts += [
        '',
        f'{key}: mIoU of each network minus that of {named.against} in points, seed by seed; '
        f'{intervals}; improves: probability that a seed is above one of the reference; p: paired '
        f"t-test over seeds, by Holm's correction for {len(each.differences)} comparisons.",
      ]
      if named.upper:
        parts.append(f'Gap closed: of the way from {named.against} to {named.upper}.')
      parts.append(paired.table(each.differences, named.against, each.gaps))
  return parts


def unsaid(seeds: int) -> list[str]:
  """What cannot be said with few seeds."""
  if seeds == 1:
    return [
      'One seed: nothing can be said of other seeds, of a spread or of a significance; the '
      'intervals are those of these images'
    ]
  if seeds < paired.FEWEST:
    return [
      f'Fewer than {paired.FEWEST} seeds: no significance can be told, and intervals over so few '
      'seeds are too narrow'
    ]
  return []


def label(name: str, key: str, keys: Sequence[str]) -> str:
  """What a row is called where rows of all data sets stand together."""
  return name if len(keys) == 1 else f'{name} on {key}'


def summary(
  study: cells.Study, variants: Sequence[Variant], found: Mapping[str, Comparison], named: Bounds
) -> dict[str, PyTree]:
  """The study as JSON: seeds, rows, paired differences, gaps, and the fields of every variant."""
  result: dict[str, PyTree] = {
    'seeds': study.seeds,
    'row_names': [row.name for row in cells.table_rows(study)],
    'variants': {variant.name: variant.changes for variant in variants if variant.name},
    'against': named.against or None,
    'upper': named.upper or None,
    'unsaid': unsaid(len(study.seeds)),
    'rows': {},
    'scores': {},
    'paired': {},
    'gap_closed': {},
  }
  for key, each in found.items():
    adjusted = paired.corrected(each.differences)
    for name, score in each.scores.items():
      own = label(name, key, list(found))
      result['rows'][own] = score.by_seed
      result['scores'][own] = {k: v for k, v in score._asdict().items() if k != 'by_seed'}
    for name, apart in each.differences.items():
      own = label(f'{name} - {named.against}', key, list(found))
      result['paired'][own] = {**apart._asdict(), 'p_holm': adjusted[name]}
    for name, gap in (each.gaps or {}).items():
      result['gap_closed'][label(name, key, list(found))] = gap._asdict()
  return result


def table_of_classes(
  found: Mapping[str, Comparison], seeds: Sequence[int], names: Sequence[str]
) -> str:
  """CSV with a line for every data set, row, seed and class; iou is a fraction, or empty."""
  page = io.StringIO()
  writer = csv.writer(page, lineterminator='\n')
  writer.writerow(COLUMNS)
  for key, each in found.items():
    for row, counts in each.counts.items():
      hits, unions = counts.intersection.sum(1), counts.union.sum(1)
      for seed, hit, union in zip(seeds, hits.tolist(), unions.tolist(), strict=True):
        for name, part, whole in zip(names, hit, union, strict=True):
          writer.writerow([key, row, seed, name, part, whole, part / whole if whole else ''])
  return page.getvalue()


def save_counts(
  path: pathlib.Path,
  found: Mapping[str, Comparison],
  seeds: Sequence[int],
  names: Sequence[str],
  average: paired.Average,
) -> None:
  """Writes what every number of the study can be computed from, as one compressed .npz.

  `rows`, `seeds` and `classes` are names; `averaged` the classes of the mIoU (indices); of each
  data set SET, `SET/ids`, and `SET/intersection` and `SET/union`, int64 [rows, seeds, images, C].
  """
  arrays = {
    'rows': np.array(list(next(iter(found.values())).counts)),
    'seeds': np.array(seeds),
    'classes': np.array(names),
    'averaged': np.array(average.classes),
  }
  for key, each in found.items():
    arrays[f'{key}/ids'] = np.array(each.ids)
    for what in ImageCounts._fields:
      arrays[f'{key}/{what}'] = np.stack([getattr(row, what) for row in each.counts.values()])
  if processes.is_main_process():
    with atomic.replacing(path) as temporary, temporary.open('wb') as file:
      np.savez_compressed(file, allow_pickle=False, **arrays)


def check_earlier(path: pathlib.Path, study: cells.Study, variants: Sequence[Variant]) -> None:
  """Refuses to write over the numbers of another study; seeds, variants and rows may be added.

  Args:
    path: of the JSON file that may be there.
    study, variants: what is to be written.

  Raises:
    BadInput: the file tells of rows, or of variants, that are none of this study.
  """
  if not path.exists():
    return
  try:
    earlier = json.loads(path.read_text())
    if isinstance(earlier, list):  # of an earlier version of this package
      earlier = {'row_names': [row['name'] for row in earlier[0]], 'variants': {}}
    lost = {*earlier['row_names']} - {row.name for row in cells.table_rows(study)}
    own = json.loads(json.dumps({each.name: each.changes for each in variants if each.name}))
    lost |= {name for name, fields in earlier['variants'].items() if own.get(name) != fields}
  except (OSError, ValueError, LookupError, TypeError, AttributeError):
    logging.warning('%s: is damaged: it is written again', path)
    return
  if lost:
    raise BadInput(
      f'{path}: is of another study, with {", ".join(sorted(lost))}: keep these variants and '
      'stages, or give another config.evaluation.name or --workdir'
    )
