"""Signals that end a command, at any moment of it.

SIGTERM (the notice before a pre-emption) and SIGHUP (the terminal is gone) end it with status 75,
SIGINT (Ctrl-C) with 130, and one line; the same command goes on where it stopped. Files are whole
or absent at any time, so it ends at once, unless there is something to save (`Deferral`). A second
signal ends it without saving. SIGHUP that was ignored at the start (nohup) stays ignored; SIGINT,
which scripts let jobs in the background ignore, does not.

Needs the standard library alone: it is installed before the imports that take seconds.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

STATUS = {signal.SIGTERM: 75, signal.SIGHUP: 75, signal.SIGINT: 130}  # 75: EX_TEMPFAIL, try again
GRACE = 3.0  # seconds in which the main thread may end by itself
REPEAT = 0.5  # seconds: `timeout` and launchers signal a process and its group, which is one notice


class Stopped(SystemExit):
  """A signal has stopped the command; its text is the line to print.

  Not an Exception: whoever takes any Exception for a damaged file must not take this one.
  """

  def __init__(self, number: int, text: str = ''):
    super().__init__(text or f'stopped by {signal.Signals(number).name}: the same command goes on')
    self.code = STATUS[signal.Signals(number)]


class _State:
  """What has been received; written by the main thread and by the listener."""

  def __init__(self):
    self.received: int | None = None
    self.since = 0.0  # when, by the listener's clock
    self.deferred = False
    self.abandoned = False
    self.raised = False
    self.delivered = False  # by another process, and not yet by the launcher
    self.said = False
    self.farewell: Callable[[], None] = lambda: None


_state = _State()
_lock = threading.Lock()


def install() -> None:
  """From now on these signals end the program, wherever it is; to be called by the main thread."""
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  threading.Thread(target=_listen, args=(reader,), name='signals', daemon=True).start()
  handle()
  # Where Python cannot pass it on (a finalizer) it is not printed: `_listen` ends the process.
  before = sys.unraisablehook
  sys.unraisablehook = lambda args: None if args.exc_type is Stopped else before(args)


def handle() -> None:
  """Sets the handlers; again after a library has set its own."""
  for number in STATUS:
    if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
      signal.signal(number, _interrupt)


def finish() -> None:
  """The command is done: a signal while the interpreter ends has nothing to interrupt."""
  _state.raised = True


def received() -> int | None:
  """The signal that has been received, if any."""
  return _state.received


def deliver(number: int) -> None:
  """Sends this process SIGTERM or SIGINT, which another one has received."""
  if _state.received is not None:
    return
  _state.delivered = True
  os.kill(os.getpid(), number)


def abandon() -> None:
  """Ends what `Deferral.hold` began, for good: nothing more can be saved."""
  _state.abandoned, _state.deferred = True, False


def say(line: str) -> None:
  """Prints the one line that tells why the command ends; the first of several threads wins."""
  with _lock:
    if not _state.said:
      _state.said = True
      with contextlib.suppress(OSError, ValueError):  # the terminal is gone
        print(f'diga_jax: {line}', file=sys.stderr, flush=True)


def report(error: BaseException) -> int:
  """Prints the line on the signal that an error comes from; its status."""
  stopped = error if isinstance(error, Stopped) else Stopped(_state.received or signal.SIGTERM)
  say(str(stopped))
  return int(stopped.code or 0)


def leave(status: int, line: str) -> None:
  """Prints the line and ends the process, from any thread and whatever the main thread does."""
  say(line)
  with contextlib.suppress(OSError, ValueError):
    sys.stdout.flush()
  os._exit(status)


def at_leaving(farewell: Callable[[], None]) -> None:
  """Registers what is done before a signal ends the process while the main thread is busy."""
  _state.farewell = farewell


class Deferral:
  """A context manager: from `hold` on until its end, signals interrupt nothing.

  At the end Stopped is raised if one has come; its text is `text(signal's name)`.
  """

  def __init__(self, text: Callable[[str], str]):
    self.text = text

  def __enter__(self) -> 'Deferral':
    return self

  def hold(self) -> None:
    """There is something to save from now on."""
    _state.deferred = not _state.abandoned

  def release(self) -> None:
    """It is saved; raises Stopped if a signal has come meanwhile."""
    _state.deferred = False
    if _state.received is not None:
      _state.raised = True
      name = signal.Signals(_state.received).name
      raise Stopped(_state.received, self.text(name))

  def __exit__(self, *_: object) -> None:
    _state.deferred = False


def _interrupt(number: int, _: FrameType | None) -> None:
  """The handler, which Python runs in the main thread, between two instructions."""
  if _state.received is None:
    _state.received = number
  if not _state.deferred and not _state.raised:
    _state.raised = True
    raise Stopped(number)


def _listen(reader: int) -> None:
  """Ends the process where the main thread cannot: it compiles, or waits for a file.

  The interpreter writes the number of a signal into the pipe at once; the handler has to wait
  until the main thread is back in Python.
  """
  while True:
    waiting = _state.received is not None
    if not select.select([reader], [], [], GRACE if waiting else None)[0]:
      if _state.received is not None and not _state.deferred:
        _end(str(Stopped(_state.received)))
      continue
    number = os.read(reader, 1)[0]
    if number not in STATUS:
      continue
    now = time.monotonic()
    if not _state.since:
      _state.received, _state.since = _state.received or number, now
      if number == signal.SIGHUP:
        _detach()
    elif _state.delivered:  # the launcher's notice to all, which another process had first
      _state.delivered, _state.since = False, now
    elif now - _state.since > REPEAT:
      _end('stopped by a second signal, at once: the same command goes on from the last save')


def _end(line: str) -> None:
  """Ends the process as the received signal tells."""
  say(line)
  _state.farewell()
  leave(STATUS[signal.Signals(_state.received)], line)


def _detach() -> None:
  """Sends the output to nowhere if the terminal is gone: printing would fail."""
  for stream in (1, 2):
    try:
      os.write(stream, b'')
    except OSError:
      os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
