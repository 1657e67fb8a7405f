"""Files compared with the SHA-256 that was written down when they were made."""

import concurrent.futures
import itertools
import pathlib
from collections.abc import Mapping

from data_pipelines import digests
from data_pipelines.errors import BadInput
from diga_jax.parallel import processes

SUMS = 'SHA256SUMS'  # in a folder: its files, in the format of the command sha256sum


class Damaged(BadInput):
  """A file that is not as it was written: `what` is wrong with it."""

  def __init__(self, what: str, redo: pathlib.Path):
    super().__init__(f'{what}; restore it from a copy, or rename {redo} to make it again')
    self.what = what


def of_files(directory: pathlib.Path, names: list[str]) -> dict[str, str]:
  """SHA-256 (hex) of files by their names in a folder; several processes share them."""
  names = processes.exchange(sorted(names))[0]  # a network file system may show others fewer yet
  own = digests.of_files(directory / names[i] for i in processes.local_share(len(names)))
  return dict(zip(names, processes.in_order(processes.exchange(own)), strict=True))


def check(directory: pathlib.Path, wanted: Mapping[str, str], redo: pathlib.Path) -> None:
  """Compares files of a folder with their SHA-256; several processes share them.

  Args:
    directory: the folder.
    wanted: name in the folder -> SHA-256 (hex).
    redo: the folder to make again, for the message.

  Raises:
    Damaged: in every process, naming the first file that is missing or another one.
  """
  names = sorted(wanted)
  own = [names[i] for i in processes.local_share(len(names))]
  with concurrent.futures.ThreadPoolExecutor(digests.THREADS) as pool:
    found = pool.map(_problem, (directory / name for name in own), (wanted[name] for name in own))
    problems = [problem for problem in found if problem]
  _raise_first(problems, redo)


def _problem(path: pathlib.Path, wanted: str) -> str:
  """What is wrong with a file; '' if it is as it was written."""
  try:
    return '' if digests.of_file(path) == wanted else f'{path}: is damaged (another SHA-256)'
  except OSError as error:
    return f'{path}: cannot be read ({error.strerror})'


def _raise_first(problems: list[str], redo: pathlib.Path) -> None:
  """Raises Damaged in every process if any of them has a problem."""
  everyones = sorted(itertools.chain(*processes.exchange(problems)))
  if everyones:
    more = f' ({len(everyones) - 1} more)' if len(everyones) > 1 else ''
    raise Damaged(f'{everyones[0]}{more}', redo)


def write_sums(directory: pathlib.Path) -> None:
  """Writes the `SUMS` of a folder, by one process."""
  names = sorted(_files(directory))
  found = digests.of_files(directory / name for name in names)
  (directory / SUMS).write_text(_text(dict(zip(names, found, strict=True))))


def check_sums(directory: pathlib.Path, redo: pathlib.Path) -> None:
  """Compares all files of a folder with its `SUMS`, as `check` does; there may be no others.

  Raises:
    Damaged: as `check`; also if the `SUMS` are missing or damaged.
  """
  path, wanted, problems = directory / SUMS, {}, []
  try:
    text = path.read_text()
    wanted = {name: found for found, name in (line.split('  ') for line in text.split('\n')[:-1])}
    if not wanted or _text(wanted) != text:
      raise ValueError
    others = _files(directory) - wanted.keys()
    problems = [f'{directory / name}: was not written with the checkpoint' for name in others]
  except OSError as error:
    problems = [f'{path}: cannot be read ({error.strerror})']
  except ValueError:
    problems = [f'{path}: is damaged']
  _raise_first(problems, redo)
  check(directory, wanted, redo)


def _files(directory: pathlib.Path) -> set[str]:
  paths = (path for path in directory.rglob('*') if not path.is_dir())
  return {path.relative_to(directory).as_posix() for path in paths} - {SUMS}


def _text(found: Mapping[str, str]) -> str:
  return ''.join(f'{found[name]}  {name}\n' for name in sorted(found))
