"""Labels for image and video files of any size."""

import collections
import dataclasses
import hashlib
import importlib.metadata
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
import tqdm

from data_pipelines import digests, image_files, video_files
from data_pipelines.errors import BadInput
from data_pipelines.image_files import MAX_PIXELS
from diga_jax.inference import shapes
from diga_jax.inference.forward import Predictor, check_classes
from diga_jax.inference.image_batches import (
  Batch,
  BatchOptions,
  for_each_batch,
  read_ahead,
)
from diga_jax.inference.image_paths import Found, find_images
from diga_jax.inference.label_images import Labelled, Result, fetch, label_each, start
from diga_jax.inference.prediction_files import HALF, Outputs
from diga_jax.inference.prediction_record import Record
from diga_jax.parallel import processes
from diga_jax.progress import bar
from diga_jax.types import PyTree, Size

LARGEST = 2**30  # bytes of the probabilities of an image


class Predicted(NamedTuple):
  """What was made.

  Attributes:
    files: the label files, or folders of a video's, of all that could be labelled, in order.
    kept: how many of them were there already, made by the same network of the same images.
    failures: why each of the others could not be, by its path.
    others: files in the folder that were made otherwise, such as by another network.
  """

  files: list[pathlib.Path]
  kept: int
  failures: dict[str, str]
  others: int


class _Item(NamedTuple):
  """A file to label: what is made of it, how large it is, and when it last changed."""

  found: Found
  files: list[str]
  size: Size
  frames: int
  stamp: digests.Stamp


def predict_images(
  predictor: Predictor,
  paths: Sequence[str | os.PathLike],
  outputs: Outputs,
  *,
  recursive: bool = False,
  overwrite: bool = False,
  programs: int = shapes.PROGRAMS,
  window: int = shapes.WINDOW,
  max_pixels: int = MAX_PIXELS,
  progress: bool = True,
) -> Predicted:
  """Labels image and video files; an image that has a program of its own as the evaluation does.

  Several processes share the files. A file that cannot be read is left out. What a call with the
  same network has made of the same images is kept.

  Args:
    predictor, progress: as of `evaluate.evaluate`.
    paths, recursive: as of `find_images`.
    outputs: what is written where.
    overwrite: whether files made by another network, or of another image, are replaced.
    programs, window: as of `shapes.plan`: up to how many sizes each have a program of their own.
    max_pixels: of the largest image that is read.

  Raises:
    BadInput: nothing to do, a path that does not exist, no file that can be read, two images with
      one name, an output that would overwrite an input or what others made, or probabilities that
      take too much space.
  """
  found = find_images(paths, recursive, outputs.directory)
  named = dict(zip(found, _files_of(found, outputs), strict=True))
  items, failures = _look_at(named, max_pixels)
  _check_space(items, outputs, predictor.model.classes)
  planned = shapes.plan([item.size for item in items for _ in range(item.frames)], programs, window)
  record = Record(outputs.directory, _made_by(predictor, outputs, programs, window), overwrite)
  to_do = [item for item in items if not record.is_done(item.found, item.files, item.stamp)]
  to_do = processes.exchange(to_do)[0]  # and nobody writes before all have looked
  work = _Work(predictor, outputs, record, planned, window, max_pixels)
  try:
    work.label(to_do, progress)
  finally:
    record.close()
  for others in processes.exchange(work.failures):
    failures |= others
  files = [outputs.directory / item.files[0] for item in items if _path(item) not in failures]
  if not files:
    raise BadInput(_describe(failures))
  return Predicted(files, len(items) - len(to_do), failures, record.others())


def _own(items: Sequence[_Item]) -> list[_Item]:
  return [items[i] for i in processes.local_share(len(items))]


def _path(item: _Item) -> str:
  return str(item.found.path)


def _describe(failures: Mapping[str, str]) -> str:
  more = f' (and {len(failures) - 1} more cannot be read)' * (len(failures) > 1)
  return next(iter(failures.values())) + more


def _files_of(found: Sequence[Found], outputs: Outputs) -> list[list[str]]:
  """The names of what is made of each file. Raises BadInput if two of them would collide.

  Labels beside the images would be images to the next call, and may replace others of theirs.
  """
  inputs = {place: each for each in found for place in _folders_of(each.path)}
  owners: dict[str, Found] = {}
  folders: dict[str, Found] = {}  # those that hold what is made, where no video's may be
  named = [outputs.files_of(each) for each in found]
  for each, files in zip(found, named, strict=True):
    for name in files:
      place = (outputs.directory / name).parent.resolve()
      if place in inputs:
        raise BadInput(
          f'{place}: might overwrite images, as {inputs[place].path} is there; use another --output'
        )
      parents = list(map(str, pathlib.PurePosixPath(name).parents))
      others = [owners.get(part) for part in (name, *parents)] + [folders.get(name)]
      if other := next(filter(None, others), None):
        raise BadInput(
          f'{each.path}: would write {outputs.directory / name}, as {other.path} does; rename one'
        )
      folders |= dict.fromkeys(parents, each)
    owners |= dict.fromkeys(files, each)
  return named


def _folders_of(path: pathlib.Path) -> set[pathlib.Path]:
  """Where a file is, and where it is if it is a link."""
  return {path.parent.resolve(), path.resolve().parent}


def _look_at(
  named: Mapping[Found, list[str]], max_pixels: int
) -> tuple[list[_Item], dict[str, str]]:
  """The files that can be labelled, as far as their heads tell, and why others cannot."""
  found, own = list(named), []
  for index in processes.local_share(len(found)):
    try:
      own.append(_item(found[index], named[found[index]], max_pixels))
    except BadInput as error:
      own.append((str(found[index].path), str(error)))
  looked = processes.in_order(processes.exchange(own))
  failures = dict(each for each in looked if not isinstance(each, _Item))
  items = [each for each in looked if isinstance(each, _Item)]
  if not items:
    raise BadInput(_describe(failures))
  return items, failures


def _item(found: Found, files: list[str], max_pixels: int) -> _Item:
  image_files.check_file(found.path)
  stamp = digests.stamp(str(found.path))
  if not found.is_video:
    return _Item(found, files, image_files.read_size(found.path, max_pixels), 1, stamp)
  video = video_files.read_video(found.path, max_pixels)
  return _Item(found, files, video.size, max(video.frames, 1), stamp)


def _check_space(items: Sequence[_Item], outputs: Outputs, classes: int) -> None:
  """Says how much space probabilities take; raises BadInput if an image's or all are too much."""
  if not outputs.probabilities:
    return
  sizes = [HALF.itemsize * classes * item.size[0] * item.size[1] for item in items]
  most = max(sizes)
  if most > LARGEST:
    largest = items[sizes.index(most)]
    raise BadInput(
      f'{_path(largest)}: {classes} probabilities for {largest.size[0]}x{largest.size[1]} pixels '
      f'take {_gigabytes(most)}, at most {_gigabytes(LARGEST)} are written for an image: '
      'leave out --probabilities, or cut the image into smaller ones'
    )
  total = sum(size * item.frames for size, item in zip(sizes, items, strict=True))
  place = next(p for p in (outputs.directory, *outputs.directory.absolute().parents) if p.exists())
  free = shutil.disk_usage(place).free
  if processes.is_main_process():
    print(f'probabilities take {_gigabytes(total)} in {outputs.directory}', flush=True)
  if total > free:
    raise BadInput(
      f'{outputs.directory}: probabilities take {_gigabytes(total)}, {_gigabytes(free)} are free: '
      'free space, or leave out --probabilities'
    )


def _gigabytes(size: int) -> str:
  return f'{size / 1e9:,.2f} GB'


def _made_by(
  predictor: Predictor, outputs: Outputs, programs: int, window: int
) -> dict[str, PyTree]:
  """What labels depend on beside their images, JSON-able."""
  return {
    'network': network_digest(predictor),
    'model': ' '.join(str(predictor.model).split()),
    'scales': list(predictor.scales),
    'flip': predictor.flip,
    'programs': programs,
    'window': window,
    'format': outputs.format,
    'version': importlib.metadata.version('diga_jax'),
  }


def network_digest(predictor: Predictor) -> str:
  """SHA-256 (hex) of the names, types, shapes and numbers of a network's variables."""
  found = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(predictor.variables):
    array = np.asarray(leaf)
    found.update(f'{jax.tree_util.keystr(path)} {array.dtype} {array.shape}'.encode())
    found.update(array.tobytes())
  return found.hexdigest()


@dataclasses.dataclass
class _Images:
  """Image files as the passes take them; those that cannot be computed as planned are blank.

  Attributes:
    items: the files, none of them a video.
    failures: why files could not be read, by path.
    other_size: those whose heads gave another size than they have.
  """

  items: Sequence[_Item]
  max_pixels: int
  failures: dict[str, str]
  other_size: list[_Item] = dataclasses.field(default_factory=list)

  @property
  def ids(self) -> list[str]:
    return [_path(item) for item in self.items]

  def __len__(self) -> int:
    return len(self.items)

  def read(self, index: int) -> tuple[np.ndarray, None]:
    image = read_or_note(self.items[index], self.max_pixels, self.failures)
    if image is not None and image.shape[:2] == self.items[index].size:
      return image, None
    if image is not None:
      self.other_size.append(self.items[index])
    return np.zeros((*self.items[index].size, 3), np.uint8), None


def read_or_note(item: _Item, max_pixels: int, failures: dict[str, str]) -> np.ndarray | None:
  """The pixels of an image; None if it cannot be read, which is noted."""
  try:
    return image_files.read_image(item.found.path, max_pixels=max_pixels)
  except BadInput as error:
    failures[_path(item)] = str(error)
    return None


class _Unreadable(BadInput):
  """A file that cannot be read, whatever else goes on."""


@dataclasses.dataclass
class _Work:
  """The labelling of files whose shapes are planned; a bar counts images and frames."""

  predictor: Predictor
  outputs: Outputs
  record: Record
  planned: Mapping[Size, Size | None]
  window: int
  max_pixels: int
  failures: dict[str, str] = dataclasses.field(default_factory=dict)

  def label(self, items: Sequence[_Item], progress: bool) -> None:
    """Labels this process's share: images of one shape after another, then the others."""
    kinds: dict[str, list[_Item]] = {'whole': [], 'windows': [], 'video': []}
    for item in items:
      windows = 'windows' if self.planned[item.size] is None else 'whole'
      kinds['video' if item.found.is_video else windows].append(item)
    total = sum(item.frames for kind in kinds.values() for item in _own(kind))
    with bar(total, 'predict', progress) as shown:
      others = self._label_whole(kinds['whole'], shown) if kinds['whole'] else []
      self._label_windows([*_own(kinds['windows']), *others], shown)
      for item in _own(kinds['video']):
        try:
          self._label_video(item, shown)
        except _Unreadable as error:
          self.failures[_path(item)] = str(error)

  def _label_windows(self, items: Sequence[_Item], shown: tqdm.tqdm) -> None:
    """Labels images by windows; few are in memory at a time, as they may be large."""

    def read(index: int) -> tuple[_Item, np.ndarray | None]:
      return items[index], read_or_note(items[index], self.max_pixels, self.failures)

    for item, image in read_ahead(read, range(len(items)), ahead=2):
      if image is not None:
        for _, labelled in self._each([image], None):
          self._write(item, image, labelled, None)
      shown.update()

  def _label_whole(self, items: list[_Item], shown: tqdm.tqdm) -> list[_Item]:
    """Labels images by the program of their shape; returns those that have other sizes."""
    items = sorted(items, key=lambda item: self.planned[item.size] or ())
    images = _Images(items, self.max_pixels, self.failures)
    batch_size = self.predictor.batch_size
    options: BatchOptions = {'batch_size': batch_size, 'planned': self.planned}

    def step(batch: Batch) -> Result:
      return start(self.predictor, batch.images, self.outputs.probabilities)

    for batch, result in for_each_batch(step, images, 'predict', False, **options):
      chosen = [items[index] for index in batch.indices]
      sizes = [item.size for item in chosen]
      found = fetch(result, sizes, self.outputs.type_of_probabilities)
      for item, image, labelled in zip(chosen, batch.images, found, strict=False):
        if _path(item) not in self.failures and item not in images.other_size:
          self._write(item, shapes.crop(image, item.size), labelled, image.shape[:2])
        shown.update(item not in images.other_size)
    return images.other_size

  def _each(
    self, images: Sequence[np.ndarray] | Iterator[np.ndarray], shape: Size | None
  ) -> Iterator[tuple[np.ndarray, Labelled]]:
    wanted = self.outputs.type_of_probabilities
    return label_each(self.predictor, images, shape, window=self.window, probabilities=wanted)

  def _write(self, item: _Item, image: np.ndarray, labelled: Labelled, shape: Size | None) -> None:
    check_classes(labelled.classes, [_path(item)])
    self.record.begin(item.found, item.files, item.stamp, _described(shape))
    self.outputs.write(item.found.name, image, labelled)

  def _label_video(self, item: _Item, shown: tqdm.tqdm) -> None:
    times: collections.deque[float] = collections.deque()
    shape = self.planned[item.size]

    def images() -> Iterator[np.ndarray]:
      try:
        for seconds, image in video_files.frames(item.found.path, self.max_pixels):
          times.append(seconds)
          yield image
      except BadInput as error:
        raise _Unreadable(str(error)) from None

    self.record.begin(item.found, item.files, item.stamp, _described(shape))
    with self.outputs.video(item.found.name) as add:
      for image, labelled in self._each(images(), shape):
        check_classes(labelled.classes, [_path(item)])
        add(times.popleft(), image, labelled)
        shown.update()


def _described(shape: Size | None) -> str:
  return 'windows' if shape is None else f'{shape[0]}x{shape[1]}'
