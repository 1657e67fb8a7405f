"""A folder of images, with or without labels, read one by one by all commands alike."""

import contextlib
import dataclasses
import functools
import hashlib
import os
import unicodedata
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

import numpy as np

from data_pipelines import digests, file_names, image_files, image_ids, label_tables
from data_pipelines.errors import BadInput
from data_pipelines.pack import LOW_SPLIT, Pack

Pixels = tuple[np.ndarray, np.ndarray | None]  # an image, and its label or raw ids if there are any
Digests = Mapping[str, Mapping[str, str]]  # by id and 'image' or 'label'


@dataclasses.dataclass(frozen=True)
class Folder:
  """Images and labels on disk, found by id.

  Raises BadInput on construction: no ids, ids that stand twice or leave the folder, a pattern
  without `{id}`, an unknown format, or a table that does not fit. Whether the files exist is for
  `open_folder` and `check` to see.
  """

  images: str  # path pattern with `{id}`, such as '/data/images/{id}.jpg'
  labels: str = ''  # the same for label files, '' when there are none
  ids: Sequence[str] = ()  # in order; an id with '/' lies in a sub-folder
  # What turns raw ids into train ids: a key of `label_tables.TABLES`, or (raw id, train id) pairs;
  # with the format 'colour' a key of `label_tables.COLOURS`, or ((red, green, blue), train id).
  table: label_tables.TableLike = 'identity'
  classes: int | None = None  # of the task, None for as many as the table has
  label_format: str = 'index'  # how label files hold raw ids, a key of `LABEL_FORMATS`
  image_pack: Pack | None = None  # where the pixels lie if not in these files
  label_pack: Pack | None = None
  max_pixels: int = image_files.MAX_PIXELS  # of the largest image that is read

  def __post_init__(self) -> None:
    object.__setattr__(self, 'ids', list(self.ids))
    for pattern in filter(None, (self.images, self.labels)):
      if '{id}' not in pattern:
        raise BadInput(f'{pattern}: a path pattern needs {{id}} where the id of an image stands')
    if not self.ids:
      raise BadInput(f'{self.images}: no image fits this pattern; see docs/datasets.md')
    image_ids.check(self.ids, self.images)
    self._check_one_file_each()
    if self.label_format not in image_files.LABEL_FORMATS:
      known = ', '.join(image_files.LABEL_FORMATS)
      raise BadInput(f'label_format {self.label_format!r} does not exist: it may be {known}')
    _ = self.lut  # raises BadInput for a table that does not fit

  def _check_one_file_each(self) -> None:
    """Refuses ids that a file system takes for one, as some do for names that differ by case."""
    alike: dict[str, int] = {}
    for index, name in enumerate(self.ids):
      other = alike.setdefault(unicodedata.normalize('NFC', name).casefold(), index)
      if other != index and not self.image_pack:
        first, second = self.image_path(other), self.image_path(index)
        with contextlib.suppress(OSError):
          if os.path.samefile(first, second):
            raise BadInput(f'{second}: is the same file as {first}: take one of the ids out')

  def __len__(self) -> int:
    return len(self.ids)

  @functools.cached_property
  def lut(self) -> np.ndarray:
    """int16 [256]: raw id of a label file -> train id, 255, or -1 (unknown)."""
    table = self.table
    if self.label_format == 'colour':
      table = [(raw, train) for raw, (_, train) in enumerate(label_tables.colours(table))]
    return label_tables.lut(table, self.classes)

  @property
  def colours(self) -> image_files.Colours:
    """The colours whose positions are the raw ids; none but with the format 'colour'."""
    if self.label_format != 'colour':
      return ()
    return tuple(colour for colour, _ in label_tables.colours(self.table))

  def image_path(self, index: int) -> str:
    """The file of an image, there or not."""
    path = self.images.replace('{id}', self.ids[index])
    return self._other_names.get(path, path)

  def label_path(self, index: int) -> str:
    """The label file of an image, there or not; '' when the folder has no labels."""
    path = self.labels.replace('{id}', self.ids[index])
    return self._other_names.get(path, path)

  def _named_paths(self, pattern: str) -> Iterator[str]:
    return (pattern.replace('{id}', name) for name in self.ids)

  @functools.cached_property
  def _other_names(self) -> dict[str, str]:
    """Path by pattern and id -> the file that stands for it, where that has another name."""
    patterns = [(self.images, self.image_pack), (self.labels, self.label_pack)]
    return {
      path: entry.path
      for pattern, pack in patterns
      if pattern and not pack
      for path, entry in _entries(self._named_paths(pattern))
      if entry is not None and entry.path != path
    }

  def with_labels(self, labels: str, table: str = 'identity') -> 'Folder':
    """The same images with other labels ('' for none); raises BadInput if a label is missing."""
    other = {'labels': labels, 'table': table, 'label_format': 'index', 'label_pack': None}
    changed = dataclasses.replace(self, **other)
    changed.check()
    return changed

  def check(self) -> None:
    """Raises BadInput naming the first image or label that does not exist or is not a file."""
    for what, pattern, pack in self._patterns():
      for path, entry in () if pack else _entries(self._named_paths(pattern)):
        if entry is None:
          raise BadInput(f'{path}: no such {what}; add the file, or leave its id out')
        if not entry.is_file():
          raise BadInput(f'{entry.path}: {image_files.why_no_file(entry.path)}')

  def read(self, index: int) -> Pixels:
    """An image, uint8 [h, w, 3] RGB, and its label, uint8 [h, w] train ids and 255 (ignored).

    The label is None without labels. Raises BadInput: a file is missing or damaged, the sizes
    differ, or a label id is unknown.
    """
    image, raw = self.read_pair(index)
    return image, None if raw is None else label_tables.translate(raw, self.lut)

  def check_raw(self, index: int, raw: np.ndarray, image_shape: Sequence[int]) -> None:
    """Raises BadInput if a label does not go with an image of this shape, or an id is unknown."""
    path = self.label_path(index)
    if raw.shape != tuple(image_shape[:2]):
      raise BadInput(
        f'{path}: the label has {raw.shape[0]}x{raw.shape[1]} pixels, its image '
        f'{image_shape[0]}x{image_shape[1]}; make them equal'
      )
    known = np.flatnonzero(self.lut != label_tables.UNKNOWN).astype(np.uint8).tobytes()
    classes = '' if self.classes is None else f' with {self.classes} classes'
    if unknown := sorted(set(raw.tobytes().translate(None, known))):
      raise BadInput(
        f'{path}: label id {", ".join(map(str, unknown[:5]))} is unknown to the table '
        f'{label_tables.title(self.table)}{classes}; correct the file or choose another table'
      )

  def read_pair(self, index: int) -> Pixels:
    """As `read`, with raw ids. What lies in packs was checked when they were made."""
    if self.image_pack and self.image_pack is self.label_pack:  # one record, read once
      return self.image_pack.pair(self.ids[index])
    image, raw = self.read_image(index), self.read_raw(index) if self.labels else None
    if raw is not None and not (self.image_pack and self.label_pack):
      self.check_raw(index, raw, image.shape)
    return image, raw

  def read_low(self, index: int, size: tuple[int, int]) -> Pixels | None:
    """As `read_pair`, the image packed at this size and the label at this size or its own.

    None where the image was not packed so. Raises BadInput as `read` does.
    """
    pack, name = self.image_pack, self.ids[index]
    if not pack or pack.index['low_size'] != list(size):
      return None
    image, raw = pack.pair(name, LOW_SPLIT)
    if self.labels and self.label_pack is not pack:
      raw = self.read_raw(index)
      self.check_raw(index, raw, pack.index['files'][name]['image'][2:])
    return image, raw if self.labels else None

  def read_image(self, index: int) -> np.ndarray:
    """An image alone, uint8 [h, w, 3] RGB; raises BadInput as `read` does."""
    if self.image_pack:
      return self.image_pack.pair(self.ids[index])[0]
    return image_files.read_image(self.image_path(index), max_pixels=self.max_pixels)

  def read_raw(self, index: int) -> np.ndarray:
    """An image's label file as it is: raw ids, uint8 [h, w]; raises BadInput as `read` does."""
    if self.label_pack:
      return self.label_pack.label(self.ids[index])
    return image_files.read_label(
      self.label_path(index), self.label_format, self.colours, self.max_pixels
    )

  def sizes(self) -> list[tuple[int, int]]:
    """(h, w) of every image as the heads of the files have it; BadInput if one cannot be read."""
    if not self.image_pack:
      paths = map(self.image_path, range(len(self)))
      return [image_files.read_size(path, self.max_pixels) for path in paths]
    facts = (self.image_pack.index['files'][name].get('image') or () for name in self.ids)
    known = [(each[2], each[3]) if len(each) > 3 else None for each in facts]
    shapes = (size or self.read_image(i).shape for i, size in enumerate(known))
    return [(shape[0], shape[1]) for shape in shapes]

  def file_digests(
    self,
    memory: str = '',
    afresh: Container[str] = (),
    bar: digests.Bar | None = None,
    skip: bool = False,
  ) -> Digests:
    """id -> SHA-256 (hex) of the files of its 'image' and, where there are labels, 'label'.

    Raises BadInput: a file is missing or cannot be read, or a pack does not know its files'.

    Args:
      memory: folder where digests are remembered, so that only new and changed files are hashed.
      afresh: parts that are hashed whatever is remembered.
      bar: makes the progress bar for many files.
      skip: gives '' for a file that cannot be read, instead of raising.
    """
    found: dict[str, dict[str, str]] = {name: {} for name in self.ids}
    for part, paths, pack in self._parts():
      if pack:
        values = [pack.digest(name, part) for name in self.ids]
      else:
        pattern = self.images if part == 'image' else self.labels
        known = digests.Memory(memory, pattern)
        values = known.digests(list(paths), part in afresh, bar, skip)
      for name, value in zip(self.ids, values, strict=True):
        found[name][part] = value
    return found

  def glance(self) -> str:
    """SHA-256 (hex) over the ids and all that is known of their files without reading them."""
    seen: list[object] = [self.ids]
    for part, paths, pack in self._parts():
      if pack:
        seen += [pack.digest(name, part) for name in self.ids]
        continue
      for path in paths:
        with contextlib.suppress(BadInput):  # one that is missing is refused where it is read
          seen.append(digests.stamp(path))
    return hashlib.sha256(repr(seen).encode()).hexdigest()

  def real_paths(self) -> Iterator[tuple[str, str]]:
    """(path, where it really lies) of every image and label file; links are followed."""
    real = functools.cache(os.path.realpath)
    for _, paths, pack in self._parts():
      for path, entry in () if pack else _entries(paths):
        directory, name = os.path.split(path)
        link = entry is not None and entry.is_symlink()
        yield path, os.path.realpath(path) if link else os.path.join(real(directory), name)

  def _patterns(self) -> list[tuple[str, str, Pack | None]]:
    """(which, pattern, pack) of the images and, if there are any, of the labels."""
    images = ('image', self.images, self.image_pack)
    return [images, ('label', self.labels, self.label_pack)] if self.labels else [images]

  def _parts(self) -> list[tuple[str, Iterable[str], Pack | None]]:
    """As `_patterns`, with the paths in the pattern's place."""
    path_of, rows = {'image': self.image_path, 'label': self.label_path}, range(len(self))
    return [(what, map(path_of[what], rows), pack) for what, _, pack in self._patterns()]


def fingerprint(found: Digests) -> str:
  """SHA-256 (hex) over every id and the digests of its image and label file, in order."""
  total = hashlib.sha256()
  for name, parts in found.items():
    total.update(f'{name}\0{parts.get("image")}\0{parts.get("label")}\n'.encode())
  return total.hexdigest()


def open_folder(
  root: str,
  images: str,
  labels: str = '',
  list: str = '',
  without: str = '',
  check: bool = True,
  among: Sequence[str] = (),
  table: label_tables.TableLike = 'identity',
  classes: int | None = None,
  label_format: str = 'index',
  max_pixels: int = image_files.MAX_PIXELS,
  apart: str = '',
) -> Folder:
  """The images under a root folder.

  Raises BadInput: the root or a list does not exist or is empty, an image or a label is missing, or
  an id to leave out does not exist.

  Args:
    root: the folder; the other paths are relative to it (absolute ones are taken as they are).
    images, labels: patterns of the files, such as 'images/{id}.jpg'; '' for no labels.
    list: text file with an image a line, or the name of one of `image_ids.LISTS`; '' takes every
      file that fits `images`, sorted. What a line may be: see `image_ids.of_list`.
    without: a list of ids to leave out, given in the same ways.
    check: whether every image and label has to be there.
    among: the ids of all images, where their files are not there to be listed.
    table, classes, label_format, max_pixels: as in `Folder`.
    apart: pattern of files that are no images although they fit `images`, such as 'all/{id}_gt.png'
      beside 'all/{id}.png': the labels, wanted or not. '' for `labels`.
  """
  root = os.path.expanduser(root)
  if not os.path.isdir(root):
    raise BadInput(
      f'data.root {root!r} is not a folder: set it to where the data sets are (docs/datasets.md)'
    )
  images, apart = os.path.join(root, images), apart or labels
  others = os.path.join(root, apart) if apart else ''
  everything = functools.cache(
    lambda: sorted(among) or image_ids.of_files(images, others, warn=not list)
  )
  ids = image_ids.of_list(root, list, images, everything) if list else everything()
  if without:
    out = set(image_ids.of_list(root, without, images, everything))
    absent = sorted(out.difference(ids))
    if absent:
      text = f'{absent[0]} cannot be left out: there is no such image; take it off the list'
      raise BadInput(f'{without}: {text}')
    ids = [name for name in ids if name not in out]
  labels = os.path.join(root, labels) if labels else ''
  found = Folder(images, labels, ids, table, classes, label_format, max_pixels=max_pixels)
  if check and not among:
    found.check()
  return found


def from_pack(folder: Folder, pack: Pack) -> Folder:
  """The folder's labels if it has any, and the images if the pack has them, read from a pack.

  Raises BadInput: the pack lacks an image or the labels, or holds labels of another format.
  """
  missing = next((name for name in folder.ids if name not in pack.index['files']), None)
  if missing is not None:
    raise BadInput(f'{pack.directory}: lacks the image {missing}; prepare the set again')
  if folder.labels:
    _check_labels(folder, pack)
  image_pack = pack if pack.index['images'] != 'none' else folder.image_pack
  label_pack = pack if folder.labels else None
  return dataclasses.replace(folder, image_pack=image_pack, label_pack=label_pack)


def _check_labels(folder: Folder, pack: Pack) -> None:
  """Raises BadInput unless a pack holds labels that the folder's table knows."""
  has = pack.index['label_format'], [list(colour) for colour in pack.index['colours']]
  wants = folder.label_format, [list(colour) for colour in folder.colours]
  if not pack.index['labelled'] or has != wants:
    held = f"labels of format '{has[0]}'" if pack.index['labelled'] else 'no labels'
    raise BadInput(
      f"{pack.directory}: holds {held}, not those of label_format '{wants[0]}' and its colours; "
      'prepare the set again'
    )
  occurring = {raw for shard in pack.index['shards'] for raw in shard['raw_ids']}
  unknown = [raw for raw in sorted(occurring) if folder.lut[raw] == label_tables.UNKNOWN]
  if unknown:
    raise BadInput(
      f'{pack.directory}: label id {unknown[0]} occurs and is unknown to the table '
      f'{label_tables.title(folder.table)}: choose another table'
    )


def _entries(paths: Iterable[str]) -> Iterator[tuple[str, os.DirEntry | None]]:
  """(path, its entry, None if it is missing) in order; lists each folder once, without stat."""
  listing = file_names.Listing()
  return ((path, listing.find(path)) for path in paths)
