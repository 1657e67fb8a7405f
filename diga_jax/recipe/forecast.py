"""What a run has before it: stages and measurements, how far they are, time left and disk.

Times are those that a start in the same working directory has taken for the same work on the same
devices (`run_record.note_pace`); where there is none, none is given.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from diga_jax.parallel import devices
from diga_jax.recipe import checks, disk_space, graph
from diga_jax.recipe.experiment import Run
from diga_jax.report import tables
from diga_jax.stages.kinds import KINDS, inputs, kind_of
from diga_jax.storage import checkpoint, run_record
from diga_jax.storage.stage_folder import stage_and_choice
from diga_jax.types import PyTree

# What the time of a step or an image depends on, beside devices: of the config, and of the stage.
OF_CONFIG = ('model', 'translator', 'devices', 'parallel', 'remat')
OF_STAGE = (
  'kind', 'method', 'batch', 'target', 'mixing', 'target_mixing', 'selector', 'centroids_from',
  'centroid_set', 'network', 'scales', 'image_size', 'passes', 'auxiliary', 'target_statistics',
)  # fmt: skip
OF_EVALUATION = ('scales', 'flip', 'batch_size')
COLUMNS: dict[str, tables.Justify] = {
  'kind': 'left', 'length': 'right', 'state': 'left', 'time left': 'right', 'disk': 'right',
}  # fmt: skip


class Row(NamedTuple):
  """A stage, or the measurements on one data set.

  Attributes:
    name: of the stage, or what is measured.
    kind: of the stage, or 'on SET'.
    count, unit: how many 'steps' or 'images' it has.
    state: in words.
    seconds: how long what is left of it takes; None where that is not known.
    size: bytes that it takes on disk, or will; None where that is not known.
    reads: data sets and stages, in words.
  """

  name: str
  kind: str
  count: int
  unit: str
  state: str
  seconds: float | None
  size: int | None
  reads: str


def forecast(run: Run, stages: Sequence[str], measured: bool = True) -> list[Row]:
  """The rows of stages, and of the config's measurements after them if `measured`."""
  rows = [of_stage(run, name) for name in stages]
  places = graph.measurements(run) if measured else []
  kinds = dict.fromkeys((graph.is_network(run, name), key) for name, key in places)
  for is_network, key in kinds:
    own = [name for name, on in places if on == key and graph.is_network(run, name) == is_network]
    rows.append(of_measurements(run, own, key))
  return rows


def of_stage(run: Run, name: str) -> Row:
  """The row of a stage."""
  stage, reads = run.stage(name), inputs(run.stage(name), run.config)
  trained = kind_of(stage).train_step is not None
  count = stage.steps if trained else len(run.images(stage.target, labelled=False))
  partial, complete = run.workdir / f'{name}.partial', checks.is_complete(run, name)
  saved = checkpoint.steps_in(partial / checkpoint.FOLDER) if trained else []
  done = count if complete else max(saved, default=0)
  begun = f'at {done:,}' if done else 'begun' if partial.exists() else 'to do'
  size = disk_space.used(run.workdir / name) if complete else disk_space.to_keep(run, name)
  sets = [f'{key}{" with labels" * labelled}' for key, labelled in reads.sets.items()]
  return Row(
    name=name,
    kind=stage.kind,
    count=count,
    unit='steps' if trained else 'images',
    state='complete' if complete else begun,
    seconds=time_left(run, count - done, of_work(run.config.to_dict(), name)),
    size=size,
    reads=', '.join([*sets, *reads.stages]),
  )


def of_measurements(run: Run, names: Sequence[str], key: str) -> Row:
  """The row of networks, or of label passes, on a data set."""
  to_do = [name for name in names if not graph.place_of(run, name, key).exists()]
  images = len(run.images(key, labelled=False))
  state = f'{len(names) - len(to_do)} of {len(names)}' if len(to_do) < len(names) else 'to do'
  place = f'evaluation//{names[0]}/{key}'
  return Row(
    name='evaluation' if graph.is_network(run, names[0]) else 'label quality',
    kind=f'on {key}',
    count=images * len(names),
    unit='images',
    state=state if to_do else 'complete',
    seconds=time_left(run, images * len(to_do), of_work(run.config.to_dict(), place)),
    size=None,
    reads=', '.join(names),
  )


# How long it takes.


def of_work(config: Mapping[str, PyTree], name: str) -> PyTree:
  """What the time of a stage's step depends on, or of the image of a measurement; JSON-able.

  Args:
    config: as a dict, of now or of an earlier start.
    name: of a stage, or of the folder of a measurement.
  """
  stages, data = config['stages'], config['data']
  found = {field: config.get(field) for field in OF_CONFIG}
  if '/' in name:
    _, _, stage, key = name.split('/')
    trained = KINDS[stages[stage_and_choice(stage)[0]]['kind']].train_step is not None
    settings = {field: config['evaluation'][field] for field in OF_EVALUATION}
    found |= {'trained': trained, 'evaluation': settings, 'set': data['sets'][key]}
  else:
    found |= {field: stages[name].get(field) for field in OF_STAGE} | {'crop': data['crop']}
  return json.loads(json.dumps(found))


def time_left(run: Run, count: int, work: PyTree) -> float | None:
  """Seconds for so many steps or images, by the last start that noted such; None: there is none."""
  if count == 0:
    return 0.0
  here = {'devices': devices.kinds(), 'cores': devices.cores()}
  here['processor'] = run_record.processor()
  for start in reversed(run_record.starts_of(run.workdir)):
    same = all(start['conditions'].get(key) == value for key, value in here.items())
    for name, (seconds, known) in reversed(start.get('paces', {}).items()):
      if same and known and work_of(start, name) == work:
        return count * seconds / known
  return None


def work_of(start: Mapping[str, PyTree], name: str) -> PyTree:
  """`of_work` of an earlier start; None of one whose config is not known or of another version."""
  try:
    return of_work(start['config'], name)
  except (KeyError, ValueError):
    return None


# In words.


def describe(rows: Sequence[Row], reads: bool = False) -> list[tables.Part]:
  """The table of the rows, with what they read or without, and the sum of the times."""
  columns = [*COLUMNS, 'reads'] if reads else [*COLUMNS]
  table = tables.plain_table('stage', *columns)
  for column in table.columns[1:]:
    column.justify = COLUMNS.get(str(column.header), 'left')
  for row in rows:
    table.add_row(
      row.name,
      row.kind,
      f'{row.count:,} {row.unit}',
      row.state,
      '-' if row.state == 'complete' else clock(row.seconds),
      '-' if row.size is None else disk_space.in_words(row.size),
      *[row.reads] * reads,
    )
  return [table, sum_of_times(rows)]


def sum_of_times(rows: Sequence[Row]) -> str:
  """How long all of it takes, on one line; which rows are not in the sum."""
  known = [row.seconds for row in rows if row.seconds is not None]
  unknown = [row.name for row in rows if row.seconds is None]
  if not unknown and not any(known):
    return 'all of it is complete'
  if not any(known):
    return 'time left: not known: nothing like it has been timed in this working directory'
  text = f'time left: about {clock(sum(known))}, as timed in this working directory'
  return f'{text}; and {", ".join(unknown)}, not known' if unknown else text


def clock(seconds: float | None) -> str:
  """A duration as 'h:mm:ss'."""
  return 'not known' if seconds is None else str(datetime.timedelta(seconds=round(seconds)))
