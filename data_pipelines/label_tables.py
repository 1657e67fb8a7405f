"""Label tables: the train id that a pixel value of a label file stands for; names and colours.

Train ids are those of Cityscapes (0 road .. 18 bicycle), of the 11-class CamVid split (0 sky .. 10
bicyclist) or of the 9 classes of RobotCar (0 sky .. 8 road); 255 is "ignored". The tables are those
of docs/diga.md section 9.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.errors import BadInput

IGNORE = 255  # the train id of pixels that belong to no class; defined here alone
UNKNOWN = -1

OF_16 = tuple(i for i in range(19) if i not in (9, 14, 16))  # of 19: the classes SYNTHIA has too

Colour = tuple[int, int, int]
TableLike = str | Sequence[tuple[Any, int]]  # (raw id or colour, train id)


def _ignore_rest(known: dict[int, int]) -> dict[int, int]:
  """The table with every raw id that it does not name mapped to 255."""
  return {raw: known.get(raw, IGNORE) for raw in range(256)}


def _pack(table: dict[int, int]) -> dict[int, int]:
  """A table of the 19 classes for the 16 of SYNTHIA, numbered 0 to 15 in the same order."""
  return {raw: OF_16.index(train) for raw, train in table.items() if train in OF_16}


def _strict(train_ids: list[int]) -> dict[int, int]:
  """Raw id i means `train_ids[i]`, 255 is ignored; any other raw id is a mistake in the file."""
  return {**dict(enumerate(train_ids)), IGNORE: IGNORE}


_CITYSCAPES = {
  7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12,
  26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18,
}  # fmt: skip

_SYNTHIA = {
  3: 0, 4: 1, 2: 2, 21: 3, 5: 4, 7: 5, 15: 6, 9: 7, 6: 8, 16: 9, 1: 10, 10: 11, 17: 12, 8: 13,
  18: 14, 19: 15, 20: 16, 12: 17, 11: 18,
}  # fmt: skip

TABLES: dict[str, dict[int, int]] = {
  # Files that already hold train ids (rendered scenes, pseudo-labels). `lut` cuts it to `classes`.
  'identity': {raw: raw for raw in range(256)},
  # Masks of two classes, black and white: no pixel is ignored.
  'masks': {0: 0, 255: 1},
  'cityscapes': _ignore_rest(_CITYSCAPES),
  'gta5': _ignore_rest(_CITYSCAPES),
  'synthia': _ignore_rest(_SYNTHIA),
  # Without terrain, truck and train (raw 16, 18, 20), which the 16-class benchmark drops: by the 19
  # numbers, as in HIAST, and numbered 0 to 15, as in DiGA.
  'synthia16': _ignore_rest({k: v for k, v in _SYNTHIA.items() if k not in (16, 18, 20)}),
  'synthia16_packed': _ignore_rest(_pack(_SYNTHIA)),
  'cityscapes16_packed': _ignore_rest(_pack(_CITYSCAPES)),
  # Cityscapes' labelTrainIds files; ACDC, Dark Zurich.
  'train_ids': _strict(list(range(19))),
  'bdd100k': _strict(list(range(19))),
  'mapillary': _ignore_rest({
    13: 0, 24: 0, 41: 0, 2: 1, 15: 1, 17: 2, 6: 3, 3: 4, 45: 5, 47: 5, 48: 6, 50: 7, 30: 8, 29: 9,
    27: 10, 19: 11, 20: 12, 21: 12, 22: 12, 55: 13, 61: 14, 54: 15, 58: 16, 57: 17, 52: 18,
  }),
  # CamVid, 11-class split: id 11 is the file's own "unlabelled".
  'camvid11': _strict([*range(11), IGNORE]),
  # CamVid's 32 classes in the usual 11 groups (void is ignored): animal, archway, bicyclist,
  # bridge, building, car, cart, child, column, fence, two lane markings, text, motorcycle, other
  # moving, parking block, pedestrian, road, shoulder, sidewalk, sign, sky, pickup, cone, traffic
  # light, train, tree, truck or bus, tunnel, vegetation, void, wall.
  'camvid32': _strict([
    9, 1, 10, 1, 1, 8, 9, 9, 2, 7, 3, 3, 6, 10, 8, 4, 9, 3, 4, 4, 6, 0, 8, 2, 6, 8, 5, 8, 1, 5,
    IGNORE, 1,
  ]),
  # The 9 classes of Cityscapes -> Oxford RobotCar, from the files of either.
  'robotcar9': _ignore_rest({
    1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 7: 6, 10: 7, 11: 8, 12: 8, 13: 8, 14: 8, 17: 8,
  }),
  'cityscapes_to_robotcar9': _ignore_rest({
    23: 0, 24: 1, 25: 1, 32: 2, 33: 2, 26: 3, 27: 3, 28: 3, 20: 4, 19: 5, 11: 6, 8: 7, 7: 8,
  }),
  # Cityscapes train ids (not raw ids) to the 11 classes of CamVid.
  'cityscapes_to_camvid11': _strict([3, 4, 1, 1, 7, 2, 6, 6, 5, 5, 0, 9, 10, 8, 8, 8, 8, 10, 10]),
}  # fmt: skip

NAMES: dict[str, tuple[str, ...]] = {
  'cityscapes19': (
    'road', 'sidewalk', 'building', 'wall', 'fence', 'pole', 'traffic light', 'traffic sign',
    'vegetation', 'terrain', 'sky', 'person', 'rider', 'car', 'truck', 'bus', 'train',
    'motorcycle', 'bicycle',
  ),
  'camvid11': (
    'sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence', 'car', 'pedestrian',
    'bicyclist',
  ),
  'robotcar9': ('sky', 'person', 'bike', 'car', 'sign', 'light', 'building', 'sidewalk', 'road'),
}  # fmt: skip

NAMES['synthia16'] = tuple(NAMES['cityscapes19'][i] for i in OF_16)


def class_set(names: str, own: Sequence[str] = ()) -> str:
  """What a result calls its classes: a key of `NAMES`, or the number and a hash of other names.

  Args:
    names: a key of `NAMES`.
    own: the names of the classes; () for those of `names`.
  """
  shown = tuple(own) or NAMES[names]
  for known in (names, *NAMES):
    if NAMES[known] == shown:
      return known
  digest = hashlib.sha256('\n'.join(shown).encode()).hexdigest()
  return f'own {len(shown)} ({digest[:8]})'


def _colours(text: str) -> list[Colour]:
  """'804080 f423e8' -> [(128, 64, 128), (244, 35, 232)]."""
  return [(red, green, blue) for red, green, blue in map(bytes.fromhex, text.split())]


# The colours that stand for raw ids where label files hold colours. Cityscapes gives one colour to
# poles (17) and pole groups (18, ignored), one to cars (26) and licence plates, and black to all
# that is void: the first of each is what the colour means.
COLOURS: dict[str, dict[Colour, int]] = {
  'cityscapes': dict(zip(_colours(
    '000000 6f4a00 510051 804080 f423e8 faaaa0 e6968c 464646 66669c be9999 b4a5b4 966464 96785a '
    '999999 faaa1e dcdc00 6b8e23 98fb98 4682b4 dc143c ff0000 00008e 000046 003c64 00005a 00006e '
    '005064 0000e6 770b20'
  ), (0, *range(5, 18), *range(19, 34)), strict=True)),
  'mapillary': {colour: raw for raw, colour in enumerate(_colours(
    'a52a2a 00c000 c4c4c4 be9999 b4a5b4 5a7896 66669c 8040ff 8c8cc8 aaaaaa faaaa0 606060 e6968c '
    '804080 6e6e6e f423e8 966464 464646 96785a dc143c ff0000 ff0064 ff00c8 c88080 ffffff 40aa40 '
    'e6a032 4682b4 beffff 98fb98 6b8e23 00aa1e ffff80 fa001e 648cb4 dcdcdc dc8080 de2828 64aa1e '
    '282828 212121 6480a0 8e0000 466496 d2aa64 999999 808080 000050 faaa1e c0c0c0 dcdc00 8c8c14 '
    '770b20 9600ff 003c64 00008e 00005a 0000e6 005064 804040 00006e 000046 0000c0 202020 780a0a '
    '000000'
  ))},
  # In the alphabetical order of the set's own list of colours.
  'camvid32': {colour: raw for raw, colour in enumerate(_colours(
    '408040 c00080 0080c0 008040 800000 400080 4000c0 c08040 c0c080 404080 8000c0 c00040 808040 '
    'c000c0 804040 40c080 404000 804080 8080c0 0000c0 c08080 808080 4080c0 000040 004040 c04080 '
    '808000 c080c0 400040 c0c000 000000 40c000'
  ))},
}  # fmt: skip
COLOURS['gta5'] = {**COLOURS['cityscapes'], (20, 20, 20): 4}

# One RGB triple per class: the colours in which the two data sets' own figures are drawn.
PALETTE: dict[str, np.ndarray] = {
  'cityscapes19': np.array([
    {raw: colour for colour, raw in COLOURS['cityscapes'].items()}[raw] for raw in _CITYSCAPES
  ], np.uint8),
  'camvid11': np.array(_colours(
    '808080 800000 c0c080 804080 3c28de 808000 c08080 404080 400080 404000 0080c0'
  ), np.uint8),
  'robotcar9': np.array(_colours(
    '4682b4 dc143c 770b20 00008e dcdc00 faaa1e 464646 f423e8 804080'
  ), np.uint8),
}  # fmt: skip

PALETTE['synthia16'] = PALETTE['cityscapes19'][list(OF_16)]


def colours(table: TableLike) -> list[tuple[Colour, int]]:
  """The table of a set whose label files hold colours: (red, green, blue) and train id.

  Raises BadInput: an unknown table, a pair that is not a colour and a train id, a colour in two.
  """
  if isinstance(table, str):
    if table not in COLOURS:
      raise BadInput(
        f"label_format 'colour': the colours of table {table!r} are not known, only those of "
        f'{", ".join(COLOURS)}; give ((red, green, blue), train id) pairs instead'
      )
    return [(colour, TABLES[table][raw]) for colour, raw in COLOURS[table].items()]
  pairs = [(tuple(colour) if np.ndim(colour) else colour, train) for colour, train in table]
  for colour, _ in pairs:
    if np.shape(colour) != (3,) or not all(0 <= part <= 255 for part in colour):
      raise BadInput(f'label table: {colour!r} is not a colour (red, green, blue) of 0 to 255')
  if len(dict(pairs)) < len(pairs):
    raise BadInput('label table: a colour stands in two pairs')
  return pairs


def title(table: TableLike) -> str:
  """What to call a table in a message."""
  return repr(table) if isinstance(table, str) else f'of {len(table)} pairs'


def lut(table: TableLike, classes: int | None = None) -> np.ndarray:
  """The table as an array to index with pixel values.

  Args:
    table: a key of `TABLES`, or (raw id, train id) pairs: raw ids without a pair are unknown.
    classes: number of classes of the task; None takes every train id that the table yields. With
      'identity' the ids from `classes` to 254 are unknown.

  Returns int16 [256]: the train id, 255 (ignored), or -1 where the table lacks the pixel value.
  Raises BadInput: an unknown table, train ids not below `classes`, or a pair that is not of two ids
  from 0 to 255.
  """
  out = np.full(256, UNKNOWN, np.int16)
  for raw, train in _pairs(table):
    out[raw] = train
  if classes is not None:
    beyond = (out >= classes) & (out != IGNORE)
    if table == 'identity':
      out[beyond] = UNKNOWN
    elif beyond.any():
      raise BadInput(
        f'label table {title(table)} yields train ids up to {out[beyond].max()}, but classes is '
        f'{classes}: raise classes or choose another table'
      )
  return out


def translate(raw: np.ndarray, table: np.ndarray) -> np.ndarray:
  """uint8 -> uint8 of the same shape by a `lut`; many times as fast as indexing the array."""
  changed = raw.tobytes().translate(table.astype(np.uint8).tobytes())
  return np.frombuffer(changed, np.uint8).reshape(raw.shape)


def _pairs(table: TableLike) -> list[tuple[int, int]]:
  """(raw id, train id) pairs of a table, whose raw ids are all different."""
  if isinstance(table, str):
    if table not in TABLES:
      raise BadInput(f'label table {table!r} does not exist: choose one of {", ".join(TABLES)}')
    return list(TABLES[table].items())
  for pair in table:
    if len(pair) != 2 or not all(isinstance(i, int) and 0 <= i <= 255 for i in pair):
      raise BadInput(f'label table: {pair!r} is not a pair (raw id, train id) of 0 to 255')
  if len(dict(table)) < len(table):
    raise BadInput('label table: a raw id stands in two pairs')
  return list(table)
