"""Batches whose content is a function of (seed, stream, step): nothing is saved to resume.

For each view (source, target, ...) the images go by in an order that is a new permutation each
epoch, computed from the position alone. Every random choice of a transform comes from a generator
seeded by (seed, stream, view, step, row), so that any host can make any row of any step, and reads
only those that it needs.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from data_pipelines import host_tensorflow, resampling, transforms
from data_pipelines.copy_paste import CopyPaste
from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder, Pixels

# Decoding keeps up with two CPU threads for crops of some hundred pixels; more take cores from JAX.
PARALLEL_CALLS = 2
PREFETCH = 2
_FOREVER = 2**62
DOCTOR = "`python -m diga_jax doctor` checks all files; data.on_bad_file='skip' leaves them out"

Untyped = Any  # tensors and what is made of them: TensorFlow is imported late, and has no types
Root = tuple[int, str]  # the run's seed and the name of a stream
Failed = dict[int, Exception]  # step -> why one of its rows could not be made
Skipped = dict[str, str] | None  # path -> what is wrong; None where nothing may be skipped


@dataclasses.dataclass(frozen=True)
class View:
  """What one domain contributes to a batch; sizes are (h, w)."""

  source: Folder
  low_rows: int  # are resized to `low_size` first; they come first in the batch
  full_rows: int  # are resized to `full_size`
  low_size: tuple[int, int] | None  # None leaves the low rows at their own size
  crop: tuple[int, int]  # of the batch
  full_size: tuple[int, int] | None = None  # None leaves the full rows at their own size
  cut: str = 'plain'  # how the crop is cut: a key of `CUTS`
  heights: tuple[int, int] = (341, 1000)  # (smallest, largest) of the 'zoom' window, pixels
  copy_paste: CopyPaste | None = None  # pastes hard-class pixels of other images; needs labels
  redraw: bool = False  # draws the crop again until its label shows enough classes

  @property
  def rows(self) -> int:
    """Rows of a batch."""
    return self.low_rows + self.full_rows

  def size(self, row: int) -> tuple[int, int] | None:
    """The size that a row's image is resized to before it is cropped; None: as it is."""
    return self.low_size if row < self.low_rows else self.full_size


# How a view's crops are cut: 'sized' scales by U(0.7, 1) first, 'zoom' resizes a larger window.
CUTS: dict[str, Callable[[View], transforms.Cut]] = {
  'plain': lambda view: transforms.crop,
  'sized': lambda view: transforms.sized_crop,
  'zoom': lambda view: functools.partial(transforms.zoom, heights=view.heights),
}


def batches(
  views: Mapping[str, View],
  *,
  seed: int,
  stream: str = '',
  start: int = 0,
  rows: slice = slice(None),
  parallel_calls: int = PARALLEL_CALLS,
  skipped: Skipped = None,
) -> Iterator[dict[str, np.ndarray]]:
  """Endless batches of all named views, from step `start` on; `seed` is the run's.

  Yields {f'{name}_image': uint8 [B, h, w, 3] RGB, f'{name}_label': uint8 [B, h, w]} with train ids
  and 255; the label is left out for a view whose source has none. Raises BadInput: a view cannot be
  made; or, while iterating, a file is missing or damaged, sizes differ or a label id is unknown.

  Args:
    stream: a name; streams of one seed share no draw.
    rows: which of each view's B = low_rows + full_rows rows to make; the others are not read.
    parallel_calls: images decoded at a time; does not change the batches.
    skipped: None stops at the first file that cannot be read. A dict takes note of such images
      (path -> what is wrong), and the next readable one of the data set stands in for each.
  """
  for name, view in views.items():
    _check(name, view, rows)
  tf = host_tensorflow.load()
  failed: Failed = {}
  datasets = {
    name: _dataset(
      name, view, (seed, stream), start, range(view.rows)[rows], parallel_calls, skipped, failed
    )
    for name, view in views.items()
  }
  options = tf.data.Options()
  options.deterministic = True
  options.threading.private_threadpool_size = parallel_calls
  options.threading.max_intra_op_parallelism = 1
  options.autotune.enabled = False
  dataset = tf.data.Dataset.zip(datasets).prefetch(PREFETCH).with_options(options)
  return _iterate(dataset, start, failed)


def image_indices(name: str, view: View, *, seed: int, stream: str = '', step: int) -> list[int]:
  """The indices into `view.source.ids` of the B images of a step."""
  tf = host_tensorflow.load()
  positions = tf.range(step * view.rows, (step + 1) * view.rows, dtype=tf.int64)
  of = functools.partial(_image_index, name, len(view.source), (seed, stream))
  return [int(of(position)) for position in positions]


def _check(name: str, view: View, rows: slice) -> None:
  """Raises BadInput for a view that cannot be made, whatever its files are."""
  if min(view.low_rows, view.full_rows) < 0 or not range(view.rows)[rows]:
    raise BadInput(
      f'{name}: a batch of {view.low_rows} + {view.full_rows} rows leaves this host none'
    )
  if min(*view.crop, *(view.low_size or view.crop), *(view.full_size or view.crop)) < 1:
    raise BadInput(
      f'{name}: crop {view.crop}, low size {view.low_size} and full size {view.full_size} must be '
      'positive'
    )
  if view.cut not in CUTS:
    raise BadInput(f'{name}: cut is {view.cut!r}; it may be {", ".join(CUTS)}')
  if view.cut == 'zoom' and not 1 <= view.heights[0] <= view.heights[1]:
    raise BadInput(f'{name}: heights {view.heights} of the zoom must be positive and in order')
  if view.copy_paste and not view.source.labels:
    raise BadInput(f'{name}: copy-paste needs labels, but the source has none')
  if view.copy_paste and len(view.copy_paste.counts) != len(view.source):
    raise BadInput(
      f'{name}: the index of the labels is of {len(view.copy_paste.counts)} images, the list has '
      f'{len(view.source)}: label again'
    )
  if view.redraw and not view.source.labels:
    raise BadInput(f'{name}: redraw needs labels, but the source has none; turn redraw off')


def _iterate(dataset: Untyped, start: int, failed: Failed) -> Iterator[dict[str, np.ndarray]]:
  for step, batch in enumerate(dataset.as_numpy_iterator(), start):
    if isinstance(error := failed.get(step), BadInput):
      raise BadInput(f'{error}. {DOCTOR}') from None
    if error:
      raise error
    yield {f'{name}_{part}': x for name, parts in batch.items() for part, x in parts.items()}


def _dataset(
  name: str, view: View, root: Root, start: int, rows: range, parallel_calls: int,
  skipped: Skipped, failed: Failed,
) -> Untyped:  # fmt: skip
  """The view's rows, batched, as tf.data.Dataset: {'image': [len(rows), h, w, 3], 'label': ...}."""
  tf = host_tensorflow.load()
  own = tf.constant(list(rows), tf.int64)
  shapes = {'image': (*view.crop, 3)} | ({'label': view.crop} if view.source.labels else {})

  def make(step: int, row: int, index: int) -> list[np.ndarray]:
    step, row, index = int(step), int(row), int(index)  # NumPy's, which seeds are not made of
    try:
      pixels = _read(view, index, row, skipped)
      return _example(view, pixels, row, transforms.generator(*root, name, step, row), skipped)
    except Exception as error:  # of which TensorFlow would keep the text alone, and print it
      failed.setdefault(step, error)
      return [np.zeros(shape, np.uint8) for shape in shapes.values()]

  # No tensor meets Python's control flow in here; looking for it would double the start-up time.
  @tf.autograph.experimental.do_not_convert
  def example(position: Untyped) -> dict[str, Untyped]:
    step, row = position // len(rows), own[position % len(rows)]
    index = _image_index(name, len(view.source), root, step * view.rows + row)
    made = tf.numpy_function(make, [step, row, index], [tf.uint8] * len(shapes))
    parts = zip(shapes.items(), made, strict=True)
    return {part: tf.ensure_shape(x, shape) for (part, shape), x in parts}

  positions = tf.data.Dataset.range(start * len(rows), _FOREVER)
  mapped = positions.map(example, num_parallel_calls=parallel_calls, deterministic=True)
  return mapped.batch(len(rows), drop_remainder=True)


def _image_index(name: str, number: int, root: Root, position: Untyped) -> Untyped:
  """The image at a position of the endless order: a new permutation every `number` positions."""
  tf = host_tensorflow.load()
  (seed, stream), (epoch, offset) = root, (position // number, position % number)
  key = tf.constant([seed, 0], tf.int64)
  for part in (stream, name):
    key = tf.random.fold_in(key, zlib.crc32(part.encode()) & 0x7FFFFFFF)
  key = tf.random.fold_in(key, epoch)
  return tf.random.experimental.index_shuffle(offset, key, number - 1)


def _example(
  view: View, pixels: Pixels, row: int, rng: np.random.Generator, skipped: Skipped
) -> list[np.ndarray]:
  """Copy-paste, resize (low rows), flip, crop, in this order: [image] or [image, label]."""
  image, raw = pixels
  label = None if raw is None else transforms.picture(raw, view.source.lut)
  pair = transforms.picture(image), label
  if view.copy_paste and label is not None:
    donors = view.copy_paste.draw(rng)
    pair = _paste(view.source, donors, view.copy_paste.hard, image, label.whole(), skipped)
  size = view.size(row)
  if size is not None:
    pair = transforms.resize(pair, size)
  pair = transforms.flip(pair, rng)
  cut = CUTS[view.cut](view)
  if view.redraw:
    cut = functools.partial(transforms.redraw, cut)
  pair = cut(pair, view.crop, rng)
  return [np.ascontiguousarray(part.whole()) for part in pair if part is not None]


def _paste(
  source: Folder, donors: np.ndarray, hard: np.ndarray, image: np.ndarray, label: np.ndarray,
  skipped: Skipped,
) -> transforms.Pair:  # fmt: skip
  """The donors' (-1: none) pixels of hard classes over the image and its label."""
  for donor in donors[donors >= 0]:
    try:
      other, truth = source.read(int(donor))
    except BadInput as error:
      if skipped is None:
        raise
      skipped[source.image_path(donor)] = str(error)
      continue
    assert truth is not None  # a view with copy-paste has labels
    other = transforms.resample(transforms.picture(other), label.shape, resampling.BICUBIC).whole()
    truth = transforms.nearest(transforms.picture(truth), label.shape).whole()
    mask = np.isin(truth, hard)
    image, label = np.where(mask[..., None], other, image), np.where(mask, truth, label)
  return transforms.picture(image), transforms.picture(label)


def _read(view: View, index: int, row: int, skipped: Skipped) -> Pixels:
  """Image and raw ids; with `skipped` perhaps those of the next image that is readable."""
  source = view.source
  if skipped is None:
    low_size = view.low_size if row < view.low_rows and not view.copy_paste else None
    return (low_size and source.read_low(index, low_size)) or source.read_pair(index)
  for place in range(index, index + len(source)):
    place %= len(source)
    try:
      return source.read_pair(place)
    except BadInput as error:
      skipped[source.image_path(place)] = str(error)
  raise BadInput(f'none of the images can be read: {skipped[source.image_path(index)]}')
