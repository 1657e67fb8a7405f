"""How the processes of one run stay together, whatever each of them is doing.

Through the key-value store of JAX's coordination service, which process 0 keeps, they tell each
other that they live, that one has stopped and why, and where they are. A thread of every process
listens, and ends its process when another has stopped or is gone: what waits for a peer inside a
collective would never return. A process that compiles for ten minutes lives, and is waited for.
"""

import contextlib
import itertools
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Mapping

import jax
from jax._src import distributed  # the store has no public name

from data_pipelines.errors import BadInput
from diga_jax import signals
from diga_jax.types import PyTree

BEAT = 2.0  # seconds between two looks at the others
SILENT = 25.0  # seconds without a beat after which a process is gone
FAREWELL = 10.0  # seconds that process 0, which keeps the store, waits for the others to leave
ROOT = 'diga_jax'


class Group:
  """This process among the others; its two threads run until `close`."""

  def __init__(self, index: int, count: int):
    self.index, self.count = index, count
    assert distributed.global_state.client is not None  # `jax.distributed.initialize` made it
    self.store = distributed.global_state.client
    self.closed = False  # whether this process has taken leave
    self.present = set(range(count))  # those that are not known to be gone
    self.saved: Callable[[], str] = lambda: 'complete stages are kept'
    self.heard = time.monotonic()  # when the store last answered
    self.beats = {i: (-1, self.heard) for i in range(count)}  # last beat, and when it was new
    self.step: int | None = None  # the last step done, while there is something to save
    self.last_step: int | None = None  # after which all of them stop
    self.stopping = False  # whether a signal to one of them has been heard of
    self.deciding = threading.Lock()
    self.meetings = itertools.count()
    for work in (self._listen, self._watch_store)[: 2 if index else 1]:
      threading.Thread(target=work, name='group', daemon=True).start()

  # What is told.

  def put(self, key: str, value: str) -> None:
    """Sets a value for all to see."""
    self.store.key_value_set(f'{ROOT}/{key}', value, allow_overwrite=True)

  def wait_for(self, key: str, limit: float = math.inf) -> str:
    """The value of a key, once it is set; 'None' after `limit` seconds.

    Without a limit: a process that is gone, and never sets it, ends this one as well.
    """
    until = time.monotonic() + limit
    while time.monotonic() < until:
      try:
        return self.store.blocking_key_value_get(f'{ROOT}/{key}', 5_000)
      except jax.errors.JaxRuntimeError as error:
        if 'DEADLINE_EXCEEDED' not in str(error):
          raise
        self.heard = time.monotonic()
    return 'None'

  def all_of(self, key: str) -> dict[int, str]:
    """The values under a key that have been set so far, by process."""
    found = self.store.key_value_dir_get(f'{ROOT}/{key}/')
    return {int(name.rpartition('/')[2]): value for name, value in found}

  # Where they meet.

  def meet(self, name: str) -> None:
    """Waits until every process has come here.

    Raises:
      BadInput: another one has come to a place of another name.
    """
    number = next(self.meetings)
    self.put(f'at/{number}/{self.index}', name)
    if self.index == 0:
      for other in range(1, self.count):
        self.wait_for(f'at/{number}/{other}')
      self.put(f'go/{number}', name)
      self.store.key_value_delete(f'{ROOT}/at/{number}')
      if number:
        self.store.key_value_delete(f'{ROOT}/go/{number - 1}')
    elif (there := self.wait_for(f'go/{number}')) != name:
      raise BadInput(
        f'process {self.index} is at "{name}" and process 0 at "{there}": do all of them see the '
        'same working directory, and run the same version?'
      )

  def compare(self, what: str, values: Mapping[str, PyTree]) -> None:
    """Refuses values that differ from those of process 0; JSON-able, by name.

    Raises:
      BadInput: naming the first that differs.
    """
    own = json.loads(json.dumps(values))
    first = json.loads(self.tell(json.dumps(own)))
    for key in sorted(own.keys() | first.keys()):
      here, there = own.get(key, 'absent'), first.get(key, 'absent')
      if here != there:
        raise BadInput(
          f'{what}: {key} is {here!r} in process {self.index} and {there!r} in process 0: all '
          'processes need the same'
        )

  def tell(self, value: str) -> str:
    """The value of process 0."""
    number = next(self.meetings)
    if self.index == 0:
      self.put(f'told/{number}', value)
      return value
    return self.wait_for(f'told/{number}')

  # How they stop.

  def stops_after(self, step: int) -> bool:
    """Whether a signal, to whichever process, ends the training after this step.

    To be called after every step. The listener of a process that has been told of a signal holds
    this up while the last step is decided, so that no process has passed it.
    """
    with self.deciding:
      self.step = step
      return step == self.last_step

  def fail(self, line: str) -> None:
    """Tells the others why this process stops, before it does."""
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # the store is gone
      self.put(f'news/{self.index}', f'error {line}')
    self.farewell()

  def farewell(self) -> None:
    """Lets the others go first where their store is this process's; returns within `FAREWELL`."""
    self.closed = True
    until = time.monotonic() + FAREWELL
    try:
      if (number := signals.received()) is not None:
        self._tell_signal(number)
      self._report_step(None)
      self.put(f'left/{self.index}', '')
      while self.index == 0 and self.present - {*self.all_of('left')} and time.monotonic() < until:
        time.sleep(0.1)
    except jax.errors.JaxRuntimeError:
      return  # the others are gone, and the store with them

  def explain(self) -> None:
    """Waits for the listener to end this process after an error that a lost peer may have caused.

    Returns if all the others live: then it is this process's own.
    """
    time.sleep(SILENT + 3 * BEAT)
    if self.closed:  # by the listener, which is about to end the process
      time.sleep(2 * FAREWELL)

  def aborted(self) -> None:
    """As `explain`, in place of an abort: XLA's client then answers nothing any more."""
    time.sleep(3 * BEAT)
    if time.monotonic() - self.heard > 2 * BEAT:
      signals.leave(2, self.gone(0))
    self.explain()

  def close(self) -> None:
    """Ends with the others, all of them having done everything."""
    self.meet('the end')
    self.closed = True
    jax.distributed.shutdown()

  def _end(self, status: int, line: str) -> None:
    signals.say(line)
    self.farewell()
    signals.leave(status, line)

  def gone(self, other: int) -> str:
    """The line on a process that is not there any more."""
    return (
      f'process {other} of {self.count} is gone: it was killed or stopped, or its machine cannot '
      f'be reached; {self.saved()}, and the same command goes on'
    )

  # The threads.

  def _listen(self) -> None:
    told = False
    for beat in itertools.count():
      try:
        if not told and (number := signals.received()) is not None:
          told = self._tell_signal(number)
        self.put(f'beat/{self.index}', str(beat))
        news = self.all_of('news')
        if self.index == 0:
          self._check_beats(self.all_of('beat'))
      except jax.errors.JaxRuntimeError:  # process 0 is gone, and the store with it
        if not self.closed:
          signals.leave(2, self.gone(0))
        return
      self.heard = time.monotonic()
      for other, text in news.items():
        if not self.closed:
          self._hear(other, *text.split(' ', 1))
      if self.closed:
        return
      time.sleep(BEAT)

  def _tell_signal(self, number: int) -> bool:
    # To the others SIGHUP is SIGTERM, which nobody ignores.
    name = 'SIGINT' if number == signal.SIGINT else 'SIGTERM'
    self.put(f'news/{self.index}', f'stop {name}')
    return True

  def _hear(self, other: int, kind: str, text: str) -> None:
    if kind == 'error' and other != self.index:
      self._end(2, f'process {other} has stopped: {text}')
    if kind == 'stop' and not self.stopping:
      self.stopping = True
      signals.deliver(signal.Signals[text])
      self._decide_last_step()

  def _decide_last_step(self) -> None:
    with self.deciding:
      self._report_step(self.step)
      steps = [self.wait_for(f'step/{other}', SILENT) for other in range(self.count)]
      if 'None' in steps:  # one of them has nothing to save, and ends at once
        signals.abandon()
      else:
        self.last_step = max(map(int, steps)) + 1

  def _report_step(self, step: int | None) -> None:
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # what was told first holds
      self.store.key_value_set(f'{ROOT}/step/{self.index}', str(step))

  def _check_beats(self, beats: Mapping[int, str]) -> None:
    now = time.monotonic()
    for other in range(1, self.count):
      known, since = self.beats[other]
      if (beat := int(beats.get(other, -1))) != known:
        self.beats[other] = (beat, now)
      elif now - since > SILENT and not self.closed:
        line = self.gone(other)
        self.present.remove(other)
        self.put(f'news/{self.index}', f'error {line}')
        self._end(2, line)

  def _watch_store(self) -> None:
    """Ends the process when process 0 does not answer: the listener would wait for ever."""
    while not self.closed:
      time.sleep(1)
      if time.monotonic() - self.heard > SILENT and not self.closed:
        signals.leave(2, self.gone(0))
