"""Images of a data set in order, a fixed number at a time, read ahead of the device."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypedDict, TypeVar, Unpack

import numpy as np

from data_pipelines import resampling, transforms
from data_pipelines.errors import BadInput
from data_pipelines.label_tables import IGNORE
from diga_jax.inference import shapes
from diga_jax.parallel import mesh, processes
from diga_jax.progress import bar, compiling
from diga_jax.types import Size

READERS = 2  # threads that decode; Pillow lets go of the interpreter while it does
S = TypeVar('S')
T = TypeVar('T')


class Dataset(Protocol):
  """What the passes need of a data set, such as `data_pipelines.folder.Folder`."""

  @property
  def ids(self) -> Sequence[str]: ...

  def __len__(self) -> int: ...

  def read(self, index: int) -> tuple[np.ndarray, np.ndarray | None]: ...


@dataclasses.dataclass(frozen=True)
class Batch:
  """Images of one size, padded to the batch size.

  Attributes:
    indices: positions in the data set of the real rows, in order; padding rows follow them.
    images: uint8 RGB [B, H, W, 3], zero in padding rows.
    labels: uint8 [B, h, w] train ids, 255 in padding rows; None if there are none.
    stored_sizes: (h, w) of the real rows' images before any resizing or padding; they differ only
      where images are padded to one shape.
    is_padded: whether images, and labels, are padded to a shape.
  """

  indices: list[int]
  images: np.ndarray
  labels: np.ndarray | None
  stored_sizes: list[Size]
  is_padded: bool = False

  @property
  def stored_size(self) -> Size:
    """That of the first row."""
    return self.stored_sizes[0]

  def own(self, row: int, computed: np.ndarray) -> np.ndarray:
    """The part [h, w, ...] that is of a row's image, of what is computed of it as it is padded."""
    return shapes.crop(computed, self.stored_sizes[row]) if self.is_padded else computed


def resize_to(
  image: np.ndarray, size: Size | None, label: bool = False, kind: str = 'bicubic'
) -> np.ndarray:
  """Resizes on the host.

  Args:
    image: uint8 [H, W, 3], or [H, W] labels.
    size: (h, w), or None to leave the image alone.
    label: whether the values are class ids, of which the nearest is taken.
    kind: 'bicubic', with antialiasing, as DiGA's training data; 'bilinear', without, as HIAST's.
  """
  if size is None or image.shape[:2] == tuple(size):
    return image
  of_image, of_label = RESIZERS[kind]
  resized = (of_label if label else of_image)(transforms.picture(image), (size[0], size[1]))
  return resized.whole()


# kind -> (of an image, of a label), both (picture, size) -> picture.
RESIZERS = {
  'bicubic': (
    functools.partial(transforms.resample, kind=resampling.BICUBIC),
    transforms.nearest,
  ),
  'bilinear': (
    transforms.sample,
    functools.partial(transforms.nearest, positions=transforms.floor_positions),
  ),
}


class _Row(NamedTuple):
  """One image, ready to be stacked with others of the same `shapes`."""

  index: int
  image: np.ndarray
  label: np.ndarray | None
  stored_size: Size
  is_padded: bool = False  # with others, which may have another size

  @property
  def shapes(self) -> tuple:
    size = () if self.is_padded else self.stored_size
    return self.image.shape, size, None if self.label is None else self.label.shape

  def pad_to(self, shape: Size, name: str) -> '_Row':
    """Image and label continued on all sides; raises BadInput if the label has another size."""
    label = self.label
    if label is not None:
      if label.shape != self.image.shape[:2]:
        raise BadInput(f'{name}: image and label differ in size: only equal ones are padded')
      label = shapes.pad_label(label, shape)
    return self._replace(image=shapes.pad_to(self.image, shape), label=label, is_padded=True)


def pad(rows: Sequence[np.ndarray], batch_size: int, value: int) -> np.ndarray:
  """Stacks rows of one shape and appends rows of `value` up to the batch size."""
  padding = [np.full_like(rows[0], value)] * (batch_size - len(rows))
  return np.stack([*rows, *padding])


def _stack(rows: list[_Row], batch_size: int) -> Batch:
  indices, images, labels, sizes, padding = zip(*rows, strict=True)
  padded = None if labels[0] is None else pad(labels, batch_size, IGNORE)
  return Batch(list(indices), pad(images, batch_size, 0), padded, list(sizes), padding[0])


def labels_of(batch: Batch, dataset: Dataset, classes: int) -> np.ndarray:
  """The labels of a batch; raises BadInput if there are none, or ids that C classes lack."""
  name = dataset.ids[batch.indices[0]]
  if batch.labels is None:
    raise BadInput(f'{name}: labels are needed here, and this data set has none')
  worst = int(np.max(batch.labels, where=batch.labels != IGNORE, initial=0))
  if worst >= classes:
    raise BadInput(
      f'{name}: label {worst} for a network with {classes} classes: choose another label table'
    )
  return batch.labels


def read_ahead(read: Callable[[int], T], indices: Iterable[int], ahead: int) -> Iterator[T]:
  """read(i) for each index in order, at most `ahead` of them waiting in memory."""
  pending = collections.deque()
  pool = concurrent.futures.ThreadPoolExecutor(READERS, thread_name_prefix='read_ahead')
  try:
    for index in indices:
      pending.append(pool.submit(read, index))
      if len(pending) >= ahead:
        yield pending.popleft().result()
    while pending:
      yield pending.popleft().result()
  finally:
    pool.shutdown(cancel_futures=True)


def batches(
  dataset: Dataset,
  *,
  batch_size: int = 1,
  size: Size | None = None,
  resizing: str = 'bicubic',
  labelled: bool = True,
  order: Sequence[int] | None = None,
  planned: shapes.Plan | None = None,
) -> Iterator[Batch]:
  """This process's images of a data set once, in order, while others are read by other threads.

  With several processes each has a share of the images (`processes.local_share`). Consecutive
  images of one size share a batch. A batch that is not full (the last one, or one before a change
  of size) is padded, so that one size means one compiled program. Memory is a few batches, however
  many images there are.

  Args:
    dataset: images and labels by position.
    batch_size: rows of every batch.
    size: (h, w) that images and labels are resized to; None: as stored.
    resizing: how, the `kind` of `resize_to`.
    labelled: False drops the labels.
    order: the positions of all images in the order wanted; None: as they are.
    planned: the shapes that images are padded to (`shapes.plan`) if they are not resized; those
      that are to be cut into windows come alone, padded to one at least. Labels are 255 beyond the
      image. None: images are not padded.

  Raises:
    BadInput: the data set is empty, or a file of it cannot be read (the message names it).
  """
  if not len(dataset):
    raise BadInput('the data set holds no image: check its list and its folder')

  def read(index: int) -> _Row:
    image, label = dataset.read(index)
    label = resize_to(label, size, True, resizing) if labelled and label is not None else None
    stored = image.shape[0], image.shape[1]
    row = _Row(index, resize_to(image, size, kind=resizing), label, stored)
    if planned is None or size is not None:
      return row
    return row.pad_to(shapes.shape_of(stored, planned), dataset.ids[index])

  own = processes.local_share(len(dataset))
  indices = own if order is None else [order[i] for i in own]
  rows = read_ahead(read, indices, ahead=batch_size + READERS)
  for _, alike in itertools.groupby(rows, key=lambda row: row.shapes):
    while group := list(itertools.islice(alike, batch_size)):
      if group[0].is_padded and shapes.is_cut(group[0].image.shape[:2], planned or {}):
        yield from (_stack([row], 1) for row in group)
        continue
      mesh.check_memory(
        4 * batch_size * group[0].image.size,  # as float32
        f'{batch_size} images of {group[0].image.shape[0]}x{group[0].image.shape[1]} at a time',
        'lower evaluation.batch_size',
      )
      yield _stack(group, batch_size)


class BatchOptions(TypedDict, total=False):
  """The options of `batches`."""

  batch_size: int
  size: Size | None
  resizing: str
  labelled: bool
  order: Sequence[int] | None
  planned: shapes.Plan | None


def for_each_batch(
  step: Callable[[Batch], T],
  dataset: Dataset,
  title: str,
  progress: bool,
  **options: Unpack[BatchOptions],
) -> Iterator[tuple[Batch, T]]:
  """(batch, step(batch)) for each batch of a data set, with the device one batch ahead.

  A consumer that waits for each result it gets therefore never idles the device, and never has
  more than two batches on it.

  Args:
    step: starts the work on one batch; the devices may finish later.
    title, progress: of the bar on stderr, which counts images; whether to show it.
    dataset, options: as of `batches`.
  """
  with bar(len(processes.local_share(len(dataset))), title, progress) as shown:
    first = True

    def start(batch: Batch) -> T:
      nonlocal first
      with compiling(shown, title) if first else contextlib.nullcontext():
        first = False
        return step(batch)

    for batch, result in one_ahead(start, batches(dataset, **options)):
      yield batch, result
      shown.update(len(batch.indices))


def one_ahead(step: Callable[[S], T], items: Iterable[S]) -> Iterator[tuple[S, T]]:
  """(item, step(item)) for each of the items, after `step` has been called for the next one."""
  previous = None
  for item in items:
    current = item, step(item)
    if previous is not None:
      yield previous
    previous = current
  if previous is not None:
    yield previous
