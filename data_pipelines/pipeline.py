"""Batches whose content is a function of (seed, stream, step): nothing is saved to resume.

For each view (source, target, ...) the images go by in an order that is a new permutation each
epoch, computed from the position alone. Every random choice of a transform comes from a generator
seeded by (seed, stream, view, step, row), so that any host can make any row of any step, and reads
only those that it needs.
"""

import dataclasses
import functools
import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from data_pipelines import image_files, transforms
from data_pipelines.copy_paste import CopyPaste
from data_pipelines.errors import BadInput, one_line
from data_pipelines.folder import Folder, Pixels

# Accelerators belong to JAX: TensorFlow would take their memory.
tf.config.set_visible_devices([], 'GPU')
tf.config.set_visible_devices([], 'TPU')

# Decoding keeps up with two CPU threads for crops of some hundred pixels; more take cores from JAX.
PARALLEL_CALLS = 2
PREFETCH = 2
_FOREVER = 2**62
DOCTOR = "`python -m diga_jax doctor` checks all files; data.on_bad_file='skip' leaves them out"

Untyped = Any  # tensors: TensorFlow's type stubs lack operators and modules
random: Untyped = tf.random
Root = tuple[int, str]  # the run's seed and the name of a stream
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
  datasets = {
    name: _dataset(
      name, view, (seed, stream), start, range(view.rows)[rows], parallel_calls, skipped
    )
    for name, view in views.items()
  }
  options = tf.data.Options()
  options.deterministic = True
  options.threading.private_threadpool_size = parallel_calls
  options.threading.max_intra_op_parallelism = 1
  options.autotune.enabled = False
  dataset = tf.data.Dataset.zip(datasets).prefetch(PREFETCH).with_options(options)
  return _iterate(dataset, views, (seed, stream), start, rows)


def image_indices(name: str, view: View, *, seed: int, stream: str = '', step: int) -> list[int]:
  """The indices into `view.source.ids` of the B images of a step."""
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


def _iterate(
  dataset: tf.data.Dataset, views: Mapping[str, View], root: Root, start: int, rows: slice
) -> Iterator[dict[str, np.ndarray]]:
  iterator: Untyped = dataset.as_numpy_iterator()
  for step in itertools.count(start):
    try:
      batch = next(iterator)
    except tf.errors.OpError as error:
      raise _blame(views, root, step, rows, error) from None
    yield {f'{name}_{part}': x for name, parts in batch.items() for part, x in parts.items()}


def _dataset(
  name: str, view: View, root: Root, start: int, rows: range, parallel_calls: int, skipped: Skipped
) -> tf.data.Dataset:
  """The view's rows, batched: {'image': [len(rows), h, w, 3], 'label': ...}."""
  own = tf.constant(list(rows), tf.int64)
  shapes = {'image': (*view.crop, 3)} | ({'label': view.crop} if view.source.labels else {})
  load = _decoder(view.source) if skipped is None else None

  def make(step: int, row: int, index: int, *pixels: np.ndarray) -> list[np.ndarray]:
    step, row, index = int(step), int(row), int(index)  # NumPy's, which seeds are not made of
    image, raw = (pixels[0], None) if pixels else _read(view, index, row, skipped)
    if len(pixels) > 1:
      raw = pixels[1]
      view.source.check_raw(index, raw, image.shape)
    return _example(view, (image, raw), row, _generator(name, root, step, row), skipped)

  # No tensor meets Python's control flow in here; looking for it would double the start-up time.
  @tf.autograph.experimental.do_not_convert
  def example(position: Untyped) -> dict[str, Untyped]:
    step, row = position // len(rows), own[position % len(rows)]
    index = _image_index(name, len(view.source), root, step * view.rows + row)
    pixels = load(index) if load else []
    made = tf.numpy_function(make, [step, row, index, *pixels], [tf.uint8] * len(shapes))
    parts = zip(shapes.items(), made, strict=True)
    return {part: tf.ensure_shape(x, shape) for (part, shape), x in parts}

  positions = tf.data.Dataset.range(start * len(rows), _FOREVER)
  mapped = positions.map(example, num_parallel_calls=parallel_calls, deterministic=True)
  return mapped.batch(len(rows), drop_remainder=True)


def _generator(name: str, root: Root, step: int, row: int) -> np.random.Generator:
  """Where everything that is drawn for one row of one step comes from."""
  return transforms.generator(*root, name, step, row)


def _image_index(name: str, number: int, root: Root, position: Untyped) -> Untyped:
  """The image at a position of the endless order: a new permutation every `number` positions."""
  (seed, stream), (epoch, offset) = root, (position // number, position % number)
  key = tf.constant([seed, 0], tf.int64)
  for part in (stream, name):
    key = random.fold_in(key, zlib.crc32(part.encode()) & 0x7FFFFFFF)
  return random.experimental.index_shuffle(offset, random.fold_in(key, epoch), number - 1)


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
    other = transforms.resample(transforms.picture(other), label.shape, transforms.BICUBIC).whole()
    truth = transforms.nearest(transforms.picture(truth), label.shape).whole()
    mask = np.isin(truth, hard)
    image, label = np.where(mask[..., None], other, image), np.where(mask, truth, label)
  return transforms.picture(image), transforms.picture(label)


def _read(view: View, index: int, row: int, skipped: Skipped) -> Pixels:
  """Image and raw ids, from shards; with `skipped` perhaps those of the next that is readable."""
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
  raise BadInput(f'{source.images}: none of the images can be read')


def _decoder(source: Folder) -> Callable[[Untyped], list[Untyped]] | None:
  """index -> [image] or [image, raw label], decoded by TensorFlow; None for what is in shards."""
  if source.image_pack or source.label_pack:
    return None
  images = tf.constant([source.image_path(i) for i in range(len(source))])
  if not source.labels:
    return lambda index: [_load_image(images[index])]
  labels = tf.constant([source.label_path(i) for i in range(len(source))])
  return lambda index: [_load_image(images[index]), _load_label(labels[index], source)]


def _load_image(path: Untyped) -> Untyped:
  # Despite its name, this decodes PNG as well; the method is Pillow's, so that both agree.
  return tf.io.decode_jpeg(tf.io.read_file(path), channels=3, dct_method='INTEGER_ACCURATE')


def _load_label(path: Untyped, source: Folder) -> Untyped:
  """A label file's raw ids. TensorFlow reads the greyscale ones, which need no interpreter."""

  def read(file: bytes) -> np.ndarray:
    return image_files.read_label(file.decode(), source.label_format, source.colours)

  by_pillow = functools.partial(tf.numpy_function, read, [path], tf.uint8)
  if source.label_format != 'index':
    return by_pillow()
  data = tf.io.read_file(path)
  # A file that is cut shorter than this has zeros there, and goes to Pillow to be refused.
  start = tf.strings.substr(data, 0, image_files.HEADER_SIZE) + '\0' * image_files.HEADER_SIZE
  header = tf.cast(tf.io.decode_raw(start, tf.uint8), tf.int32)
  grey = (header[24] == 8) & (header[25] == image_files.GREY)
  return tf.cond(grey, lambda: tf.io.decode_png(data, channels=1)[..., 0], by_pillow)


def _blame(
  views: Mapping[str, View], root: Root, step: int, rows: slice, error: tf.errors.OpError
) -> BadInput:
  """Reads the batch again, file by file, to name the one that cannot be read."""
  for name, view in views.items():
    read = image_indices(name, view, seed=root[0], stream=root[1], step=step)[rows]
    for row in range(view.rows)[rows]:
      if view.copy_paste:
        donors = view.copy_paste.draw(_generator(name, root, step, row))
        read += donors[donors >= 0].tolist()
    for index in read:
      path = view.source.image_path(index)
      try:
        view.source.read(index)
        if not view.source.image_pack:
          _load_image(path)
      except BadInput as found:
        return BadInput(f'{found}. {DOCTOR}')
      except tf.errors.OpError as failed:
        reason = _first_line(failed)
        return BadInput(f'{path}: cannot be decoded ({reason}); restore or remove it. {DOCTOR}')
  return BadInput(f'step {step} cannot be read ({_first_line(error)}); has a file been changed?')


def _first_line(error: tf.errors.OpError) -> str:
  """TensorFlow's message without the traceback that follows it."""
  return one_line(str(error.message).partition('\n')[0])
