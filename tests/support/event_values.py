"""What event files hold, every value as often as it was written."""

import os
import pathlib
from typing import NamedTuple

import numpy as np
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util import tensor_util


class Value(NamedTuple):
  """A value of an event file: an array, of a picture or text bytes."""

  step: int
  tag: str
  value: np.ndarray


def values_in(directory: pathlib.Path) -> list[Value]:
  """Those of all event files of a folder, in order."""
  return [
    Value(event.step, value.tag, tensor_util.make_ndarray(value.tensor))
    for path in sorted(directory.glob('events.out.tfevents.*'))
    for event in EventFileLoader(os.fspath(path)).Load()
    for value in event.summary.value
  ]
