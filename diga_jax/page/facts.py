"""What a page says of how a run was made: its config, conditions, stages, time and cost."""

import importlib
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from diga_jax.config import config_file, flatten, read_config
from diga_jax.page.working_directory import Stage, WorkingDirectory, conditions_of, devices_of
from diga_jax.recipe import provenance
from diga_jax.storage import run_record
from diga_jax.types import PyTree

ROW, LANE, EDGE = 72, 13, 14  # pixels of the graph: height of a stage, between arcs, at the right
# Conditions with a line of their own; the rest are listed below.
SHOWN = ('commit', 'devices', 'processor', 'cores', 'python', 'diga_jax', 'jax', 'jaxlib', 'flax')


class Changed(NamedTuple):
  """A field of the config, as text, and the default's value ('' where the default has none)."""

  field: str
  value: str
  default: str


class Cost(NamedTuple):
  """The line of a stage in the table of time and cost; '' where something is unknown."""

  name: str
  state: str
  steps: str
  hours: str
  device_hours: str
  seconds_per_step: str
  waiting: str


class Arc(NamedTuple):
  """A path of the graph, as SVG, from a stage to one that reads it."""

  path: str
  first: str
  second: str


class Graph(NamedTuple):
  """The arcs of the recipe's graph, left of a list of its stages; sizes in pixels."""

  arcs: list[Arc]
  width: int
  height: int
  row: int


def changed_fields(found: WorkingDirectory) -> list[Changed]:
  """The fields of the run's config that configs/default.py has not, or has otherwise.

  Without a config in run.json they are those that the records of the stages hold.
  """
  if found.config:
    fields, known = plain(found.config), defaults(found)
  else:
    fields, known = {}, defaults(found)
    for stage in found.stages:
      fields |= provenance.changed_fields(stage.name, stage.identity)
  made = {stage.name for stage in found.stages}
  return [
    Changed(field, show(value), show(known[field]) if field in known else '')
    for field, value in sorted(fields.items())
    if (field not in known or known[field] != value)
    and field not in ('seed', 'stream')
    and (not field.startswith('stages.') or field.split('.')[1] in made)
  ]


def defaults(found: WorkingDirectory) -> dict[str, PyTree]:
  """The fields of configs/default.py; those of a set or stage that it lacks are of its like."""
  default = read_config([f'--config={config_file("default")}'])
  known = plain(default.to_dict())
  for name in found.config.get('data', {}).get('sets', {}):
    if name not in default.data.sets:
      like = plain(importlib.import_module('diga_jax.configs.datasets').dataset().to_dict())
      known |= {f'data.sets.{name}.{field}': value for field, value in like.items()}
  first = {stage.kind: stage for stage in reversed(default.stages.values())}
  for stage in found.stages:
    if stage.name not in default.stages and stage.kind in first:
      like = plain(first[stage.kind].to_dict())
      known |= {f'stages.{stage.name}.{field}': value for field, value in like.items()}
  return known


def plain(config: Mapping[str, PyTree]) -> dict[str, PyTree]:
  """The fields of a config as JSON has them."""
  return json.loads(json.dumps(flatten(config, empty=True)))


def show(value: PyTree) -> str:
  """A value of the config as it is written on the command line."""
  if isinstance(value, list | tuple):
    return f'({", ".join(map(repr, value))}{"," * (len(value) == 1)})'
  return repr(value)


def summary(found: WorkingDirectory) -> dict[str, str]:
  """The facts at the top of a page."""
  complete = sum(stage.state == 'complete' for stage in found.stages)
  facts = {'stages': f'{complete} of {len(found.stages)} complete'}
  seeds = dict.fromkeys(
    stage.identity['seed'] for stage in found.stages if 'seed' in stage.identity
  )
  if seeds or 'seed' in found.config:
    facts['seed'] = ', '.join(map(str, seeds or [found.config['seed']]))
  if found.starts:
    first, last = found.starts[0], found.starts[-1]
    facts['begun'] = date(first['date'])
    facts['last start'] = date(last['date'])
    facts['starts'] = str(len(found.starts))
    facts['hours'] = f'{sum(start.get("hours", 0) for start in found.starts):.3g}'
    facts['command'] = last['command']
  return facts | conditions(found)


def date(text: str) -> str:
  """A time of run.json as people read it."""
  return text.replace('T', ' ')[:16] + ' UTC' * text.endswith('+00:00')


def conditions(found: WorkingDirectory) -> dict[str, str]:
  """Under which conditions the stages were made; what differs between them is told as such."""
  made = [conditions_of(found, stage.name) for stage in found.stages]
  made = [each for each in made if each] or [start['conditions'] for start in found.starts[-1:]]
  facts: dict[str, str] = {}
  for each in made or [stage.versions for stage in found.stages]:
    for key, value in each.items():
      if str(value) not in ('absent', '') and str(value) not in facts.get(key, '').split(' / '):
        facts[key] = f'{facts[key]} / {value}' if key in facts else str(value)
  first = {key: facts[key] for key in SHOWN if key in facts}
  return {**first, **facts}


def differing(found: WorkingDirectory) -> list[str]:
  """Stages that were made under other conditions than the first one, and what differs."""
  made = {stage.name: conditions_of(found, stage.name) for stage in found.stages}
  made = {name: each for name, each in made.items() if each}
  if not made:
    return []
  first, *others = made
  texts = {name: run_record.differences(made[first], made[name]) for name in others}
  return [f'{name}, as against {first}: {text}' for name, text in texts.items() if text]


def costs(found: WorkingDirectory) -> list[Cost]:
  """Time and cost of every stage, and of all measurements together."""
  rows = [cost_of(found, stage) for stage in found.stages]
  measured = [
    hours
    for start in found.starts
    for name, hours in start.get('hours_of', {}).items()
    if name.startswith('evaluation/')
  ]
  if measured:
    devices = devices_of(found.starts[-1]['conditions'])
    hours = sum(measured)
    rows.append(Cost('evaluation', '', '', duration(hours), f'{hours * devices:.2g}', '', ''))
  return rows


def cost_of(found: WorkingDirectory, stage: Stage) -> Cost:
  """The line of a stage."""
  more = '≥ ' * stage.at_least
  devices = devices_of(conditions_of(found, stage.name))
  speed, waiting = (median(stage, tag) for tag in ('seconds_per_step', 'input_wait_per_step'))
  return Cost(
    name=stage.name,
    state=stage.state,
    steps='' if stage.steps is None else f'{stage.done:,} of {stage.steps:,}',
    hours='' if stage.hours is None else more + duration(stage.hours),
    device_hours='' if stage.hours is None else f'{more}{stage.hours * devices:.2g}',
    seconds_per_step='' if speed is None else f'{speed:.2f}',
    waiting='' if not speed or waiting is None else f'{waiting / speed:.0%}',
  )


def median(stage: Stage, tag: str) -> float | None:
  """The median of a curve; None without one."""
  if tag not in stage.events.curves:
    return None
  return statistics.median_high(value for _, value in stage.events.curves[tag].points)


def duration(hours: float) -> str:
  """Hours as people say them: '2 d 3 h', '3 h 20 min', '12 min', '40 s'."""
  seconds = round(3600 * hours)
  if seconds < 60:
    return f'{seconds} s'
  minutes = round(seconds / 60)
  if minutes < 60:
    return f'{minutes} min'
  if minutes < 24 * 60:
    return f'{minutes // 60} h {minutes % 60} min'
  whole = round(minutes / 60)
  return f'{whole // 24} d {whole % 24} h'


def graph(stages: Sequence[Stage]) -> Graph:
  """The arcs between the stages, each from the middle of a line to that of a later one."""
  place = {stage.name: i for i, stage in enumerate(stages)}
  edges = [
    (place[other], i)
    for i, stage in enumerate(stages)
    for other in stage.reads
    if other in place and place[other] < i
  ]
  lanes = lanes_of(edges)
  width = LANE * (max(lanes.values(), default=0) + 1) + EDGE
  arcs = []
  for (first, second), lane in lanes.items():
    top, bottom = (ROW * i + ROW // 2 for i in (first, second))
    right, left = width - EDGE + 4, width - EDGE + 4 - LANE * lane
    path = f'M{right} {top}C{left} {top + 14},{left} {bottom - 14},{right} {bottom}'
    arcs.append(Arc(path, stages[first].name, stages[second].name))
  return Graph(arcs, width, ROW * len(stages), ROW)


def lanes_of(edges: Sequence[tuple[int, int]]) -> Mapping[tuple[int, int], int]:
  """How far left each edge runs: neighbours on 0, others where no edge of their lines runs."""
  lanes: dict[tuple[int, int], int] = {}
  for first, second in sorted(edges, key=lambda edge: (edge[1] - edge[0], edge)):
    crossing = {lane for (a, b), lane in lanes.items() if a < second and first < b and b - a > 1}
    free = next(lane for lane in range(1, len(edges) + 2) if lane not in crossing)
    lanes[first, second] = 0 if second - first == 1 else free
  return lanes
