"""Ids of images, paths below a pattern's folder: of lists, and of the files that are there."""

import functools
import itertools
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence

from absl import logging

from data_pipelines import image_files
from data_pipelines.errors import BadInput, printable

# What leaves the folder that an id is below, or means another one elsewhere.
UNSAFE = re.compile(r'(^|/)\.{0,2}(/|\Z)|[\\\x00-\x1f\x7f]')
LISTS = pathlib.Path(__file__).parent / 'lists'  # those that published numbers depend on


def check(ids: Sequence[str], where: str, lines: Sequence[int] = ()) -> None:
  """Refuses ids that stand twice, or that would leave the folders that files are written to.

  Args:
    ids: the ids.
    where: list or pattern that they are from, for messages; `lines` are those of the list.
  """
  places = {}
  for index, name in enumerate(ids):
    if UNSAFE.search(name):
      line = f', line {lines[index]}' if lines else ''
      raise BadInput(
        f"{where}{line}: {name!r} is no id: an id is a path below the pattern's folder, without "
        "'..', '.', empty parts, backslashes and control characters; change the pattern or the list"
      )
    if name in places:
      pair = [lines[i] if lines else i + 1 for i in (places[name], index)]
      what = 'lines' if lines else 'places'
      raise BadInput(
        f'{where}: {name!r} stands twice ({what} {pair[0]} and {pair[1]}): every image may stand '
        'once; take one off'
      )
    places[name] = index


def of_list(root: str, name: str, everything: Callable[[], list[str]]) -> list[str]:
  """The ids of a list, a file under `root` or one of `LISTS`, with the folders that they lie in.

  Raises BadInput: it does not exist or is empty, or two images end in the same name.
  """
  published = LISTS / f'{name}.txt'
  path = str(published) if published.is_file() else os.path.join(root, name)
  lines = _read_lines(path)
  ids = list(lines.values())
  if '/' in ids[0] or not any('/' in name for name in everything()):
    return ids
  found = {}
  for name in everything():
    last = name.rpartition('/')[2]
    if last in found:
      raise BadInput(
        f'{path}: names such as {last!r} are ambiguous: there are {found[last]} and {name}; write '
        'the folders as well'
      )
    found[last] = name
  ids = [found.get(name, name) for name in ids]
  check(ids, path, list(lines))  # with its folders and without, one image may stand twice
  return ids


def read_list(path: str) -> list[str]:
  """The ids of a list file. Raises BadInput: it does not exist or is empty, or as `check`."""
  return list(_read_lines(path).values())


def _read_lines(path: str) -> dict[int, str]:
  """Line number -> id of a list file."""
  try:
    text = image_files.read_file(path).decode()
  except UnicodeDecodeError:
    raise BadInput(f'{path}: the list of ids cannot be read (not a text file)') from None
  lines = {i: line.strip() for i, line in enumerate(text.split('\n'), 1) if line.strip()}
  if not lines:
    raise BadInput(f'{path}: the list is empty; write one id per line')
  check(list(lines.values()), path, list(lines))
  return lines


def of_files(pattern: str, warn: bool) -> list[str]:
  """The ids of all files that fit the pattern; warns of those that are left out."""
  ids, left_out = find_files(pattern)
  if left_out and warn:
    example, why = next(iter(left_out.items()))
    logging.warning(
      '%s: %d files are left out, such as %s: %s', pattern, len(left_out), printable(example), why
    )
  return ids


def find_files(pattern: str) -> tuple[list[str], dict[str, str]]:
  """The sorted ids of all files that fit the pattern; and why others are left out, by path.

  Sub-folders are included, also those that are links.
  """
  first, *others = (re.escape(part) for part in pattern.split('{id}'))
  expression = first + '(?P<id>.+)' + '(?P=id)'.join(others)
  fits, nearly = (
    re.compile(expression, re.DOTALL),
    re.compile(expression, re.DOTALL | re.IGNORECASE),
  )
  ids, left_out = [], {}
  for path in sorted(_walk(os.path.dirname(pattern.partition('{id}')[0]))):
    if not nearly.fullmatch(path):
      continue
    if not (match := fits.fullmatch(path)):
      left_out[path] = 'differs from the pattern in upper case alone'
    elif image_files.UNUSABLE_NAME.search(match['id']):
      left_out[path] = 'has a backslash, a control character or no UTF-8 in its name'
    else:
      ids.append(match['id'])
  return sorted(ids), left_out


def _walk(top: str) -> Iterator[str]:
  """All files below a folder; each folder once, by its own path before that of a link to it."""
  seen, waiting = set(), [top]
  walk = functools.partial(os.walk, onerror=_refuse_folder)
  while waiting:
    links = []
    for folder, folders, names in itertools.chain.from_iterable(map(walk, waiting)):
      facts = os.stat(folder)
      if (facts.st_dev, facts.st_ino) in seen:
        folders.clear()
        continue
      seen.add((facts.st_dev, facts.st_ino))
      links += [path for path in (os.path.join(folder, f) for f in folders) if os.path.islink(path)]
      yield from (os.path.join(folder, name) for name in names)
    waiting = sorted(links)


def _refuse_folder(error: OSError) -> None:
  if not isinstance(error, FileNotFoundError):
    raise BadInput(f'{error.filename}: the folder cannot be listed ({error.strerror})')
