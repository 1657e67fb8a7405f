"""A data set in shards, read by id; `prepare.py` writes them."""

import functools
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, get_type_hints

import numpy as np

from data_pipelines import digests, host_tensorflow, records
from data_pipelines.errors import BadInput, one_line
from data_pipelines.image_files import decode

VERSION = '1.0.0'
INDEX = 'index.json'
REDO = 'restore it from a copy, or prepare the set again in an empty folder'
SPLIT, LOW_SPLIT = 'train', 'low'  # as the files are; resized to what 'low' rows of a batch show
Record = dict[str, Any]  # 'id', 'image' ([h, w, 3] or a file), 'label' (raw ids)


class Plan(TypedDict):
  """All that the shards depend on."""

  fingerprint: str
  images: str  # 'raw', 'jpeg', 'png' or 'none'
  low_size: list[int]  # [h, w], or empty
  images_per_shard: int
  labelled: bool
  label_format: str
  colours: list[list[int]]


class Shard(TypedDict):
  """One file of records. `raw_ids` are those that occur in its labels; modified: in nanoseconds."""

  split: str
  file: str
  bytes: int
  modified: int
  sha256: str
  images: int
  raw_ids: list[int]


class Index(Plan):
  """index.json: the plan, what it came to, and the files that were packed.

  `files` are by id and 'image' or 'label': bytes, SHA-256 and, where `doctor` saw them, h, w.
  `metadata` is the SHA-256 of each of TensorFlow Datasets' own files.
  """

  shards: list[Shard]
  metadata: dict[str, str]
  files: dict[str, dict[str, Any]]


class Pack:
  """Images and raw labels by id, from a folder that `prepare` has made; `index` is its index.json.

  Raises BadInput on construction if a file is missing or not as it was written.
  """

  def __init__(self, directory: str | os.PathLike[str]):
    self.directory = pathlib.Path(directory)
    self.index: Index = read_record(self.directory / VERSION / INDEX, Index)
    _check(self.directory / VERSION, self.index['shards'], self.index['metadata'])
    packed = sum(shard['images'] for shard in self.index['shards'] if shard['split'] == SPLIT)
    if packed != len(self.index['files']):  # an id stood twice when it was made
      raise BadInput(
        f'{self.directory}: holds {packed} images with {len(self.index["files"])} names: prepare '
        'the set again, into another folder'
      )
    self._positions = {name: i for i, name in enumerate(self.index['files'])}

  @functools.cached_property
  def _records(self) -> dict[str, Sequence[Record]]:
    host_tensorflow.load()
    import tensorflow_datasets as tfds  # takes seconds, and folders of files do without it

    builder = tfds.builder_from_directory(str(self.directory / VERSION))
    skip = {'image': tfds.decode.SkipDecoding()} if self.index['images'] in ('jpeg', 'png') else {}
    return {
      split: builder.as_data_source(split=split, decoders=skip or None)
      for split in builder.info.splits
    }

  def pair(self, name: str, split: str = SPLIT) -> tuple[np.ndarray, np.ndarray | None]:
    """uint8 [h, w, 3] RGB and raw ids, uint8 [h, w]; raises BadInput if the shard is damaged.

    Of the split 'low' both are as the input pipeline resizes them to the index's `low_size`.
    """
    found = self._read(name, split)
    image = found['image']
    if not isinstance(image, np.ndarray) or image.ndim < 3:  # a file
      data = image if isinstance(image, bytes) else image.item()
      image = decode(data, f'{name} in {self.directory}', max_pixels=sys.maxsize)
    return image, found.get('label')

  def digest(self, name: str, part: str) -> str:
    """SHA-256 of the file that was packed as the 'image' or 'label'; BadInput if not known."""
    facts = self.index['files'][name].get(part) or ()
    if len(facts) < 2:
      raise BadInput(
        f'{self.directory}: does not say which {part} of {name} was packed: prepare it again, into '
        'another folder'
      )
    return facts[1]

  def label(self, name: str) -> np.ndarray:
    """Raw ids, uint8 [h, w]; raises BadInput if the shard is damaged."""
    return self._read(name, SPLIT)['label']

  def _read(self, name: str, split: str) -> Record:
    position = self._positions[name]
    try:
      found = self._records[split][position]
      if found['id'].decode() != name:
        raise ValueError(f'the record there is {found["id"].decode()}')
      return found
    # The reader raises whatever its layers do for damaged data.
    except Exception as error:
      shards = [shard for shard in self.index['shards'] if shard['split'] == split]
      shard = shards[position // self.index['images_per_shard']]['file']
      raise BadInput(
        f'{self.directory / VERSION / shard}: {name} cannot be read ({one_line(error)}); {REDO}'
      ) from None


def read_record(path: pathlib.Path, kind: type) -> Any:
  """A record of a pack, a `TypedDict`. Raises BadInput if it is missing, damaged or another one."""
  if not path.exists():
    raise BadInput(
      f'{path}: no such file: name the folder of one data set, and finish `prepare` first'
    )
  return records.read(path, REDO, *get_type_hints(kind))


_sound: set[tuple[str, str, tuple[int, int]]] = set()  # files hashed by now: path, SHA-256, stamp


def _check(directory: pathlib.Path, shards: Sequence[Shard], metadata: Mapping[str, str]) -> None:
  """Raises BadInput unless the files of a pack are those that were written.

  A shard of the size and time that the index has is not read whole: ArrayRecord has a checksum of
  every record, which it compares when the record is read.
  """
  wanted = dict(metadata)
  for shard in shards:
    if _stamp(directory / shard['file']) != (shard['bytes'], shard['modified']):
      wanted[shard['file']] = shard['sha256']
  todo = {(str(directory / name), wanted[name], _stamp(directory / name)) for name in wanted}
  todo = sorted(todo - _sound)
  found = digests.of_files(path for path, *_ in todo)
  for (path, digest, _), there in zip(todo, found, strict=True):
    if there != digest:
      raise BadInput(f'{path}: is damaged (another SHA-256); {REDO}')
  _sound.update(todo)


def _stamp(path: pathlib.Path) -> tuple[int, int]:
  """Size in bytes and time of the last change in nanoseconds."""
  try:
    status = path.stat()
  except OSError as error:
    raise BadInput(f'{path}: cannot be read ({error.strerror}); {REDO}') from None
  return status.st_size, status.st_mtime_ns
