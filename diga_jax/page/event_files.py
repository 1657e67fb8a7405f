"""The curves of a stage, from the event files that it writes for TensorBoard."""

import os
import pathlib
from typing import NamedTuple

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util import tensor_util

from data_pipelines.errors import one_line

SCORE = 'criteria/'  # how the tags of checkpoints' scores begin
MOST = 400  # points of a curve on a page


class Curve(NamedTuple):
  """Values by step, each the mean of `every` values that were logged."""

  points: list[tuple[int, float]]
  every: int


class Events(NamedTuple):
  """What the event files of a folder hold.

  Attributes:
    curves: tag -> curve, without the curves by class.
    hours: from the beginning of each file to its last event.
    problems: files that hold nothing, or cannot be read to their end.
  """

  curves: dict[str, Curve]
  hours: float
  problems: list[str]


def read(directory: pathlib.Path) -> Events:
  """The events of a folder; steps that were repeated after a stop are the later ones."""
  values: dict[str, dict[int, float]] = {}
  seconds, problems = 0.0, []
  for path in sorted(directory.glob('events.out.tfevents.*')):
    times = []
    try:
      for event in EventFileLoader(os.fspath(path)).Load():
        times.append(event.wall_time)
        for value in event.summary.value:
          if is_shown(value.tag) and value.HasField('tensor'):
            number = tensor_util.make_ndarray(value.tensor)
            values.setdefault(value.tag, {})[event.step] = float(number)
    except Exception as error:  # a damaged file raises whatever its bytes lead to
      problems.append(f'{path.name}: cannot be read to its end ({one_line(error)})')
    if not times:
      problems.append(f'{path.name}: holds no event')
    seconds += times[-1] - times[0] if times else 0.0
  return Events({tag: thin(found) for tag, found in values.items()}, seconds / 3600, problems)


def is_shown(tag: str) -> bool:
  """Whether a tag is of a curve of the page: metrics of steps and scores, not classes."""
  return '/' not in tag or tag.startswith(SCORE)


def thin(values: dict[int, float]) -> Curve:
  """At most `MOST` points: means of as many neighbours as that takes, at the last one's step."""
  steps = sorted(values)
  every = -(-len(steps) // MOST)
  groups = [steps[i : i + every] for i in range(0, len(steps), every or 1)]
  return Curve([(g[-1], sum(values[s] for s in g) / len(g)) for g in groups], max(every, 1))
