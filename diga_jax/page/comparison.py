"""Several runs beside each other: what differs between them, and paired differences."""

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data_pipelines.errors import BadInput
from diga_jax import metrics
from diga_jax.page.facts import plain
from diga_jax.page.results import Cell, Table, minus, percent, points
from diga_jax.page.working_directory import Measurement, WorkingDirectory, counts_of
from diga_jax.report import paired, tables
from diga_jax.types import ImageCounts, PyTree

NO_SETTINGS = (
  'seed',
  'evaluation.stages',
  'data.cache',
  'compilation_cache',
  'evaluate_every',
  'trackers',
)  # fields in which repetitions of a run differ


class Group(NamedTuple):
  """Runs whose configs differ in the seed alone, under the name of the first."""

  name: str
  runs: list[WorkingDirectory]


class Side(NamedTuple):
  """A network of a group, seed by seed: the measurements of one data set in one way."""

  group: str
  stage: str
  title: str
  by_seed: dict[int, Measurement]


def names_of(runs: Sequence[WorkingDirectory]) -> list[str]:
  """A name for each run: its folder's, with as many parents as tell them apart."""
  parts = [run.path.resolve().parts for run in runs]
  if len(set(parts)) < len(parts):
    doubled = max(parts, key=parts.count)
    raise BadInput(f'{"/".join(doubled)[1:]}: is named twice: name different working directories')
  count = next(n for n in itertools.count(1) if len({each[-n:] for each in parts}) == len(parts))
  return ['/'.join(each[-count:]) for each in parts]


def settings_of(runs: Sequence[WorkingDirectory]) -> list[dict[str, PyTree]]:
  """The fields of each run, flat: of its config or, if a run has recorded none, of its stages."""
  if all(run.config for run in runs):
    return [plain(run.config) for run in runs]
  return [
    {
      f'{stage.name}: {key}': value
      for stage in run.stages
      for key, value in stage.identity.items()
      if not key.startswith('input.')
    }
    for run in runs
  ]


def seed_of(run: WorkingDirectory) -> int | None:
  """The seed of a run; None if its stages have several, or none is known."""
  seeds = {stage.identity['seed'] for stage in run.stages if 'seed' in stage.identity}
  seeds = seeds or ({run.config['seed']} if 'seed' in run.config else set())
  return seeds.pop() if len(seeds) == 1 else None


def runs_table(names: Sequence[str], runs: Sequence[WorkingDirectory]) -> Table:
  """The runs, the mIoU of the last network of each, and the fields in which they differ."""
  fields = dict(zip(names, settings_of(runs), strict=True))
  every = dict.fromkeys(key for found in fields.values() for key in found)
  differing = [
    key
    for key in every
    if len({json.dumps(found.get(key, 'absent')) for found in fields.values()}) > 1
    and not key.endswith(NO_SETTINGS)
  ]
  shown, rows = differing[:12], []
  for name, run in zip(names, runs, strict=True):
    last = [each for each in run.measurements if each.row['kind'] == 'network'][-1:]
    mean = last[0].row['mean_iou'] if last else None
    complete = sum(stage.state == 'complete' for stage in run.stages)
    cells = [Cell(f'{complete} of {len(run.stages)}'), Cell(str(seed_of(run)))]
    cells += [Cell(last[0].name if last else '-'), Cell(percent(mean), mean)]
    cells += [Cell(shorten(fields[name].get(key, '-'))) for key in shown]
    rows.append((name, cells))
  more = len(differing) - len(shown)
  notes = (f'{more} more fields differ: see the pages of the runs',) * (more > 0)
  return Table('Runs', ['stages', 'seed', 'last network', 'mIoU', *shown], rows, notes)


def shorten(value: PyTree) -> str:
  """A value as it fits into a table; of a digest its beginning."""
  text = str(value)
  return text if len(text) <= 40 else f'{text[:8]}…'


def groups_of(names: Sequence[str], runs: Sequence[WorkingDirectory]) -> list[Group]:
  """The runs by their settings without the seed, in order."""
  found: dict[str, Group] = {}
  for name, run, fields in zip(names, runs, settings_of(runs), strict=True):
    settings = {k: v for k, v in fields.items() if not k.endswith(NO_SETTINGS)}
    key = json.dumps(settings, sort_keys=True)
    found.setdefault(key, Group(name, [])).runs.append(run)
  return list(found.values())


def left_out(names: Sequence[str], runs: Sequence[WorkingDirectory]) -> list[str]:
  """Why runs are not among the paired differences, a line each."""
  found, name_of = [], {run.path: name for name, run in zip(names, runs, strict=True)}
  for group in groups_of(names, runs):
    first: dict[int, str] = {}
    for run in group.runs:
      seed, name = seed_of(run), name_of[run.path]
      if seed is None:
        found.append(f'{name} has no seed of its own: it has no paired differences')
      elif seed in first:
        found.append(f'{name} has the config and seed of {first[seed]}: only that one is paired')
      else:
        first[seed] = name
  return found


def sides_of(groups: Sequence[Group]) -> dict[str, list[Side]]:
  """Way of measuring -> the networks that were measured so, of every group, in order."""
  found: dict[str, dict[tuple[str, str], Side]] = {}
  for group in groups:
    title = f'{group.name} ' if len(groups) > 1 else ''
    for run in group.runs:
      seed = seed_of(run)
      for each in run.measurements:
        if each.row['kind'] == 'network' and seed is not None:
          measured = {k: v for k, v in each.row['protocol'].items() if k in tables.MEASUREMENT}
          members = found.setdefault(json.dumps(measured, sort_keys=True), {})
          empty = Side(group.name, each.name, f'{title}{each.name}', {})
          side = members.setdefault((group.name, each.name), empty)
          side.by_seed.setdefault(seed, each)
  return {key: list(members.values()) for key, members in found.items()}


def difference_tables(groups: Sequence[Group]) -> list[Table]:
  """Each network against the first one of its runs, and against the same stage of the first runs.

  Both are taken seed by seed, on the same images.
  """
  found = []
  for key, sides in sides_of(groups).items():
    pairs = [(side, other) for side in sides for other in references_of(side, sides)]
    rows = [
      (f'{side.title} − {other.title}', difference_cells(groups, side, other))
      for side, other in pairs
    ]
    if rows:
      title = tables.describe(json.loads(key))
      columns = ['points', '95% interval', 'seeds', 'images', 'better', 'p']
      found.append(Table(title, columns, rows))
  return found


def references_of(side: Side, sides: Sequence[Side]) -> list[Side]:
  """What a network is compared with; networks without a seed in common are left out."""
  first_of_group = next(other for other in sides if other.group == side.group)
  alike = next(other for other in sides if other.stage == side.stage)
  found = [other for other in (first_of_group, alike) if other is not side]
  return [other for other in found if side.by_seed.keys() & other.by_seed.keys()]


def difference_cells(groups: Sequence[Group], side: Side, reference: Side) -> list[Cell]:
  """The line of a difference; without counts of the images it has the mean alone."""
  seeds = sorted(side.by_seed.keys() & reference.by_seed.keys())
  ours, theirs = ([s.by_seed[seed] for seed in seeds] for s in (side, reference))
  counts = [counts_together(groups, members) for members in (ours, theirs)]
  if counts[0] is None or counts[1] is None or counts[0][0] != counts[1][0]:
    apart = [minus(a.row['mean_iou'], b.row['mean_iou']) for a, b in zip(ours, theirs, strict=True)]
    known = [x for x in apart if x is not None]
    mean = sum(known) / len(known) if known else None
    return [points(mean), Cell('no counts of images'), Cell(str(len(seeds))), *3 * [Cell('-')]]
  found = paired.difference(counts[0][1], counts[1][1], average_of(ours[0]))
  interval = 'one image'
  if found.low is not None and found.high is not None:
    interval = f'{100 * found.low:+.1f} to {100 * found.high:+.1f}'
  improves = '-' if found.improves is None else f'{found.improves:.2f}'
  p = '-' if found.p is None else f'{found.p:.2g}'
  numbers = (interval, str(len(seeds)), str(len(counts[0][0])), improves, p)
  return [points(found.mean), *map(Cell, numbers)]


def counts_together(
  groups: Sequence[Group], members: Sequence[Measurement]
) -> tuple[list[str], ImageCounts] | None:
  """(ids, counts of all seeds); None if they are not there, or of different images."""
  runs = {run.path: run for group in groups for run in group.runs}
  found = [counts_of(runs[each.folder.parents[3]], each) for each in members]
  if any(each is None for each in found):
    return None
  ids = found[0]['ids'].tolist()
  if any(each['ids'].tolist() != ids for each in found):
    return None
  arrays = (np.stack([each[what] for each in found]) for what in ImageCounts._fields)
  return ids, ImageCounts(*arrays)


def average_of(measurement: Measurement) -> paired.Average:
  """The mean that `mean_iou` of a measurement is."""
  names = measurement.row['iou']
  protocol: Mapping[str, PyTree] = measurement.row['protocol']
  way = protocol.get('class_means', 'present')
  means = metrics.class_means(protocol.get('class_set', ''), len(names), way)
  return paired.Average(range(len(names)), len(names) if means.divisors else None)
