"""Ids of images, paths below a pattern's folder: of lists, and of the files that are there."""

import codecs
import functools
import itertools
import os
import pathlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from absl import logging

from data_pipelines import file_names, image_files
from data_pipelines.errors import BadInput, printable

# What leaves the folder that an id is below, or means another one elsewhere.
UNSAFE = re.compile(r'(^|/)\.{0,2}(/|\Z)|[\\\x00-\x1f\x7f]')
COLUMNS = re.compile(r'[\s,;]+')  # what separates those of a list
ENDINGS = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', '.bmp', '.webp')
HIDDEN = 'is hidden by a dot: a file of the system, such as macOS writes, or of a tool'
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


def of_list(root: str, name: str, pattern: str, everything: Callable[[], list[str]]) -> list[str]:
  """The ids of a list, a file under `root` or one of `LISTS`.

  A line is an id; or the end of the path of an image, from a '/' on, with its ending, another one
  or none; or the last parts of an id that has folders before it ('jena_000078_000019' for
  'jena/jena_000078_000019'). If it is none of these, its first column may be (blanks, commas).

  Args:
    root, name: the list.
    pattern: of the images.
    everything: gives the ids of all images.

  Raises:
    BadInput: it does not exist or is empty, as `check`, or a line fits two images.
  """
  published = LISTS / f'{name}.txt'
  path = str(published) if published.is_file() else os.path.join(root, name)
  lines, known = _read_lines(path), set(everything())
  ends = functools.cache(lambda: _ends(known, pattern))
  ids = []
  for number, line in lines.items():
    found = [line] if line in known else _meant(line, known, ends())
    if len(found) > 1:
      raise BadInput(
        f'{path}, line {number}: {line!r} is ambiguous: there are {" and ".join(found[:2])}; write '
        'the folders as well'
      )
    ids += found
  check(ids, path, list(lines))  # with its folders and without, one image may stand twice
  return ids


def _meant(line: str, known: Collection[str], ends: Mapping[str, Collection[str]]) -> list[str]:
  """The ids that a line of a list may mean; itself if there is no such image."""
  first = COLUMNS.split(line)[0]
  for text in (line, first, _without_ending(line), _without_ending(first)):
    if text in known:
      return [text]
    if text in ends:
      return sorted(ends[text])
  return [line]


def _without_ending(name: str) -> str:
  ending = file_names.ending_of(name)
  return name.removesuffix(ending) if ending.lower() in ENDINGS else name


def _ends(ids: Collection[str], pattern: str) -> dict[str, set[str]]:
  """The ids by every end of their own and of their files' paths, from a '/' on."""
  found: dict[str, set[str]] = {}
  for name in ids:
    path = file_names.normal(pattern.replace('{id}', name))
    for text in (name, path, _without_ending(path)):
      found.setdefault(text, set()).add(name)
      while '/' in text:
        text = text.partition('/')[2]
        found.setdefault(text, set()).add(name)
  return found


def read_list(path: str) -> list[str]:
  """The lines of a list file. Raises BadInput: it does not exist or is empty, or as `check`."""
  lines = _read_lines(path)
  check(list(lines.values()), path, list(lines))
  return list(lines.values())


def _read_lines(path: str) -> dict[int, str]:
  """Line number -> what stands there, of the lines of a list file that are not empty."""
  data = image_files.read_file(path)
  wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
  try:
    text = file_names.normal(data.decode('utf-16' if wide else 'utf-8-sig'))
  except UnicodeDecodeError:
    raise BadInput(f'{path}: the list of ids cannot be read (not a text file)') from None
  split = re.split('\r\n|\r|\n', text)
  lines = {i: line.strip() for i, line in enumerate(split, 1) if line.strip()}
  if not lines:
    raise BadInput(f'{path}: the list is empty; write one id per line')
  return lines


def of_files(pattern: str, apart: str, warn: bool) -> list[str]:
  """The ids of all files that fit the pattern; warns of those that are left out."""
  ids, left_out = find_files(pattern, apart)
  if left_out and warn:
    example, why = next(iter(left_out.items()))
    logging.warning(
      '%s: %d files are left out, such as %s: %s', pattern, len(left_out), printable(example), why
    )
  return ids


def find_files(pattern: str, apart: str = '') -> tuple[list[str], dict[str, str]]:
  """The sorted ids of all files that fit the pattern; and why others are left out, by path.

  Sub-folders are included, also those that are links. The case of the ending does not matter. A
  file that also fits `apart`, by the id of another file, belongs to that one and is not meant.
  """
  exact, nearly = _expression(pattern), _expression(pattern, re.IGNORECASE)
  fits, others = (_expression(text, any_ending=True) for text in (pattern, apart))
  found, left_out = {}, {}
  for path in sorted(walk(os.path.dirname(pattern.partition('{id}')[0]))):
    name = file_names.normal(path)
    if not nearly.fullmatch(name):
      continue
    if not (match := fits.fullmatch(name)):
      left_out[path] = 'differs from the pattern in upper case alone'
    elif image_files.UNUSABLE_NAME.search(match['id']):
      left_out[path] = 'has a backslash, a control character or no UTF-8 in its name'
    elif re.search(r'(^|/)\.[^/.]', match['id']):
      left_out[path] = HIDDEN
    else:
      found.setdefault(match['id'], []).append(path)
  for name, paths in list(found.items()):
    first, *more = sorted(
      paths, key=lambda path: (not exact.fullmatch(path), path != file_names.normal(path), path)
    )
    left_out |= dict.fromkeys(more, f'has the id of {first}')
    match = apart and others.fullmatch(file_names.normal(first))
    if match and match['id'] != name and match['id'] in found:
      del found[name]
  return sorted(found), left_out


def _expression(
  pattern: str, flags: re.RegexFlag = re.NOFLAG, any_ending: bool = False
) -> re.Pattern[str]:
  """What paths fit a pattern; `any_ending`: whatever the case of the file's ending."""
  start, braces, last = file_names.normal(pattern).rpartition('{id}')
  end = file_names.ending_of(last)
  parts = f'{start}{braces}{last.removesuffix(end)}'.split('{id}')
  first, *others = map(re.escape, parts)
  text = f'{first}(?P<id>.+){"(?P=id)".join(others)}(?{"i" * any_ending}:{re.escape(end)})'
  return re.compile(text, re.DOTALL | flags)


def walk(top: str) -> Iterator[str]:
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
