"""The only training loop.

Its order, which resuming relies on: restore; then for every step: batch (a function of the seed and
the step), step, check, log, save. A stop at any moment loses at most the steps since the last save,
and those are repeated exactly.
"""

import contextlib
import dataclasses
import functools
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from clu import profiler
from clu.metric_writers import MetricWriter
from jax.sharding import Mesh
from orbax.checkpoint import CheckpointManager

from data_pipelines.errors import BadInput
from diga_jax import signals
from diga_jax.class_watch import ClassWatch
from diga_jax.parallel import processes
from diga_jax.parallel.mesh import compile_step
from diga_jax.progress import bar, compiling
from diga_jax.state import TrainState
from diga_jax.storage import checkpoint
from diga_jax.types import CheckpointTable, Metrics, Params


@dataclasses.dataclass(frozen=True)
class Options:
  """How a stage is trained."""

  name: str  # of the stage, for the progress bar
  steps: int  # the step to stop at
  directory: pathlib.Path  # holds checkpoints/ and the metrics for TensorBoard
  mesh: Mesh
  parallel: str  # see `mesh.compile_step`
  learning_rate: Callable[[int], float | jax.Array]  # step -> rate, for the log
  save_every: int  # steps
  log_every: int  # steps
  profile_steps: tuple[int, ...] = ()  # (first, last) to trace into `directory`; () = none
  criteria: tuple[str, ...] = ()  # by each of which the best checkpoint is kept as well
  score: Callable[[TrainState], dict[str, float]] | None = None  # state -> the scores by criterion
  classes: tuple[str, ...] = ()  # names, for metrics by class
  note_pace: Callable[[float, int], None] = lambda *_: None  # told (seconds, steps done in them)
  # (first step) -> where curves go, asked by the main process; None: nowhere.
  open_writer: Callable[[int], MetricWriter] | None = None
  evaluate_every: int = 0  # steps; and after the last one
  # (state, step, writer) -> lines on what was measured; nothing of the training depends on it.
  evaluate: Callable[[TrainState, int, MetricWriter | None], list[str]] | None = None

  def is_evaluated(self, done: int) -> bool:
    """Whether the network is evaluated after `done` steps."""
    due = self.evaluate_every > 0 and (done % self.evaluate_every == 0 or done == self.steps)
    return self.evaluate is not None and done > 0 and due


def train(
  step_fn: Callable[..., tuple[TrainState, Metrics]],
  state: TrainState,
  frozen: Params | None,
  batches: Callable[[int], Iterator[Mapping[str, np.ndarray]]],
  options: Options,
) -> CheckpointTable:
  """Trains up to a step, resuming from the newest checkpoint in the stage's directory.

  Args:
    step_fn: (state, batch, frozen) -> (state, metrics), pure.
    state: where to start if there is no checkpoint, on the mesh.
    frozen: variables that the step reads but does not change, on the mesh.
    batches: start step -> this process's rows of the batches from there on.
    options: of the stage.

  Returns:
    The checkpoints among which to choose, in order: the last alone, or with scores one every
    `save_every` steps.

  Raises:
    BadInput: a loss is not finite, a checkpoint cannot be written, or a batch cannot be read.
    signals.Stopped: after a signal, once the state is saved.
  """
  step_fn = compile_step(step_fn, options.mesh, options.parallel)
  directory, steps, score = options.directory, options.steps, options.score
  opened = checkpoint.open_manager(directory / 'checkpoints', criteria=options.criteria)
  done = 0
  with opened as manager, _deferral(options, lambda: done) as (deferred, stops_after):
    state = checkpoint.restore(manager, state)
    table = checkpoint.read_table(manager) if score else None
    stream = batches(start := int(state.step))
    opened_log = contextlib.closing(Log(options, start))
    with opened_log as log, trace_steps(directory, options.profile_steps) as profile:
      log.evaluate(state, start)  # if a kill came before the end of that
      for step in range(start, steps):
        profile(step)
        with log.waiting():
          batch = next(stream)
        with log.compiling() if step == start else contextlib.nullcontext():
          state, metrics = step_fn(state, batch, frozen)
        deferred.hold()  # from here on there is something to save
        done = step + 1
        stop, regular = stops_after(done), done % options.save_every == 0 or done == steps
        save = stop or regular
        log.step(done, metrics | (_numbers_of(state) if save else {}), now=save)
        if done % options.log_every == 0 or done == steps:
          log.write(done, learning_rate=float(options.learning_rate(step)))
        if save:
          # A step that only a signal saves is no candidate: it would depend on the signal.
          table = save_and_score(manager, state, done, table, score if regular else None, log)
          options.note_pace(*log.pace())
        if stop:
          break
        log.evaluate(state, done, functools.partial(_release, manager, deferred) if save else None)
      if steps == 0 and manager.latest_step() is None:  # what it starts from is the result
        log.check(0, _numbers_of(state))
        table = save_and_score(manager, state, 0, table, score, log)
    _release(manager, deferred)
    return [{'step': manager.latest_step() or 0}] if table is None else table


def _release(manager: CheckpointManager, deferred: signals.Deferral) -> None:
  """What is being saved is on disk from here on: a signal need not wait for anything."""
  checkpoint.finish(manager)
  deferred.release()


def _deferral(
  options: Options, done: Callable[[], int]
) -> contextlib.AbstractContextManager[tuple[signals.Deferral, Callable[[int], bool]]]:
  """Signals wait until the step that is being computed, the `done()`th, is saved."""
  return processes.deferral(
    lambda name: f'{options.name}: stopped by {name} after step {done()}, which is saved',
    lambda: f'{options.name}: {checkpoint.newest_on_disk(options.directory / "checkpoints")}',
  )


@jax.jit
def _numbers_of(state: TrainState) -> Metrics:
  """Numbers that are finite only if all of a state are: computed before it is saved."""
  found = {'parameter_norm': optax.tree.norm((state.params, state.batch_stats))}
  for name, part in vars(state).items():
    leaves = [x for x in jax.tree.leaves(part) if jnp.issubdtype(x.dtype, jnp.floating)]
    if leaves:
      found[f'largest/{name}'] = functools.reduce(jnp.maximum, [jnp.abs(x).max() for x in leaves])
  return found


class Log:
  """A progress bar, curves for the trackers, and an error at the first number that is not finite.

  The metrics of a step are read while the next one is computed, so that the devices never wait for
  the host.
  """

  def __init__(self, options: Options, start: int):
    self.options, self.name, self.first = options, options.name, processes.is_main_process()
    watched = (options.directory, self.name, options.classes, start, options.steps)
    self.watch = ClassWatch(*watched) if self.first and options.classes else None
    self.bar = bar(options.steps, self.name, self.first, unit='steps', initial=start)
    self.writer = options.open_writer(start) if self.first and options.open_writer else None
    self.pending: tuple[int, Metrics] | None = None
    self.values: dict[str, float] = {}
    self.since, self.waited, self.counted = time.perf_counter(), 0.0, 0
    self.checked: list[tuple[float, int]] = []  # when which step was, the first and the last one

  def close(self) -> None:
    """Ends the bar and the curves."""
    self.bar.close()
    if self.writer:
      self.writer.close()

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """Counts the time inside as waiting for the input."""
    begun = time.perf_counter()
    yield
    self.waited += time.perf_counter() - begun

  @contextlib.contextmanager
  def compiling(self) -> Iterator[None]:
    """Around the first step: tells how long compiling takes, and leaves it out of the rates."""
    begun = time.perf_counter()
    with compiling(self.bar, self.name):
      yield
    self.since += time.perf_counter() - begun

  def step(self, done: int, metrics: Metrics, now: bool = False) -> None:
    """Records a step; checks the one before, and this one too if `now`."""
    self._check_pending()
    self.pending, self.counted = (done, metrics), self.counted + 1
    if now:
      self._check_pending()
    self.bar.update()

  def _check_pending(self) -> None:
    if self.pending is not None:
      self.pending, (done, metrics) = None, self.pending
      self.check(done, metrics)
      self.checked = [*self.checked[:1], (time.perf_counter(), done)]

  def pace(self) -> tuple[float, int]:
    """Seconds, and the steps done in them: all of this process but the first, which compiles."""
    (begun, first), (now, last) = self.checked[0], self.checked[-1]
    return now - begun, last - first

  def check(self, done: int, metrics: Metrics) -> None:
    """Takes note of the numbers of a step; raises BadInput if one of them is not finite."""
    found = jax.device_get(metrics)
    for key, value in found.items():
      if not np.isfinite(value).all():
        raise BadInput(
          f'{self.name}: {key} is {value} at step {done}; the checkpoints before it are kept. '
          "Lower the stage's learning rate, or look at its images and labels and its start"
        )
    self.values = {key: float(value) for key, value in found.items() if not np.ndim(value)}
    by_class = {key: value for key, value in found.items() if np.ndim(value)}
    window = self.watch.step(done, by_class) if self.watch and by_class else None
    if window and self.writer:
      self.writer.write_scalars(done, window.scalars)
      self.writer.write_histograms(done, window.histograms)

  def evaluate(
    self, state: TrainState, done: int, before: Callable[[], None] | None = None
  ) -> None:
    """Evaluates the network if that is due after `done` steps, and leaves it out of the rates."""
    if self.options.evaluate is None or not self.options.is_evaluated(done):
      return
    if before is not None:
      before()
    begun = time.perf_counter()
    for line in self.options.evaluate(state, done, self.writer):
      if self.first:
        self.bar.write(line, file=sys.stderr)
    self.since += time.perf_counter() - begun

  def write(self, done: int, **more: float) -> None:
    """Writes the metrics of a step, and how the time since the last call was spent."""
    self._check_pending()
    passed = time.perf_counter() - self.since
    times = {
      'seconds_per_step': passed / self.counted,
      'input_wait_per_step': self.waited / self.counted,
    }
    self.since, self.waited, self.counted = time.perf_counter(), 0.0, 0
    if self.writer:
      self.writer.write_scalars(done, {**self.values, **more, **times})
    share = times['input_wait_per_step'] / times['seconds_per_step']
    self.bar.set_postfix(loss=f'{self.values["loss"]:.3f}', wait=f'{share:.0%}', refresh=False)


def save_and_score(
  manager: CheckpointManager,
  state: TrainState,
  done: int,
  table: CheckpointTable | None,
  score: Callable[[TrainState], dict[str, float]] | None,
  log: Log,
) -> CheckpointTable | None:
  """Saves the state after `done` steps with the scores so far, and its own if it has any."""
  if table is not None and score is not None:
    found = score(state)
    table = [*table, {'step': done, **found}]
    if log.writer:
      log.writer.write_scalars(done, {f'criteria/{name}': found[name] for name in found})
    if log.first:
      text = ', '.join(f'{name} {value:.4f}' for name, value in found.items())
      log.bar.write(f'{log.name}: step {done}, {text}', file=sys.stderr)
  if log.watch:
    log.watch.save(done)
  checkpoint.save(manager, state, done, table)
  return table


@contextlib.contextmanager
def trace_steps(directory: pathlib.Path, steps: tuple[int, ...]) -> Iterator[Callable[[int], None]]:
  """Gives a function to be called before each step: traces those from steps[0] to steps[1]."""
  running = False

  def before(step: int) -> None:
    nonlocal running
    wanted = bool(steps) and steps[0] <= step + 1 <= steps[1]
    if wanted and not running:
      profiler.start(str(directory))
    if running and not wanted:
      profiler.stop()
      logging.warning('profiler trace of steps %d to %d: %s', *steps, directory)
    running = wanted

  try:
    yield before
  finally:
    if running:
      profiler.stop()
