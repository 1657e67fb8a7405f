"""Images of any size computed by a few programs: padded to common shapes, or cut into windows.

A program is compiled for one shape. Where images have more sizes than programs may be compiled,
sizes share a shape: the image is continued by its mirror image on all sides, and what is computed
there is cut off. A network sees what lies beyond a border by its receptive field, by means over the
whole image (squeeze-excite, GroupNorm, attention) and by resizing with aligned corners, whose grid
spans the padded image. So padding changes labels, all over the image; an image of a shape of its
own is computed as the evaluation does. docs/predict.md has measurements.
"""

import collections
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data_pipelines.label_tables import IGNORE
from diga_jax.types import Size

Plan = Mapping[Size, Size | None]  # what `plan` returns

PROGRAMS = 4  # shapes that the images of one call are computed in
WINDOW = 1024  # pixels: the side of a window
WHOLE = 4  # windows: an image of more pixels is cut into windows
OVERLAP = 4  # neighbouring windows share at least a fourth of their side
DISTINCT = 256  # sizes that are compared with each other; more are rounded up until they are fewer


def plan(
  sizes: Sequence[Size], programs: int = PROGRAMS, window: int = WINDOW
) -> dict[Size, Size | None]:
  """The shapes that images are computed in: few, and with little padding.

  Args:
    sizes: (h, w) of all images; one that many images have is more likely to keep its own shape.
    programs: the most shapes, that of the windows among them; 0: every size is a shape.
    window: the side of a window; images of more than 4 * window^2 pixels are cut into windows.

  Returns:
    size -> the shape that it is padded to, which is the size itself where it can be; None: it is
    cut into windows.
  """
  counts = collections.Counter(tuple(size) for size in sizes)
  area = WHOLE * window**2
  whole = {size: count for size, count in counts.items() if size[0] * size[1] <= area}
  found: dict[Size, Size | None] = dict.fromkeys(counts)
  if not programs:
    return found | {size: size for size in whole}
  groups = _groups(whole)
  while len(groups) + (len(whole) < len(counts)) > programs:
    if not _merge(groups, area):
      # No two fit into one shape: the fewest pixels are those of windows.
      smallest = min(groups, key=lambda group: group.pixels)
      groups.remove(smallest)
      whole = {size: count for size, count in whole.items() if size not in smallest.sizes}
  return found | {size: group.shape for group in groups for size in group.sizes}


class _Group(NamedTuple):
  """Sizes that share a shape, and how many images have them."""

  sizes: frozenset[Size]
  count: int
  shape: Size

  @property
  def pixels(self) -> int:
    return self.count * self.shape[0] * self.shape[1]


def _groups(counts: Mapping[Size, int]) -> list[_Group]:
  """A group for each size, or each size rounded up so that there are few enough to compare."""
  step = 1
  while True:
    found = collections.defaultdict(list)
    for height, width in counts:
      found[-(-height // step), -(-width // step)].append((height, width))
    if len(found) <= DISTINCT:
      return [_group(sizes, sum(counts[size] for size in sizes)) for sizes in found.values()]
    step *= 2


def _group(sizes: Sequence[Size], count: int) -> _Group:
  heights, widths = zip(*sizes, strict=True)
  return _Group(frozenset(sizes), count, (max(heights), max(widths)))


def _merge(groups: list[_Group], area: int) -> bool:
  """Joins the two groups that cost the fewest pixels of padding; False if none fit."""
  if len(groups) < 2:
    return False
  shapes = np.array([group.shape for group in groups], np.int64)
  counts = np.array([group.count for group in groups], np.int64)
  areas = np.maximum(shapes[:, None], shapes[None]).prod(-1)
  pixels = counts * shapes.prod(-1)
  added = ((counts[:, None] + counts) * areas - pixels[:, None] - pixels).astype(float)
  added[areas > area] = np.inf
  np.fill_diagonal(added, np.inf)
  first, second = sorted(map(int, np.unravel_index(added.argmin(), added.shape)))
  if added[first, second] == np.inf:
    return False
  b, a = groups.pop(second), groups.pop(first)
  groups.append(_group([*a.sizes, *b.sizes], a.count + b.count))
  return True


def pad_to(image: np.ndarray, shape: Size) -> np.ndarray:
  """Continues [h, w, channels] on all sides by its mirror image, to `shape`; see `crop`."""
  added = _added(image.shape, shape)
  return np.pad(image, (*added, (0, 0)), 'reflect') if any(map(any, added)) else image


def crop(padded: np.ndarray, size: Size) -> np.ndarray:
  """The image's part [h, w, ...] of what `pad_to` gave, or of what is computed from it."""
  (top, _), (left, _) = _added(size, padded.shape)
  return padded[top : top + size[0], left : left + size[1]]


def _added(size: Size, shape: Size) -> tuple[tuple[int, int], ...]:
  """Rows above and below, and columns left and right, that are added to an image."""
  missing = [max(shape[axis] - size[axis], 0) for axis in (0, 1)]
  return tuple((count // 2, count - count // 2) for count in missing)


def pad_label(label: np.ndarray, shape: Size) -> np.ndarray:
  """A label [h, w] of an image that `pad_to` pads; nothing is labelled beyond the image."""
  return np.pad(label, _added(label.shape, shape), constant_values=IGNORE)


def shape_of(size: Size, planned: Plan, window: int = WINDOW) -> Size:
  """The shape that an image is padded to: that of its plan, or what windows of this side cover."""
  return planned.get(size) or (max(size[0], window), max(size[1], window))


def is_cut(shape: Size, planned: Plan) -> bool:
  """Whether images that were padded to a shape are cut into windows."""
  return shape not in planned.values()


class Cut(NamedTuple):
  """Where a window lies in an image, and which part of the image is taken from it."""

  top: int
  left: int
  rows: slice
  columns: slice


def cuts(size: Size, window: int = WINDOW) -> Iterator[Cut]:
  """The windows of an image in rows; each pixel is taken from the one that it is deepest in.

  Neighbours share at least a fourth of a window, which is cut in the middle.
  """
  for top, rows in _spans(size[0], window):
    for left, columns in _spans(size[1], window):
      yield Cut(top, left, rows, columns)


def _spans(length: int, window: int) -> Iterator[tuple[int, slice]]:
  """Along one side: (where a window begins, what is taken from it)."""
  stride = window - window // OVERLAP
  count = 1 + max(-(-(length - window) // stride), 0)
  starts = np.linspace(0, max(length - window, 0), count).round().astype(int).tolist()
  borders = [(a + window + b) // 2 for a, b in itertools.pairwise(starts)]
  for start, low, high in zip(starts, [0, *borders], [*borders, length], strict=True):
    yield start, slice(low, high)
