"""Which of several machines with one working directory is at work on a part of it.

A lease is a file NAME.N, where N grows with every holder: exclusive creation makes two holders of
one N impossible, and no file is ever removed. The holder locks its file, and changes it every
`BEAT` seconds. It is dead if the lock is gone, which counts on the holder's own machine alone, or
if the file has not changed for `DEAD` seconds of the clock of the one who watches: clocks need not
agree, and locks of a network file system are not relied on.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import platform
import threading
import time
from collections.abc import Iterator
from typing import IO

from data_pipelines.errors import cannot_write
from diga_jax import signals
from diga_jax.types import PyTree

BEAT = 15.0  # seconds
DEAD = 180.0  # seconds; longer than network file systems remember what a file was


class Leases:
  """The leases in a folder, as one process sees them."""

  def __init__(self, place: pathlib.Path):
    self.place = place
    self._seen: dict[pathlib.Path, tuple[str, float]] = {}  # content, and since when it is that

  @contextlib.contextmanager
  def take(self, name: str) -> Iterator[bool]:
    """Holds a lease until the block ends, if it is free; gives whether it is held.

    If another machine takes it meanwhile, because this one was suspended or cut off for `DEAD`
    seconds, the process ends with status 75.

    Raises:
      BadInput: no file can be made in the folder.
    """
    number = self._newest(name)
    if not self._is_free(self._path(name, number)):
      yield False
      return
    try:
      self.place.mkdir(parents=True, exist_ok=True)
      file = self._path(name, number + 1).open('x')
    except FileExistsError:  # another was faster
      yield False
      return
    except OSError as error:
      raise cannot_write(self._path(name, number + 1), error) from None
    with file:
      fcntl.flock(file, fcntl.LOCK_EX)
      _write(file, 0)
      ended = threading.Event()
      beats = threading.Thread(target=self._beat, args=(file, name, number + 1, ended), daemon=True)
      beats.start()
      try:
        yield True
      finally:
        ended.set()
        beats.join()
        with contextlib.suppress(OSError):  # it will be found dead
          _write(file, None)

  def holder(self, name: str) -> str:
    """The machine and process that hold a lease, or held it last; '' if nobody has."""
    found = _read(self._path(name, self._newest(name)))
    return f'{found["host"]}, process {found["process"]}' if 'host' in found else ''

  def _newest(self, name: str) -> int:
    found = self.place.iterdir() if self.place.is_dir() else ()
    numbers = (path.name.removeprefix(f'{name}.') for path in found if path.name.startswith(name))
    return max((int(number) for number in numbers if number.isdecimal()), default=0)

  def _path(self, name: str, number: int) -> pathlib.Path:
    return self.place / f'{name}.{number}'

  def _is_free(self, path: pathlib.Path) -> bool:
    """Whether the newest file of a lease is of nobody, of one who has ended, or of a dead one."""
    if not path.exists():
      return True
    found = _read(path)
    if 'beat' in found and found['beat'] is None:
      return True
    if found.get('boot') == _boot() and not _is_locked(path):
      return True
    text, now = json.dumps(found), time.monotonic()
    if self._seen.get(path, ('', now))[0] != text:
      self._seen[path] = text, now
    return now - self._seen[path][1] > DEAD

  def _beat(self, file: IO[str], name: str, number: int, ended: threading.Event) -> None:
    beat = 0
    while not ended.wait(BEAT):
      beat += 1
      with contextlib.suppress(OSError):  # the disk is away: what counts is how long
        if self._newest(name) > number:
          line = (
            f'{name}: another machine works on it, as this one was not seen for {DEAD:.0f} s: the '
            'same command goes on'
          )
          signals.leave(75, line)
        _write(file, beat)


def _write(file: IO[str], beat: int | None) -> None:
  """Tells who holds a lease and how often it has said so; None: it has ended."""
  about = {'host': platform.node(), 'process': os.getpid(), 'boot': _boot(), 'beat': beat}
  file.seek(0)
  file.write(json.dumps(about) + '\n')
  file.truncate()
  file.flush()
  os.fsync(file.fileno())


def _read(path: pathlib.Path) -> dict[str, PyTree]:
  """What a file tells; {} while it is written, or if it is none."""
  try:
    found = json.loads(path.read_text())
  except (OSError, ValueError):
    return {}
  return found if isinstance(found, dict) else {}


def _boot() -> str:
  """What is another text on any other running kernel, whose locks this one does not see."""
  path = pathlib.Path('/proc/sys/kernel/random/boot_id')
  return path.read_text().strip() if path.exists() else platform.node()


def _is_locked(path: pathlib.Path) -> bool:
  with path.open() as file:
    try:
      fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
      return True
  return False
