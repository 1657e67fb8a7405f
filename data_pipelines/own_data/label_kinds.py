"""What label files hold: their format, the ids or colours that occur, and whose those are."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from data_pipelines import image_files, published_sets
from data_pipelines.errors import BadInput
from data_pipelines.label_tables import COLOURS, IGNORE, TABLES, Colour

MANY_COLOURS, MANY_IDS = 64, 100  # label files of so many are something else
LIKE = 3  # so many colours of a set, black and white apart, make it that set

# Named tables that are told by ids or colours, and the names of their classes.
CLASSES_OF = {
  'cityscapes': 'cityscapes19', 'gta5': 'cityscapes19', 'train_ids': 'cityscapes19',
  'mapillary': 'cityscapes19', 'synthia16_packed': 'synthia16', 'camvid32': 'camvid11',
  'camvid11': 'camvid11', 'robotcar9': 'robotcar9',
}  # fmt: skip
CAMVID = re.compile(r'(0001TP|0006R0|0016E5|Seq05VD)_')


class Scan(NamedTuple):
  """What a label file holds.

  Attributes:
    label_format: a key of `image_files.LABEL_FORMATS`.
    values: the raw ids, or the colours, that occur.
    palette: of a palette file, the colours of its ids.
  """

  label_format: str
  values: frozenset[int] | frozenset[Colour]
  palette: dict[int, Colour]


def scan(path: str) -> Scan:
  """Reads a label file whole.

  Raises BadInput: it cannot be read, or holds too many ids or colours for labels of classes.
  """
  data = image_files.read_file(path)
  kind, depth = image_files.png_kind(data, path)
  if kind in (image_files.RGB, image_files.RGBA) and depth == 8:
    return _scan_colours(data, path)
  label_format = 'rgb16' if kind == image_files.RGB and depth == 16 else 'index'
  ids = _values(image_files.read_label(path, label_format))
  palette = _palette(data, path) if kind == image_files.PALETTE else {}
  return Scan(label_format, ids, {raw: palette[raw] for raw in ids & palette.keys()})


def _values(ids: np.ndarray) -> frozenset[int]:
  return frozenset(np.flatnonzero(Image.fromarray(ids).histogram()).tolist())


def _palette(data: bytes, path: str) -> dict[int, Colour]:
  colours = image_files.read_palette(data, path)
  return {raw: (int(r), int(g), int(b)) for raw, (r, g, b) in enumerate(colours)}


def _scan_colours(data: bytes, path: str) -> Scan:
  """Colours; or ids in the first of four channels, where the others make too many colours."""
  pixels = image_files.decode(data, path, 'RGBA')
  if Image.fromarray(pixels).getcolors(MANY_COLOURS) is None:
    ids = _values(np.ascontiguousarray(pixels[..., 0]))
    if len(ids) <= MANY_IDS and data[image_files.HEADER_SIZE - 1] == image_files.RGBA:
      return Scan('rgba', ids, {})
    raise BadInput(
      f'{path}: holds more than {MANY_COLOURS} colours: give the folder of the labels, as they '
      'were before anything resized or compressed them'
    )
  opaque = image_files.opaque(pixels, path)
  found = np.unique(opaque.reshape(-1, 3), axis=0).tolist()
  return Scan('colour', frozenset((r, g, b) for r, g, b in found), {})


class Labels(NamedTuple):
  """What all label files of a set hold: see `Scan`."""

  label_format: str
  values: tuple[int, ...] | tuple[Colour, ...]
  palette: dict[int, Colour]


def together(paths: Sequence[str], scans: Iterable[Scan]) -> Labels:
  """What the label files hold together, `scans` being of the files at `paths`.

  Raises BadInput: files of different formats, or too many ids or colours.
  """
  first, values, palette = '', set(), {}
  for path, found in zip(paths, scans, strict=True):
    first = first or found.label_format
    if found.label_format != first:
      raise BadInput(
        f'{path}: holds labels of the format {found.label_format!r}, {paths[0]} of {first!r}: give '
        'a folder of one kind'
      )
    values |= found.values
    palette |= found.palette
    most = MANY_COLOURS if first == 'colour' else MANY_IDS
    if len(values) > most:
      raise BadInput(
        f'{path}: with it the label files hold more than {most} '
        f'{"colours" if first == "colour" else "ids"}: give the files of the classes, not of '
        'instances, depth or pictures'
      )
  return Labels(first, tuple(sorted(values)), palette)


def named_table(labels: Labels, name: str) -> str:
  """The table by which label files are read, if it is a named one; '' else.

  Args:
    labels: what the files hold.
    name: the path of one of them.
  """
  if labels.label_format == 'colour':
    return _set_of_colours({c for c in labels.values if isinstance(c, tuple)})
  ids = {raw for raw in labels.values if isinstance(raw, int)}
  if ids == {0, IGNORE}:
    return 'masks'
  fits = [
    (labels.label_format == 'rgb16', 'synthia16_packed'),
    (labels.label_format == 'rgba' and 'robot' in name.lower(), 'robotcar9'),
    (re.search(r'train_?ids?', name, re.IGNORECASE), 'train_ids'),
    (re.search(r'label_?ids?(?![a-z])', name, re.IGNORECASE), 'cityscapes'),
    (bool(CAMVID.search(name)), 'camvid11'),
    *((_is_palette_of(table, labels.palette), table) for table in ('gta5', 'mapillary')),
  ]
  return next((table for fit, table in fits if fit and holds(table, ids)), '')


def holds(table: str, ids: Collection[int]) -> bool:
  """Whether a named table knows all ids; those of raw ids end somewhere."""
  largest = published_sets.LARGEST_ID.get(table, IGNORE)
  return all(raw in TABLES[table] and (raw <= largest or raw == IGNORE) for raw in ids)


def _set_of_colours(colours: Collection[Colour]) -> str:
  telling = {colour for colour in colours if len(set(colour)) > 1}
  known = ('cityscapes', 'gta5', 'camvid32', 'mapillary')
  fits = [table for table in known if all(colour in COLOURS[table] for colour in colours)]
  return fits[0] if fits and len(telling) >= LIKE else ''


def _is_palette_of(table: str, palette: Mapping[int, Colour]) -> bool:
  own = {raw: colour for colour, raw in COLOURS[table].items()}
  shown = {raw: colour for raw, colour in palette.items() if raw in own and len(set(colour)) > 1}
  return len(shown) >= LIKE and all(own[raw] == colour for raw, colour in shown.items())
