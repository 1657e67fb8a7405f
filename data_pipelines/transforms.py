"""Transforms of an image and its label together: TensorFlow functions without state.

Each takes a seed (integer [2]) and gives the same result for the same seed, on every host. Images
are uint8 [h, w, 3], labels uint8 [h, w] or None; sizes are (height, width). What is drawn follows
docs/method.md section 2 (DiGA, arXiv 2304.02222).
"""

from collections.abc import Callable

import tensorflow as tf

Image = tf.Tensor | None
Label = tf.Tensor | None
Pair = tuple[Image, Label]
Size = tuple[int, int]
Cut = Callable[[Image, Label, Size, tf.Tensor], Pair]

REDRAWS = 5
REDRAW_SHARE = 0.02
SIZED_CROP_RANGE = (0.7, 1.0)
IGNORE = 255


def resize(image: tf.Tensor, label: Label, size) -> Pair:
  """Resizes the image with `resize_bicubic` and the label with `resize_nearest`."""
  return resize_bicubic(image, size), None if label is None else resize_nearest(label, size)


def resize_bicubic(image: tf.Tensor, size) -> tf.Tensor:
  """Bicubic with antialiasing, as Pillow does it (at most 1 grey level apart).

  Pillow resizes the columns, rounds and clips to 8 bits, then resizes the rows. Doing both at once
  is twice as fast, but differs by up to 25 levels where the cubic kernel overshoots. (Pillow 13
  takes the rows first when they shrink much more than the columns do; earlier versions never.)
  """
  size = tf.convert_to_tensor(size, tf.int32)
  columns = tf.stack([tf.shape(image)[0], size[1]])
  return _resized(_resized(image, columns, 'bicubic'), size, 'bicubic')


def resize_bilinear(image: tf.Tensor, size) -> tf.Tensor:
  """Bilinear with antialiasing, as Pillow does it (at most 1 grey level apart)."""
  return _resized(image, size, 'bilinear')


def _resized(image: tf.Tensor, size, method: str) -> tf.Tensor:
  return _to_uint8(tf.image.resize(image, size, method, antialias=True))


def _to_uint8(values: tf.Tensor) -> tf.Tensor:
  """Rounds half up, as Pillow does, and clips (the cast drops the fraction)."""
  return tf.cast(tf.clip_by_value(values + 0.5, 0, 255), tf.uint8)


def resize_nearest(label: tf.Tensor, size) -> tf.Tensor:
  """Nearest neighbour, with exactly the pixels that Pillow takes."""
  rows = _nearest_index(tf.shape(label)[0], size[0])
  columns = _nearest_index(tf.shape(label)[1], size[1])
  return tf.gather(tf.gather(label, rows), columns, axis=1)


def _nearest_index(old, new) -> tf.Tensor:
  """The `new` source positions along an axis of `old` pixels: floor((i + 0.5) * old / new).

  Pillow adds up the step instead of multiplying; the running sum rounds differently where a
  position falls on a pixel's border, so the sum is what is done here.
  """
  step = tf.cast(old, tf.float64) / tf.cast(new, tf.float64)
  steps = tf.concat([[step * 0.5], tf.fill([new - 1], step)], 0)
  return tf.minimum(tf.cast(tf.cumsum(steps), tf.int32), old - 1)


def flip(image: tf.Tensor, label: Label, seed: tf.Tensor) -> Pair:
  """Mirrors left and right with probability 0.5."""
  mirrored = tf.random.stateless_uniform([], seed) < 0.5

  def mirror(x):
    return None if x is None else tf.cond(mirrored, lambda: tf.reverse(x, [1]), lambda: x)

  return mirror(image), mirror(label)


def crop(image: Image, label: Label, size: Size, seed: tf.Tensor) -> Pair:
  """Cuts out a window of `size` at a place drawn uniformly.

  An image that is smaller than the window in height or width is resized to the window's size
  instead, whole (bilinear / nearest).
  """
  slack = _size_of(image, label) - tf.constant(size)
  smaller = tf.reduce_any(slack < 0)
  place = tf.random.stateless_uniform([2], seed)
  top, left = tf.unstack(tf.cast(place * tf.cast(slack + 1, tf.float32), tf.int32))

  def cut(x, resized):
    if x is None:
      return None
    return tf.cond(
      smaller, lambda: resized(x, size), lambda: x[top : top + size[0], left : left + size[1]]
    )

  return cut(image, resize_bilinear), cut(label, resize_nearest)


def sized_crop(image: Image, label: Label, size: Size, seed: tf.Tensor) -> Pair:
  """Scales height and width by an own U(0.7, 1) each (bilinear / nearest), then does `crop`."""
  scale_seed, crop_seed = tf.unstack(tf.random.split(seed))
  scales = tf.random.stateless_uniform([2], scale_seed, *SIZED_CROP_RANGE)
  scaled = tf.cast(scales * tf.cast(_size_of(image, label), tf.float32), tf.int32)
  image = None if image is None else resize_bilinear(image, scaled)
  label = None if label is None else resize_nearest(label, scaled)
  return crop(image, label, size, crop_seed)


def zoom(
  image: Image, label: Label, size: Size, seed: tf.Tensor, *, heights: tuple[int, int]
) -> Pair:
  """Cuts out a window of the shape of `size` and of a height drawn from `heights`; resizes it.

  The height is a uniform integer, both ends included, but at most what fits into the image; the
  place is uniform (bilinear / nearest). HIAST's geometric view (docs/method.md section 10).
  """
  height_seed, place_seed = tf.unstack(tf.random.split(seed))
  full = _size_of(image, label)
  drawn = tf.random.stateless_uniform([], height_seed, heights[0], heights[1] + 1, tf.int32)
  ratio = size[1] / size[0]
  widest = tf.cast(tf.cast(full[1], tf.float32) / ratio, tf.int32)
  height = tf.maximum(tf.minimum(drawn, tf.minimum(full[0], widest)), 1)
  width = tf.maximum(tf.cast(tf.round(tf.cast(height, tf.float32) * ratio), tf.int32), 1)
  window = tf.stack([height, tf.minimum(width, full[1])])
  place = tf.random.stateless_uniform([2], place_seed)
  top, left = tf.unstack(tf.cast(place * tf.cast(full - window + 1, tf.float32), tf.int32))

  def cut(x, resized):
    return None if x is None else resized(x[top : top + window[0], left : left + window[1]], size)

  return cut(image, resize_bilinear), cut(label, resize_nearest)


def redraw(cut: Cut, image: tf.Tensor, label: tf.Tensor, size: Size, seed: tf.Tensor) -> Pair:
  """Draws `cut` (crop or sized_crop) again, up to 5 times, until `acceptable`.

  The sixth draw is taken as it comes. Only labels are cut until one is accepted.
  """

  def rejected(attempt):
    _, drawn = cut(None, label, size, tf.random.fold_in(seed, attempt))
    return (attempt < REDRAWS) & ~acceptable(drawn)

  attempt = tf.while_loop(rejected, lambda attempt: [attempt + 1], [tf.constant(0)])[0]
  return cut(image, label, size, tf.random.fold_in(seed, attempt))


def acceptable(label: tf.Tensor) -> tf.Tensor:
  """Whether a crop's label shows enough classes: a boolean scalar.

  True when at least 3 labels (255 counts as one) cover more than 2% of the pixels each; or exactly
  2 do and the highest label present is not a 255 with more than 2%.
  """
  counts = tf.math.bincount(tf.cast(tf.reshape(label, [-1]), tf.int32), minlength=256)
  large = tf.cast(counts, tf.float64) > REDRAW_SHARE * tf.cast(tf.size(label), tf.float64)
  number = tf.math.count_nonzero(large)
  # 255 is the highest id there is, so "the highest is a large 255" is "255 is large".
  return (number >= 3) | ((number == 2) & ~large[IGNORE])


def _size_of(image: Image, label: Label) -> tf.Tensor:
  return tf.shape(label if image is None else image)[:2]
