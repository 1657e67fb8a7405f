"""The image and video files that paths, folders and patterns name, and names for their labels."""

import glob
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from absl import logging

from data_pipelines import video_files
from data_pipelines.errors import BadInput, printable
from data_pipelines.image_files import why_no_file

SHOWN = 10  # names of files that are left out
SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.tif', '.tiff')


class Found(NamedTuple):
  """A file to label.

  Attributes:
    path: of the file.
    name: of what is made of it, without an ending: the path below the folder, or below the part of
      a pattern before its first wildcard, with '/'.
  """

  path: pathlib.Path
  name: str

  @property
  def is_video(self) -> bool:
    return self.path.suffix.lower() in video_files.SUFFIXES


def find_images(
  paths: Sequence[str | os.PathLike],
  recursive: bool = False,
  output: str | os.PathLike | None = None,
) -> list[Found]:
  """Files as given, those of patterns, and the images of folders, sorted within each.

  A path that exists is no pattern, whatever is in its name. Videos have to be given by name or
  pattern. Warns of what else is in a folder, hidden files apart, since it is left out.

  Args:
    paths: files, folders, and patterns as of `glob` ('**' for folders in folders).
    recursive: whether folders in the folders are searched too.
    output: where labels are written: not searched.

  Raises:
    BadInput: a path that does not exist, a pattern without a file, or no image at all.
  """
  inside = pathlib.Path(output).resolve() if output else None
  found = {}
  for path in map(pathlib.Path, paths):
    for each in _found_by(path, recursive, inside):
      found[each.path.resolve(), each.name] = each  # a file that is named twice is labelled once
  if not found:
    named = ', '.join(map(str, paths)) or 'no path given'
    below = '' if recursive else ', not in folders of folders: --recursive'
    raise BadInput(f'{named}: no image found (looked for {", ".join(SUFFIXES)}{below})')
  return list(found.values())


def _found_by(path: pathlib.Path, recursive: bool, output: pathlib.Path | None) -> Iterator[Found]:
  if path.is_dir():
    yield from _in_folder(path, path, recursive, output)
  elif path.exists():
    yield Found(path, path.stem)
  elif glob.has_magic(str(path)):
    root = _fixed_part(path)
    matches = map(pathlib.Path, sorted(glob.glob(str(path), recursive=True)))
    files = [match for match in matches if match.is_file() and not _lies_in(match, output)]
    if not files:
      raise BadInput(f'{path}: no file matches this pattern')
    yield from (_named(file, root) for file in files)
  else:
    raise BadInput(f'{path}: no such image or folder ({why_no_file(path)})')


def _in_folder(
  folder: pathlib.Path, root: pathlib.Path, recursive: bool, output: pathlib.Path | None
) -> Iterator[Found]:
  """The images of a folder, and then of those in it; `root` is the one that was given."""
  inside = sorted(p for p in folder.iterdir() if not p.name.startswith('.'))
  images = [p for p in inside if p.suffix.lower() in SUFFIXES and p.is_file()]
  folders = [p for p in inside if recursive and p.is_dir() and not p.is_symlink()]
  left_out = sorted(set(inside).difference(images, folders))
  if left_out:
    names = [printable(p.name) for p in left_out]
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    logging.warning(
      '%s: left out, since no image files: %s%s', folder, ', '.join(names[:SHOWN]), more
    )
  yield from (_named(p, root) for p in images)
  for each in folders:
    if not _lies_in(each, output):
      yield from _in_folder(each, root, recursive, output)


def _named(path: pathlib.Path, root: pathlib.Path) -> Found:
  return Found(path, path.relative_to(root).with_suffix('').as_posix())


def _lies_in(path: pathlib.Path, output: pathlib.Path | None) -> bool:
  return output is not None and path.resolve().is_relative_to(output)


def _fixed_part(pattern: pathlib.Path) -> pathlib.Path:
  """The folder before the first wildcard."""
  parts = []
  for part in pattern.parts[:-1]:
    if glob.has_magic(part):
      break
    parts.append(part)
  return pathlib.Path(*parts)
