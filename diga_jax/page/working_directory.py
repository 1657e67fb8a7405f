"""What a working directory holds, read without its config and whatever state it is in.

A record that is damaged is told and left out; one of an earlier version, which has no digest of
its content, is shown as it stands, and that is told.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

from data_pipelines import records
from data_pipelines.errors import BadInput
from diga_jax.page import event_files
from diga_jax.recipe import iou_curve
from diga_jax.storage import passport, run_record, stage_folder
from diga_jax.storage.stage_folder import stage_and_choice
from diga_jax.types import PyTree

PARTIAL = '.partial'
PAGE = 'report.html'
# What a row of results has to hold, by its kind.
NUMBER = int | float | None
ROWS = {
  'network': {
    'mean_iou': NUMBER, 'mean_iou_subsets': dict, 'pixel_accuracy': NUMBER, 'iou': dict,
    'confusion': list, 'protocol': dict,
  },
  'labels': {
    'kept': NUMBER, 'coverage': NUMBER, 'accuracy_kept': NUMBER, 'accuracy_rejected': NUMBER,
    'per_class': dict, 'selector': str, 'protocol': dict,
  },
}  # fmt: skip


POINT = {'step': int, 'data': str, 'mean_iou': NUMBER, 'iou': dict}  # of a curve


@dataclasses.dataclass(frozen=True)
class Stage:
  """A stage of the recipe.

  Attributes:
    name, kind: of the stage; kind '' where nobody recorded it.
    state: how far it is.
    folder: its folder, whether it exists or not.
    reads: the stages that it reads.
    steps: of its training; None for a pass, or where that is unknown.
    identity, result: of its record; {} where there is none.
    versions: that its record holds, if it is of an earlier version.
    events: what its event files hold.
    measured: what was measured while it trained, by step and data set (`recipe.iou_curve`).
    hours: spent on it; None: unknown.
    at_least: whether it took longer: a start of it was killed, and recorded nothing.
  """

  name: str
  kind: str
  state: Literal['complete', 'begun', 'not begun', 'damaged']
  folder: pathlib.Path
  reads: tuple[str, ...]
  steps: int | None
  identity: Mapping[str, PyTree]
  result: Mapping[str, PyTree]
  versions: Mapping[str, str]
  events: event_files.Events
  measured: tuple[dict[str, PyTree], ...]
  hours: float | None
  at_least: bool

  @property
  def done(self) -> int | None:
    """Steps that are done, as far as the curves tell; None for a pass."""
    if self.steps is None:
      return None
    if self.state == 'complete':
      return self.steps
    return max(self.ends, default=0)

  @property
  def ends(self) -> list[int]:
    """The last steps of its curves."""
    curves = [curve.points[-1][0] for curve in self.events.curves.values() if curve.points]
    return curves + [point['step'] for point in self.measured[-1:]]


class Measurement(NamedTuple):
  """A row of results, and the folder WORKDIR/evaluation/PROTOCOL/NAME/SET that holds it."""

  protocol: str
  name: str
  key: str
  folder: pathlib.Path
  row: PyTree


@dataclasses.dataclass
class WorkingDirectory:
  """Everything that a page says of a run.

  Attributes:
    path: of the folder.
    starts: the entries of run.json.
    config: of the last start, as in run.json; {} where that holds none.
    stages, measurements: in the recipe's order.
    problems: what could not be read, a line each.
  """

  path: pathlib.Path
  starts: list[dict[str, PyTree]] = dataclasses.field(default_factory=list)
  config: dict[str, PyTree] = dataclasses.field(default_factory=dict)
  stages: list[Stage] = dataclasses.field(default_factory=list)
  measurements: list[Measurement] = dataclasses.field(default_factory=list)
  problems: list[str] = dataclasses.field(default_factory=list)
  unsigned: int = 0  # records of earlier versions

  @property
  def name(self) -> str:
    return self.path.resolve().name or str(self.path)

  def tell(self, error: object) -> None:
    """Takes note of a problem; places are named from the working directory on."""
    text = str(error).replace(f'{self.path}{os.sep}', '')
    if text not in self.problems:
      self.problems.append(text)


def read(path: pathlib.Path) -> WorkingDirectory:
  """What there is in a working directory.

  Raises:
    BadInput: it is none: there is no such folder, or it holds something else.
  """
  check_is_one(path)
  found = WorkingDirectory(path)
  if os.path.lexists(path / run_record.NAME):
    record = read_record(found, path / run_record.NAME, starts=list)
    found.starts = [start for start in (record or {}).get('starts', []) if is_start(start)]
  configs = [start['config'] for start in found.starts if start.get('config')]
  found.config = configs[-1] if configs else {}
  found.stages = read_stages(found)
  found.measurements = read_measurements(found)
  if found.unsigned:
    found.tell(
      f'{found.unsigned} records are of an earlier version, which wrote no digests: they are shown '
      'as they stand'
    )
  return found


def check_is_one(path: pathlib.Path) -> None:
  """Refuses a path that is no working directory; an empty folder is one."""
  if not path.is_dir():
    what = 'is no folder' if os.path.lexists(path) else 'there is no such folder'
    raise BadInput(f'{path}: {what}: give the --workdir of a run')
  if (path / stage_folder.RECORD).exists():
    raise BadInput(f'{path}: is the folder of a stage: give its working directory, {path.parent}')
  inside = {entry.name for entry in path.iterdir()} - {'.lock', PAGE}
  if not inside or run_record.NAME in inside or any(path.glob(f'*/{stage_folder.RECORD}')):
    return
  if (path / 'evaluation').is_dir():
    return
  seeds = sorted(p.parent for p in path.glob(f'**/seed_*/{run_record.NAME}'))
  if seeds:
    raise BadInput(f'{path}: is the folder of a study: give its runs, such as {seeds[0]}')
  raise BadInput(f'{path}: is no working directory: it holds no {run_record.NAME} and no stage')


def read_record(
  found: WorkingDirectory, path: pathlib.Path, **kinds: type
) -> dict[str, PyTree] | None:
  """A record that holds fields of these types, or None where it is damaged, which is told."""
  try:
    record, unsigned = records.read(path, 'it is left out', *kinds), False
  except BadInput as error:
    record, unsigned = read_unsigned(path), True
    if record is None:
      found.tell(error)
      return None
  if not has(record, kinds):
    found.tell(f'{path}: is the record of something else')
    return None
  found.unsigned += unsigned
  return record


def read_unsigned(path: pathlib.Path) -> dict[str, PyTree] | None:
  """A JSON file of an earlier version; None if it is none, or has a digest."""
  with contextlib.suppress(OSError, ValueError, RecursionError):
    if path.is_file():
      content = json.loads(path.read_text(encoding='utf-8'))
      return content if isinstance(content, dict) and records.DIGEST not in content else None
  return None


def is_start(start: PyTree) -> bool:
  """Whether an entry of run.json has what every version wrote."""
  wanted = {'date': str, 'command': str, 'conditions': dict, 'stages': list}
  return isinstance(start, dict) and has(start, wanted)


# Stages.


def read_stages(found: WorkingDirectory) -> list[Stage]:
  """The stages of the recipe and those that have a folder, in order."""
  names = recipe_of(found.config)
  there = {path.parent.name for path in found.path.glob(f'*/{stage_folder.RECORD}')}
  others = {name.removesuffix(PARTIAL) for name in there} - set(names)
  stages = {name: read_stage(found, name) for name in [*names, *sorted(others)]}
  return [stages[name] for name in [*names, *in_order({name: stages[name] for name in others})]]


def recipe_of(config: Mapping[str, PyTree]) -> list[str]:
  """The stages that a config carries out, as `graph.stages_of`; [] without a config."""
  trained = config.get('translator', {}).get('kind') == 'network'
  kinds = {name: stage.get('kind') for name, stage in config.get('stages', {}).items()}
  return [n for n in config.get('recipe', ()) if trained or kinds.get(n) != 'translator']


def in_order(stages: Mapping[str, Stage]) -> list[str]:
  """Names of stages, each behind those that it reads, and else by the number of these."""
  order: list[str] = []

  def visit(name: str, above: tuple[str, ...]) -> None:
    if name in stages and name not in order and name not in above:
      for other in sorted(stages[name].reads):
        visit(other, (*above, name))
      order.append(name)

  for name in sorted(stages, key=lambda n: (len(stages[n].reads), n)):
    visit(name, ())
  return order


def read_stage(found: WorkingDirectory, name: str) -> Stage:
  """One stage, whether it has a folder or not."""
  folder, partial = found.path / name, found.path / f'{name}{PARTIAL}'
  complete = (folder / stage_folder.RECORD).exists()
  begun = (partial / stage_folder.RECORD).exists()
  record, state = {}, 'not begun'
  if complete or begun:
    place = folder if complete else partial
    kinds = {'identity': dict, 'result': dict} if complete else {'identity': dict}
    read = read_record(found, place / stage_folder.RECORD, **kinds)
    state = 'damaged' if read is None else 'complete' if complete else 'begun'
    record = read or {}
  elif folder.is_symlink() or folder.exists():
    found.tell(f'{name}: its folder holds no {stage_folder.RECORD}')
    state = 'damaged'
  identity, result = record.get('identity', {}), record.get('result', {})
  settings = found.config.get('stages', {}).get(name, {})
  events = event_files.read(folder if folder.exists() else partial)
  for problem in events.problems:
    found.tell(f'{name}/{problem}')
  measured = read_curve(found, (folder if folder.exists() else partial) / iou_curve.FILE)
  hours, at_least = hours_of(found, name, events)
  return Stage(
    name=name,
    kind=str(identity.get('stage.kind', settings.get('kind', ''))),
    state=state,
    folder=folder if complete or not begun else partial,
    reads=tuple(key.removeprefix('input.') for key in identity if key.startswith('input.')),
    steps=result.get('steps', settings.get('steps')) if result or settings else None,
    identity=identity,
    result=result,
    versions=record.get('versions', {}),
    events=events,
    measured=measured,
    hours=hours,
    at_least=at_least,
  )


def read_curve(found: WorkingDirectory, path: pathlib.Path) -> tuple[dict[str, PyTree], ...]:
  """What was measured while a stage trained, by step; () where nothing was, or it is damaged."""
  record = read_record(found, path, points=list) if os.path.lexists(path) else None
  points = (record or {}).get('points', [])
  if not all(isinstance(point, dict) and has(point, POINT) for point in points):
    found.tell(f'{path}: holds no curve that this version knows')
    return ()
  return tuple(sorted(points, key=lambda point: point['step']))


def hours_of(
  found: WorkingDirectory, name: str, events: event_files.Events
) -> tuple[float | None, bool]:
  """(hours that were spent on a stage or measurement, whether some went unrecorded)."""
  starts = [start for start in found.starts if name in start['stages']]
  known = [start['hours_of'][name] for start in starts if name in start.get('hours_of', {})]
  if not known and events.hours:
    return events.hours, False
  return (sum(known), len(known) < len(starts)) if known else (None, False)


def devices_of(conditions: Mapping[str, PyTree]) -> int:
  """How many devices there were, by their description in run.json: '8 x NVIDIA H100'."""
  numbers = re.findall(r'(?:^|, )(\d+) x ', str(conditions.get('devices', '')))
  return sum(map(int, numbers)) or 1


def conditions_of(found: WorkingDirectory, name: str) -> dict[str, PyTree]:
  """The conditions of the last start that worked on a stage; {} where none is known."""
  starts = [start['conditions'] for start in found.starts if name in start['stages']]
  return starts[-1] if starts else {}


# Measurements.


def read_measurements(found: WorkingDirectory) -> list[Measurement]:
  """The complete measurements: of the config's protocol first, in the order of the stages."""
  wanted = found.config.get('evaluation', {}).get('name')
  order = {stage.name: position for position, stage in enumerate(found.stages)}
  measurements = []
  for path in sorted(found.path.glob(f'evaluation/*/*/*/{stage_folder.RECORD}')):
    protocol, name, key = path.parent.relative_to(found.path / 'evaluation').parts
    if key.endswith(PARTIAL):
      continue
    record = read_record(found, path, identity=dict)
    if record is not None and is_row(row := record.get('result')):
      measurements.append(Measurement(protocol, name, key, path.parent, row))
    elif record is not None:
      found.tell(f'{path}: holds no result that this version knows')
  return sorted(
    measurements,
    key=lambda m: (m.protocol != wanted, m.protocol, order.get(stage_and_choice(m.name)[0], 99)),
  )


def is_row(row: PyTree) -> bool:
  """Whether a result has what its kind has."""
  kind = row.get('kind') if isinstance(row, dict) else None
  return isinstance(kind, str) and kind in ROWS and has(row, {'name': str, **ROWS[kind]})


def has(content: Mapping[str, PyTree], kinds: Mapping[str, PyTree]) -> bool:
  """Whether a record holds fields of these types."""
  return all(key in content and isinstance(content[key], kind) for key, kind in kinds.items())


def counts_of(found: WorkingDirectory, measurement: Measurement) -> PyTree:
  """The counts of each image of a measurement; None where there are none, or they are damaged."""
  if not (measurement.folder / 'images.npz').exists():
    return None
  try:
    return passport.counts(measurement.folder / passport.NAME)
  except (BadInput, OSError, ValueError) as error:
    found.tell(error)
    return None
