"""The class shares of a stage while it trains, and warnings when a class vanishes or takes over.

Steps tell shares of their few images; here they are averaged over windows, and every window is
compared with the first. What has been seen is saved with every checkpoint, so that a run that was
stopped goes on with the same first shares and warns of the same classes.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from data_pipelines import records
from data_pipelines.errors import BadInput
from diga_jax import class_balance
from diga_jax.types import PyTree

NAME = 'class_shares.json'
WINDOW = 100  # steps; a quarter of the stage if that is shorter
SAVED = 4  # states on disk: more than there are checkpoints
# The metrics of a step that are compared, [C], and what they are shares of.
WATCHED = {
  'kept_by_class': 'pseudo-labels kept',
  'predictions_by_class': 'predictions on the target',
}


# Ratios of the metrics of a step: of which, and the tag of their histogram over a window's steps.
RATIOS = {
  'kept_of_labels': ('kept_by_class', 'labels_by_class', 'kept_histogram'),
  'confidence': ('confidence_by_class', 'predictions_by_class', 'confidence_histogram'),
}


class Window(NamedTuple):
  """What a window has shown, by tag: means, and histograms of the steps, whose means these are."""

  scalars: dict[str, float]
  histograms: dict[str, np.ndarray]


class ClassWatch:
  """Averages of the metrics by class, of one process."""

  def __init__(
    self, directory: pathlib.Path, stage: str, names: Sequence[str], start: int, steps: int
  ):
    self.path, self.stage, self.names, self.start = directory / NAME, stage, names, start
    self.window = max(1, min(WINDOW, steps // 4))
    self.states: dict[int, dict[str, PyTree]] = {}  # by the step that they were saved after
    self.state: dict[str, PyTree] = {}

  def _begin(self) -> None:
    """Goes on from what was saved at the first step, if there is one before it."""
    saved = self._saved() if self.start else {}
    self.states = {step: state for step, state in saved.items() if step <= self.start}
    anew = {'steps': 0, 'sums': {}, 'bins': {}, 'first': {}, 'last': {}, 'warned': {}}
    self.state = _copy(self.states.get(self.start, anew))

  def _saved(self) -> dict[int, dict[str, PyTree]]:
    try:
      found = records.read(self.path, 'it is begun anew', 'states')['states']
      saved = {int(step): state for step, state in found.items()}
      reason = f'{self.path}: holds nothing of step {self.start}'
    except BadInput as error:
      saved, reason = {}, str(error)
    if self.start not in saved:
      logging.warning('%s: %s; first shares of classes are those from here on', self.stage, reason)
    return saved

  def step(self, done: int, values: Mapping[str, np.ndarray]) -> Window | None:
    """Takes note of the metrics [C] of a step; warns. Returns what a window shows at its end."""
    if not self.state:
      self._begin()
    sums = self.state['sums']
    for key, value in values.items():
      before = sums.get(key, [0.0] * len(self.names))
      sums[key] = [a + float(b) for a, b in zip(before, value, strict=True)]
    bins = self.state.setdefault('bins', {})  # which records of earlier versions lack
    for what, (part, whole, _) in RATIOS.items():
      bins[what] = _counted(bins.get(what), values[part], values[whole])
    self.state['steps'] += 1
    if self.state['steps'] < self.window:
      return None
    means = {key: np.array(value) / self.window for key, value in sums.items()}
    self.state |= {'steps': 0, 'sums': {}, 'bins': {}}
    self._compare(done, means)
    return Window(_scalars(means, self.names), _histograms(bins, self.names))

  def _compare(self, done: int, means: Mapping[str, np.ndarray]) -> None:
    """Compares a window with the first one; each class is warned of once in each distribution."""
    for key, what in WATCHED.items():
      first = self.state['first'].setdefault(key, means[key].tolist())
      self.state['last'][key] = means[key].tolist()
      before = f'in the first {self.window} steps' if self.window > 1 else 'in the first step'
      found = class_balance.oddities(means[key], first, self.names, what, before)
      for name, text in found.items():
        if f'{key}/{name}' not in self.state['warned']:
          self.state['warned'][f'{key}/{name}'] = f'{self.stage}: step {done}: {text}'
          logging.warning('%s: step %d: %s', self.stage, done, text)

  def save(self, done: int) -> None:
    """Saves what has been seen up to a step, before its checkpoint."""
    if not self.state:  # the stage has no such metrics
      return
    self.states[done] = _copy(self.state)
    self.states = dict(sorted(self.states.items())[-SAVED:])
    records.write(self.path, {'window': self.window, 'names': self.names, 'states': self.states})


def _copy(state: Mapping[str, PyTree]) -> dict[str, PyTree]:
  return {key: dict(value) if isinstance(value, dict) else value for key, value in state.items()}


def _counted(bins: PyTree, part: np.ndarray, whole: np.ndarray) -> list[list[int]]:
  """Histograms [C, BINS] with one more value of each class, part / whole; without pixels none."""
  found = np.zeros((len(whole), class_balance.BINS), int) if bins is None else np.array(bins)
  present = np.flatnonzero(whole > 0)
  found[present, class_balance.bin_of(part[present] / whole[present])] += 1
  return found.tolist()


def _histograms(bins: Mapping[str, PyTree], names: Sequence[str]) -> dict[str, np.ndarray]:
  """The values of a window's histograms by tag, of the classes that have some."""
  return {
    f'{tag}/{name}': class_balance.samples(counts)
    for what, (*_, tag) in RATIOS.items()
    for name, counts in zip(names, bins[what], strict=True)
    if any(counts)
  }


def _scalars(means: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, float]:
  """The curves of a window: shares that sum to 1, and of each class what is kept and how sure."""
  found = {}
  for key in WATCHED:
    what = key.removesuffix('_by_class')
    curves = class_balance.by_name(class_balance.shares(means[key]), names)
    found |= {f'{what}_share/{name}': share for name, share in curves.items()}
    found[f'{what}/classes'] = class_balance.classes_present(means[key])
    found[f'{what}/entropy'] = class_balance.entropy(means[key])
  for what, (part, whole, _) in RATIOS.items():
    for name, a, b in zip(names, means[part], means[whole], strict=True):
      if b > 0:
        found[f'{what}/{name}'] = float(a / b)
  return found


def summary(directory: pathlib.Path) -> dict[str, PyTree] | None:
  """What was seen up to the end of a stage, for its record; None for a stage that has no such.

  Returns:
    'window' (steps), 'warnings', and of 'kept' and 'predictions' the 'first' and the 'last' shares
    by class.
  """
  if not (directory / NAME).exists():
    return None
  try:
    found = records.read(directory / NAME, 'the record has no shares of classes', 'states')
  except BadInput as error:
    logging.warning('%s', error)
    return None
  state, names = found['states'][max(found['states'], key=int)], found['names']
  result: dict[str, PyTree] = {
    'window': found['window'],
    'warnings': list(state['warned'].values()),
  }
  for key in WATCHED:
    result[key.removesuffix('_by_class')] = {
      when: class_balance.by_name(class_balance.shares(state[when][key]), names)
      for when in ('first', 'last')
      if key in state[when]
    }
  return result
