"""A folder of images, with or without labels, read one by one with Pillow.

The input pipeline (`pipeline.py`) reads the same files with TensorFlow; both give the same pixels.
"""

import dataclasses
import functools
import hashlib
import os
import re
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from data_pipelines import labels as label_tables
from data_pipelines.errors import BadInput

# The first bytes of a PNG file, up to and including bit depth and colour type (PNG specification,
# 5.2 and 11.2.2).
PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
PNG_HEADER_SIZE = 26
PNG_GREY, PNG_PALETTE = 0, 3


@dataclasses.dataclass(frozen=True)
class Folder:
  """Images and labels on disk, found by id.

  Attributes:
    images: path pattern with `{id}`, such as '/data/images/{id}.jpg'.
    labels: the same for label files (8-bit greyscale or palette PNG), '' when there are none.
    ids: the images' ids in order; an id with '/' lies in a sub-folder.
    table: the key of `labels.TABLES` that turns pixel values into train ids.
    classes: number of classes of the task, None for as many as the table has.

  Raises (on construction):
    BadInput: no ids, a pattern without `{id}`, or a table that does not fit. Files are not looked
      at: `folder` and `check` do that.
  """

  images: str
  labels: str = ''
  ids: Sequence[str] = ()
  table: str = 'identity'
  classes: int | None = None

  def __post_init__(self) -> None:
    object.__setattr__(self, 'ids', list(self.ids))
    for pattern in filter(None, (self.images, self.labels)):
      if '{id}' not in pattern:
        raise BadInput(f'{pattern}: a path pattern needs {{id}} where the id of an image stands')
    if not self.ids:
      raise BadInput(f'{self.images}: there are no images; check the pattern and the list')
    label_tables.lut(self.table, self.classes)

  def __len__(self) -> int:
    return len(self.ids)

  @functools.cached_property
  def lut(self) -> np.ndarray:
    """int16 [256]: pixel value of a label file -> train id, 255, or -1 (unknown)."""
    return label_tables.lut(self.table, self.classes)

  def image_path(self, index: int) -> str:
    return self.images.replace('{id}', self.ids[index])

  def label_path(self, index: int) -> str:
    """The label file of an image, '' when the folder has no labels."""
    return self.labels.replace('{id}', self.ids[index])

  def with_labels(self, labels: str, table: str = 'identity') -> 'Folder':
    """The same images with other labels, such as pseudo-labels ('' for none).

    Raises:
      BadInput: a label file is missing.
    """
    changed = dataclasses.replace(self, labels=labels, table=table)
    changed.check()
    return changed

  def check(self) -> None:
    """Raises BadInput naming the first image or label that does not exist."""
    _check_exist(map(self.image_path, range(len(self))), 'image')
    if self.labels:
      _check_exist(map(self.label_path, range(len(self))), 'label')

  def read(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
    """One image and its label.

    Returns:
      uint8 [h, w, 3] RGB and uint8 [h, w] train ids (255 = ignored), or None without labels.

    Raises:
      BadInput: a file is missing or damaged, the sizes differ, or a label id is unknown.
    """
    image = read_image(self.image_path(index))
    if not self.labels:
      return image, None
    path = self.label_path(index)
    label = self.lut[read_label(path)]
    if label.shape != image.shape[:2]:
      raise BadInput(
        f'{path}: the label has {_size(label)} pixels, its image {_size(image)}; make them equal'
      )
    if label.min() == label_tables.UNKNOWN:
      raw = np.unique(read_label(path)[label == label_tables.UNKNOWN])
      raise BadInput(
        f'{path}: label id {", ".join(map(str, raw[:5]))} is unknown to the table {self.table!r}'
        f'{self._of_classes()}; mend the file or choose another table'
      )
    return image, label.astype(np.uint8)

  def fingerprint(self) -> str:
    """SHA-256 (hex) over every id, size of the image file and size of the label file in bytes."""
    digest = hashlib.sha256()
    images = _sizes(map(self.image_path, range(len(self))))
    labels = _sizes(map(self.label_path, range(len(self)))) if self.labels else {}
    for index, name in enumerate(self.ids):
      sizes = images.get(self.image_path(index)), labels.get(self.label_path(index))
      digest.update(f'{name}\0{sizes[0]}\0{sizes[1]}\n'.encode())
    return digest.hexdigest()

  def _of_classes(self) -> str:
    return '' if self.classes is None else f' with {self.classes} classes'


def folder(
  root: str,
  images: str,
  labels: str = '',
  list: str = '',
  table: str = 'identity',
  classes: int | None = None,
) -> Folder:
  """The images under a root folder, checked.

  Args:
    root: the folder; the other paths are relative to it (absolute ones are taken as they are).
    images: pattern of the image files, such as 'images/{id}.jpg'.
    labels: pattern of the label files, '' for none.
    list: text file with one id per line; '' takes every file that fits `images`, sorted.
    table: a key of `labels.TABLES`.
    classes: number of classes of the task.

  Raises:
    BadInput: the root or the list does not exist, the list is empty, or an image or a label is
      missing.
  """
  if not os.path.isdir(root):
    raise BadInput(f'data root {root!r} is not a folder; set it to where the images are')
  images = os.path.join(root, images)
  ids = _listed(os.path.join(root, list)) if list else _matching(images)
  labels = os.path.join(root, labels) if labels else ''
  found = Folder(images, labels, ids, table, classes)
  found.check()
  return found


def read_image(path: str) -> np.ndarray:
  """An image file as uint8 [h, w, 3] RGB. Raises BadInput when it is missing or damaged."""
  return np.array(_opened(path, lambda image: image.convert('RGB')))


def read_label(path: str) -> np.ndarray:
  """A label file's pixel values, uint8 [h, w]: grey values, or indices into its palette.

  Raises:
    BadInput: the file is missing, damaged, or neither an 8-bit greyscale nor a palette PNG.
  """
  try:
    with open(path, 'rb') as file:
      header = file.read(PNG_HEADER_SIZE)
  except OSError as error:
    raise BadInput(f'{path}: cannot be read ({error.strerror})') from None
  check_label_header(header, path)
  return np.array(_opened(path, lambda image: image), np.uint8)


def check_label_header(header: bytes, path: str) -> None:
  """Raises BadInput unless the first bytes are those of a label file that can be read."""
  if len(header) < PNG_HEADER_SIZE or not header.startswith(PNG_SIGNATURE):
    raise BadInput(f'{path}: is not a PNG file, or is cut short; write it again')
  depth, colour = header[24], header[25]
  if not (colour == PNG_PALETTE or (colour == PNG_GREY and depth == 8)):
    raise BadInput(
      f'{path}: is a PNG of colour type {colour} with {depth} bits; save labels as 8-bit greyscale '
      'or palette PNG'
    )


def _opened(path: str, convert) -> Image.Image:
  """The image, decoded whole; whatever Pillow raises for a bad file becomes one line."""
  try:
    with Image.open(path) as image:
      image.load()
      return convert(image)
  except FileNotFoundError:
    raise BadInput(f'{path}: no such file; mend the list or the pattern') from None
  # Pillow's decoders raise SyntaxError, ValueError and others for damaged files.
  except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError) as error:
    reason = ' '.join(str(error).split())
    raise BadInput(f'{path}: cannot be decoded ({reason}); restore or remove the file') from None


def _listed(path: str) -> list[str]:
  """The ids in a list file. Raises BadInput when it does not exist or is empty."""
  try:
    with open(path, encoding='utf-8') as file:
      ids = [line.strip() for line in file if line.strip()]
  except (OSError, UnicodeDecodeError) as error:
    reason = getattr(error, 'strerror', None) or 'not a text file'
    raise BadInput(f'{path}: the list of ids cannot be read ({reason})') from None
  if not ids:
    raise BadInput(f'{path}: the list is empty; write one id per line')
  return ids


def _matching(pattern: str) -> list[str]:
  """The sorted ids of all files that fit the pattern, sub-folders included."""
  first, *others = (re.escape(part) for part in pattern.split('{id}'))
  fits = re.compile(first + '(?P<id>.+)' + '(?P=id)'.join(others), re.DOTALL)
  top = os.path.dirname(pattern.partition('{id}')[0])
  paths = (os.path.join(at, name) for at, _, names in os.walk(top) for name in names)
  return sorted(match['id'] for match in map(fits.fullmatch, paths) if match)


def _listing(directory: str) -> dict[str, os.DirEntry]:
  try:
    with os.scandir(directory or '.') as entries:
      return {entry.name: entry for entry in entries}
  except OSError:
    return {}


def _check_exist(paths: Iterable[str], what: str) -> None:
  """Raises BadInput for the first path that is missing; lists each folder once, without stat."""
  listing = functools.cache(_listing)
  for path in paths:
    directory, name = os.path.split(path)
    if name not in listing(directory):
      raise BadInput(f'{path}: no such {what}; add the file or take its id off the list')


def _sizes(paths: Iterable[str]) -> dict[str, int]:
  """File sizes in bytes by path; missing files are left out."""
  listing = functools.cache(_listing)
  sizes = {}
  for path in paths:
    directory, name = os.path.split(path)
    entry = listing(directory).get(name)
    if entry is not None:
      sizes[path] = entry.stat().st_size
  return sizes


def _size(array: np.ndarray) -> str:
  return f'{array.shape[1]}x{array.shape[0]}'
