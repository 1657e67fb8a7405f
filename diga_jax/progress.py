"""What a run shows on its way: bars on stderr, and warnings above them."""

import contextlib
import contextvars
import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TextIO

import tqdm
from tqdm.utils import ObjectWrapper

from data_pipelines.errors import one_line

LOG_INTERVAL = 30.0  # seconds between two lines where there is no terminal
LOG_WIDTH = 120
LEAST = 1.0  # seconds of compiling that are told
# Always per second: "3.25s/ images" reads badly.
FORMAT = '{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]'
_around = contextvars.ContextVar[tuple[str, ...]]('around', default=())  # what `within` names


class _Log(ObjectWrapper):
  """A stream without the line break alone that ends a bar, whose lines in a log end themselves."""

  def write(self, text: str) -> None:
    if text != '\n':
      self._wrapped.write(text)


class _Bar(tqdm.tqdm):
  """A tqdm that writes lines, not carriage returns, into a log."""

  monitor_interval = 0  # no monitoring thread: every update checks the clock itself

  @staticmethod
  def status_printer(file: TextIO) -> Callable[[str], None]:
    if file.isatty():
      return tqdm.tqdm.status_printer(file)

    def print_line(text: str) -> None:
      if text.strip():  # closing a bar that leaves nothing behind prints blanks
        file.write(text + '\n')
        file.flush()

    return print_line


class Warnings(logging.StreamHandler[TextIO]):
  """Prints what is logged on stderr, as 'warning: ...', above the bars of a terminal."""

  def __init__(self):
    super().__init__(sys.stderr)
    self.setFormatter(logging.Formatter('%(levelname)s: %(message)s'))

  def format(self, record: logging.LogRecord) -> str:
    level, _, text = super().format(record).partition(':')
    return f'{level.lower()}:{text}'

  def emit(self, record: logging.LogRecord) -> None:
    """In a log every bar would be printed again below the line."""
    if not sys.stderr.isatty():
      return super().emit(record)
    tqdm.tqdm.write(self.format(record), file=sys.stderr)


def show_warnings() -> None:
  """From now on what libraries warn of is one line each, without their names and code."""
  logging.basicConfig(handlers=[Warnings()], level=logging.WARNING)
  warnings.formatwarning = lambda message, *_, **__: f'warning: {one_line(message)}\n'


@contextlib.contextmanager
def within(*names: str) -> Iterator[None]:
  """The bars made inside are of these: 'seed 0 label_1 pseudo-labels'; empty names are left out."""
  token = _around.set((*_around.get(), *filter(None, names)))
  try:
    yield
  finally:
    _around.reset(token)


def bar(
  total: int, description: str, show: bool = True, unit: str = 'images', initial: int = 0
) -> tqdm.tqdm:
  """A context manager with `.update(n)` and `.set_postfix(...)`; shows rate and time left.

  On a terminal it is redrawn a few times a second. Anywhere else (a log, a pipe) it writes at
  most one line per 30 seconds, and one at either end.
  """
  terminal = sys.stderr.isatty()
  return _Bar(
    total=total,
    initial=initial,
    desc=' '.join((*_around.get(), description)),
    unit=f' {unit}',
    disable=not show,
    file=sys.stderr if terminal else _Log(sys.stderr),
    bar_format=FORMAT,
    mininterval=0.2 if terminal else LOG_INTERVAL,
    miniters=1,
    dynamic_ncols=terminal,
    ncols=None if terminal else LOG_WIDTH,
  )


@contextlib.contextmanager
def compiling(shown: tqdm.tqdm, what: str) -> Iterator[None]:
  """Around the first call of a program: a line of its own, as it may take seconds to minutes.

  What takes less than a second has none: the program was there already.

  Args:
    shown: the bar of the loop, which does not count the time.
    what: is compiled.
  """
  if shown.disable:
    yield
    return
  terminal, begun, said = sys.stderr.isatty(), time.perf_counter(), threading.Event()

  def say() -> None:
    if terminal:
      shown.clear()
    print(f'compiling {what} ...', end=' ', file=sys.stderr, flush=True)
    said.set()

  timer = threading.Timer(LEAST, say)
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()
    timer.join()
    if said.is_set():
      print(f'{time.perf_counter() - begun:.0f} s', file=sys.stderr, flush=True)
  shown.unpause()
  if terminal:
    shown.refresh()
