"""Batches whose content is a function of (seed, step): nothing has to be saved to resume.

For each view (source, target, ...) the images go by in an order that is a new permutation each
epoch, computed from the position alone. Every random choice of a transform is drawn from a
stateless seed of (seed, view, step, row), so that any host can make any row of any step, and reads
only those that it needs.
"""

import dataclasses
import functools
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

from data_pipelines import sources, transforms
from data_pipelines.copy_paste import CopyPaste
from data_pipelines.errors import BadInput

# Accelerators belong to JAX: TensorFlow would take their memory.
tf.config.set_visible_devices([], 'GPU')
tf.config.set_visible_devices([], 'TPU')

# Decoding keeps up with two CPU threads for crops of some hundred pixels; more take cores from JAX.
PARALLEL_CALLS = 2
PREFETCH = 2
_FOREVER = 2**62
CUTS = ('plain', 'sized', 'zoom')


@dataclasses.dataclass(frozen=True)
class View:
  """What one domain contributes to a batch.

  Attributes:
    source: the images.
    low: rows of the batch that are resized to `low_size` first; they come first.
    full: rows that keep the image's own size.
    low_size: (h, w), None leaves low rows at their own size as well.
    crop: (h, w) of the batch.
    cut: how the crop is cut: 'plain'; 'sized', which first scales by U(0.7, 1); or 'zoom', a window
      of a height drawn from `heights`, resized to the crop.
    heights: (smallest, largest) height of the 'zoom' window, in pixels.
    copy_paste: pastes hard-class pixels of other images first; needs labels.
    redraw: draw the crop again until its label shows enough classes.
  """

  source: sources.Folder
  low: int
  full: int
  low_size: tuple[int, int] | None
  crop: tuple[int, int]
  cut: str = 'plain'
  heights: tuple[int, int] = (341, 1000)
  copy_paste: CopyPaste | None = None
  redraw: bool = False

  @property
  def rows(self) -> int:
    return self.low + self.full


def batches(
  views: Mapping[str, View],
  *,
  seed: int,
  start: int = 0,
  rows: slice = slice(None),
  parallel_calls: int = PARALLEL_CALLS,
) -> Iterator[dict[str, np.ndarray]]:
  """Endless batches of all views, from step `start` on.

  Args:
    views: name -> view.
    seed: the run's data seed.
    start: the first step.
    rows: which of each view's B = low + full rows to make; the others are not read.
    parallel_calls: images decoded at a time; does not change the batches.

  Returns:
    An iterator over {f'{name}_image': uint8 [B, h, w, 3] RGB, f'{name}_label': uint8 [B, h, w]}
    with train ids and 255; the label is left out for a view whose source has none.

  Raises:
    BadInput: a view cannot be made; or, while iterating, a file is missing or damaged, sizes differ
      or a label id is unknown.
  """
  for name, view in views.items():
    _check(name, view, rows)
  datasets = {
    name: _dataset(name, view, seed, start, range(view.rows)[rows], parallel_calls)
    for name, view in views.items()
  }
  dataset = tf.data.Dataset.zip(datasets).prefetch(PREFETCH).with_options(_options(parallel_calls))
  return _iterate(dataset, views, seed, start, rows)


def image_indices(name: str, view: View, *, seed: int, step: int) -> list[int]:
  """The indices into `view.source.ids` of the B images of a step."""
  return [
    int(_image_index(name, len(view.source), seed, tf.constant(step * view.rows + row, tf.int64)))
    for row in range(view.rows)
  ]


def _check(name: str, view: View, rows: slice) -> None:
  """Raises BadInput for a view that no file can satisfy."""
  if min(view.low, view.full) < 0 or not range(view.rows)[rows]:
    raise BadInput(f'{name}: a batch of {view.low} + {view.full} rows leaves this host none')
  if min(*view.crop, *(view.low_size or view.crop)) < 1:
    raise BadInput(f'{name}: crop {view.crop} and low size {view.low_size} must be positive')
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
    raise BadInput(f'{name}: redraw looks at labels, but the source has none; turn redraw off')


def _options(parallel_calls: int) -> tf.data.Options:
  options = tf.data.Options()
  options.deterministic = True
  options.threading.private_threadpool_size = parallel_calls
  options.threading.max_intra_op_parallelism = 1
  options.autotune.enabled = False
  return options


def _iterate(dataset, views, seed, start, rows) -> Iterator[dict[str, np.ndarray]]:
  step = start
  iterator = dataset.as_numpy_iterator()
  while True:
    try:
      batch = next(iterator)
    except tf.errors.OpError as error:
      raise _blame(views, seed, step, rows, error) from None
    yield {f'{name}_{part}': x for name, parts in batch.items() for part, x in parts.items()}
    step += 1


def _dataset(name, view, seed, start, rows, parallel_calls) -> tf.data.Dataset:
  """The view's rows, batched: {'image': [len(rows), h, w, 3], 'label': ...}."""
  paths = _paths(view.source)
  lut = tf.constant(view.source.lut)
  own = tf.constant(list(rows), tf.int64)

  # No tensor meets Python's control flow in here; looking for it would double the start-up time.
  @tf.autograph.experimental.do_not_convert
  def example(position):
    step, row = position // len(rows), own[position % len(rows)]
    index = _image_index(name, len(view.source), seed, step * view.rows + row)
    image, label = _load({part: files[index] for part, files in paths.items()}, lut)
    drawn = _example_seed(name, seed, step, row)
    if view.copy_paste:
      image, label = _paste(view.copy_paste, image, label, paths, lut, drawn)
    image, label = _transform(view, image, label, row, drawn)
    parts = {'image': tf.ensure_shape(image, (*view.crop, 3))}
    if label is not None:
      parts['label'] = tf.ensure_shape(label, view.crop)
    return parts

  positions = tf.data.Dataset.range(start * len(rows), _FOREVER)
  mapped = positions.map(example, num_parallel_calls=parallel_calls, deterministic=True)
  return mapped.batch(len(rows), drop_remainder=True)


def _stream(name: str, seed: int) -> tf.Tensor:
  """The root seed (integer [2]) of a view; zlib's checksum is the same on every machine."""
  return tf.random.fold_in(tf.constant([seed, 0], tf.int64), zlib.crc32(name.encode()) & 0x7FFFFFFF)


def _example_seed(name: str, seed: int, step: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
  return tf.random.fold_in(tf.random.fold_in(_stream(name, seed), step), row)


def _image_index(name: str, number: int, seed: int, position: tf.Tensor) -> tf.Tensor:
  """The image at a position of the endless stream: a new permutation every `number` positions."""
  epoch, offset = position // number, position % number
  key = tf.random.fold_in(_stream(name, seed), epoch)
  return tf.random.experimental.index_shuffle(offset, key, number - 1)


def _transform(view: View, image, label, row, seed):
  """Resize (low rows), flip, crop, in this order."""
  flip_seed, crop_seed = tf.unstack(tf.random.split(seed))
  if view.low_size is not None:
    low = row < view.low
    image = tf.cond(low, lambda: transforms.resize_bicubic(image, view.low_size), lambda: image)
    if label is not None:
      label = tf.cond(low, lambda: transforms.resize_nearest(label, view.low_size), lambda: label)
  image, label = transforms.flip(image, label, flip_seed)
  cut = {
    'plain': transforms.crop,
    'sized': transforms.sized_crop,
    'zoom': functools.partial(transforms.zoom, heights=view.heights),
  }[view.cut]
  if view.redraw:
    return transforms.redraw(cut, image, label, view.crop, crop_seed)
  return cut(image, label, view.crop, crop_seed)


def _donors(copy_paste: CopyPaste, seed: tf.Tensor) -> tf.Tensor:
  """Positions of the images to paste from, -1 for none: int64 [images]."""
  # Not the seed of the other transforms itself: a draw of its own.
  own = tf.random.fold_in(seed, 0)
  drawn = tf.numpy_function(copy_paste.draw, [own], tf.int64)
  return tf.ensure_shape(drawn, copy_paste.images)


def _paste(copy_paste: CopyPaste, image, label, paths, lut, seed):
  """Pastes all hard-class pixels of the drawn images over the image and its label."""
  hard = tf.constant(copy_paste.hard, tf.uint8)

  def pasted(image, label, donor):
    other, truth = _load({part: files[donor] for part, files in paths.items()}, lut)
    other, truth = transforms.resize(other, truth, tf.shape(label))
    mask = tf.reduce_any(truth[..., None] == hard, -1)
    return tf.where(mask[..., None], other, image), tf.where(mask, truth, label)

  for donor in tf.unstack(_donors(copy_paste, seed)):
    image, label = tf.cond(
      donor >= 0, lambda i=image, n=label, d=donor: pasted(i, n, d), lambda i=image, n=label: (i, n)
    )
  return image, label


def _paths(source: sources.Folder) -> dict[str, tf.Tensor]:
  """The source's files as string tensors: 'image' and, if there are labels, 'label'."""
  paths = {'image': source.image_path} | ({'label': source.label_path} if source.labels else {})
  return {part: tf.constant([of(i) for i in range(len(source))]) for part, of in paths.items()}


def _load(paths: dict[str, tf.Tensor], lut: tf.Tensor):
  """Reads one image (uint8 [h, w, 3]) and its train ids (uint8 [h, w] or None)."""
  # Despite its name, this decodes PNG as well; the method is Pillow's, so that both agree.
  image = tf.io.decode_jpeg(
    tf.io.read_file(paths['image']), channels=3, dct_method='INTEGER_ACCURATE'
  )
  if 'label' not in paths:
    return image, None
  label = tf.gather(lut, tf.cast(_load_label(paths['label']), tf.int32))
  tf.debugging.assert_equal(tf.shape(label), tf.shape(image)[:2], 'sizes differ')
  tf.debugging.assert_greater_equal(tf.reduce_min(tf.cast(label, tf.int32)), 0, 'unknown label id')
  return image, tf.cast(label, tf.uint8)


def _load_label(path: tf.Tensor) -> tf.Tensor:
  """A label file's pixel values. Pillow reads palettes, which TensorFlow expands to colours."""
  data = tf.io.read_file(path)
  start = tf.strings.substr(data, 0, sources.PNG_HEADER_SIZE)
  header = tf.cast(tf.io.decode_raw(start, tf.uint8), tf.int32)
  is_grey = (header[24] == 8) & (header[25] == sources.PNG_GREY)
  label = tf.cond(
    is_grey,
    lambda: tf.io.decode_png(data, channels=1)[..., 0],
    lambda: tf.numpy_function(lambda p: sources.read_label(p.decode()), [path], tf.uint8),
  )
  return tf.ensure_shape(label, (None, None))


def _blame(views, seed: int, step: int, rows: slice, error: tf.errors.OpError) -> BadInput:
  """Reads the batch again, file by file, to name the guilty one."""
  first_line = str(error.message).partition('\n')[0]
  for name, view in views.items():
    paths = _paths(view.source)
    read = image_indices(name, view, seed=seed, step=step)[rows]
    for row in range(view.rows)[rows] if view.copy_paste else ():
      drawn = _donors(view.copy_paste, _example_seed(name, seed, tf.constant(step, tf.int64), row))
      read += [int(donor) for donor in drawn if donor >= 0]
    for index in read:
      try:
        view.source.read(index)
        _load({part: files[index] for part, files in paths.items()}, view.source.lut)
      except BadInput as found:
        return found
      except tf.errors.OpError as failed:
        return BadInput(
          f'{view.source.image_path(index)}: cannot be decoded '
          f'({str(failed.message).partition(chr(10))[0]}); restore or remove it or its label'
        )
  return BadInput(f'step {step} cannot be read ({first_line}); was a file changed meanwhile?')
