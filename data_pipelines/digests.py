"""SHA-256 of files, each hashed once: what has not changed since is remembered."""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
import stat
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Protocol

from data_pipelines import atomic
from data_pipelines.errors import BadInput

THREADS = min(8, 2 * (os.cpu_count() or 1))  # hashing and reading let go of the interpreter
LARGE = 2**28  # bytes to hash from which on a progress bar is shown
# Nanoseconds for which a file has been left alone before its digest is remembered: two changes
# within one tick of a file system's clock have the same time.
SETTLED = 2 * 10**9

Stamp = tuple[int, int, int]  # bytes, times of the last change of content and of anything (ns)


class Counter(Protocol):
  """What a progress bar is told."""

  def update(self, n: int = 1) -> object: ...


Bar = Callable[[int], contextlib.AbstractContextManager[Counter]]  # number of files -> its bar


def of_file(path: str | os.PathLike[str]) -> str:
  """SHA-256 of a file's bytes (hex). Raises OSError if it cannot be read."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def of_files(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
  """`of_file` of each of the files, in order, by threads."""
  return list(_each(paths))


def _each(paths: Iterable[str | os.PathLike[str]]) -> Generator[str]:
  pool = concurrent.futures.ThreadPoolExecutor(THREADS, thread_name_prefix='digests')
  try:
    yield from pool.map(of_file, paths)
  finally:
    pool.shutdown(cancel_futures=True)


def stamp(path: str) -> Stamp:
  """What changes when a file does. Raises BadInput if it is missing or no regular file."""
  try:
    found = os.stat(path)
  except OSError as error:
    raise BadInput(f'{path}: cannot be read ({error.strerror})') from None
  if not stat.S_ISREG(found.st_mode):
    raise BadInput(f'{path}: is not a file: put an image or a label there, or take its id out')
  return found.st_size, found.st_mtime_ns, found.st_ctime_ns


class Memory:
  """The digests of many files, with the stamps that the files had, in a JSON file.

  The time of the last change of anything cannot be set back, so that a file whose content changes
  is hashed again even if its size and its date are kept. A damaged memory is an empty one.

  Args:
    directory: where memories are; '' for one that forgets.
    pattern: of the files, whatever tells them from those of another memory.
  """

  def __init__(self, directory: str, pattern: str):
    name = f'{_checksum(os.path.abspath(pattern))[:16]}.json'
    self.place = pathlib.Path(directory, name) if directory else None
    self._entries: dict[str, list[int | str]] = {}
    with contextlib.suppress(OSError, ValueError):
      text = self.place.read_text(encoding='utf-8') if self.place else ''
      checksum, _, body = text.partition('\n')
      if checksum == _checksum(body):
        self._entries = json.loads(body)

  def digests(
    self, paths: Sequence[str], afresh: bool = False, bar: Bar | None = None, skip: bool = False
  ) -> list[str]:
    """The digests of files, in order; those are hashed that are new or have changed, or all.

    Raises BadInput: a file is missing or cannot be read; its digest is '' with `skip`.
    """
    if skip:
      readable = [path for path in paths if os.path.isfile(path) and os.access(path, os.R_OK)]
      known = dict(zip(readable, self.digests(readable, afresh, bar), strict=True))
      return [known.get(path, '') for path in paths]
    since, stamps = time.time_ns(), {path: stamp(path) for path in paths}
    found = {
      path: str(self._entries[path][-1])
      for path, now in stamps.items()
      if not afresh and self._entries.get(path, [])[:-1] == list(now)
    }
    new = [path for path in stamps if path not in found]
    large = bar is not None and sum(stamps[path][0] for path in new) > LARGE
    try:
      show = bar(len(new)) if bar and large else contextlib.nullcontext()
      with show as shown, contextlib.closing(_each(new)) as each:
        for path, digest in zip(new, each, strict=True):
          found[path] = digest
          if shown is not None:
            shown.update()
    except OSError as error:
      path = next(path for path in new if path not in found)
      raise BadInput(f'{path}: cannot be read ({error.strerror})') from None
    finally:  # what is hashed stays known, however this ends
      self.keep({path: (stamps[path], found[path]) for path in new if path in found}, since)
    return [found[path] for path in paths]

  def keep(self, found: dict[str, tuple[Stamp, str]], since: int) -> None:
    """Remembers, by path, the stamp that a file had before it was hashed, and its digest.

    `since` is when the stamps were taken (`time.time_ns`).
    """
    settled = {
      path: [*now, digest] for path, (now, digest) in found.items() if now[-1] + SETTLED < since
    }
    if not settled or not self.place:
      return
    self._entries |= settled
    body = json.dumps(self._entries)
    with contextlib.suppress(BadInput):  # without a memory it only takes longer
      atomic.write_text(self.place, f'{_checksum(body)}\n{body}')


def _checksum(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()
