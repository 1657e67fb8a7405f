"""Label tables: the train id that a pixel value of a label file stands for; names and colours.

Train ids are those of Cityscapes (0 road .. 18 bicycle), of the 11-class CamVid split (0 sky .. 10
bicyclist) or of the 9 classes of RobotCar (0 sky .. 8 road); 255 is "ignored". The tables are those
of docs/method.md section 9.
"""

from collections.abc import Sequence

import numpy as np

from data_pipelines.errors import BadInput

IGNORE = 255  # the train id of pixels that belong to no class; defined here alone
UNKNOWN = -1

Colour = tuple[int, int, int]
TableLike = str | Sequence[tuple[int | Colour, int]]


def _ignore_rest(known: dict[int, int]) -> dict[int, int]:
  """The table with every raw id that it does not name mapped to 255."""
  return {raw: known.get(raw, IGNORE) for raw in range(256)}


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

_MAPILLARY = {
  13: 0, 24: 0, 41: 0, 2: 1, 15: 1, 17: 2, 6: 3, 3: 4, 45: 5, 47: 5, 48: 6, 50: 7, 30: 8, 29: 9,
  27: 10, 19: 11, 20: 12, 21: 12, 22: 12, 55: 13, 61: 14, 54: 15, 58: 16, 57: 17, 52: 18,
}  # fmt: skip

_ROBOTCAR = {
  1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 7: 6, 10: 7, 11: 8, 12: 8, 13: 8, 14: 8, 17: 8,
}  # fmt: skip

_CITYSCAPES_ROBOTCAR = {
  23: 0, 24: 1, 25: 1, 32: 2, 33: 2, 26: 3, 27: 3, 28: 3, 20: 4, 19: 5, 11: 6, 8: 7, 7: 8,
}  # fmt: skip

TABLES: dict[str, dict[int, int]] = {
  # Files that already hold train ids (rendered scenes, pseudo-labels). `lut` cuts it to `classes`.
  'identity': {raw: raw for raw in range(256)},
  'cityscapes': _ignore_rest(_CITYSCAPES),
  'gta5': _ignore_rest(_CITYSCAPES),
  'synthia': _ignore_rest(_SYNTHIA),
  # The 16-class benchmark: terrain, truck and train (raw 16, 18, 20) are not labelled in SYNTHIA's
  # Cityscapes counterpart. The 19 numbers stay, so that networks of both benchmarks agree.
  'synthia16': _ignore_rest({k: v for k, v in _SYNTHIA.items() if k not in (16, 18, 20)}),
  # Cityscapes' labelTrainIds files; ACDC, Dark Zurich.
  'train_ids': _strict(list(range(19))),
  'bdd100k': _strict(list(range(19))),
  'mapillary': _ignore_rest(_MAPILLARY),
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
  'robotcar9': _ignore_rest(_ROBOTCAR),
  'cityscapes_to_robotcar9': _ignore_rest(_CITYSCAPES_ROBOTCAR),
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
  'robotcar9': (
    'sky', 'person', 'bike', 'car', 'sign', 'light', 'building', 'sidewalk', 'road',
  ),
}  # fmt: skip

# The colours that stand for raw ids where label files hold colours. Cityscapes gives one colour to
# poles (17) and pole groups (18, ignored), one to cars (26) and licence plates, and black to all
# that is void: the first of each is what the colour means.
COLOURS: dict[str, dict[Colour, int]] = {
  'cityscapes': {
    (0, 0, 0): 0, (111, 74, 0): 5, (81, 0, 81): 6, (128, 64, 128): 7, (244, 35, 232): 8,
    (250, 170, 160): 9, (230, 150, 140): 10, (70, 70, 70): 11, (102, 102, 156): 12,
    (190, 153, 153): 13, (180, 165, 180): 14, (150, 100, 100): 15, (150, 120, 90): 16,
    (153, 153, 153): 17, (250, 170, 30): 19, (220, 220, 0): 20, (107, 142, 35): 21,
    (152, 251, 152): 22, (70, 130, 180): 23, (220, 20, 60): 24, (255, 0, 0): 25, (0, 0, 142): 26,
    (0, 0, 70): 27, (0, 60, 100): 28, (0, 0, 90): 29, (0, 0, 110): 30, (0, 80, 100): 31,
    (0, 0, 230): 32, (119, 11, 32): 33,
  },
  'mapillary': {colour: raw for raw, colour in enumerate([
    (165, 42, 42), (0, 192, 0), (196, 196, 196), (190, 153, 153), (180, 165, 180), (90, 120, 150),
    (102, 102, 156), (128, 64, 255), (140, 140, 200), (170, 170, 170), (250, 170, 160),
    (96, 96, 96), (230, 150, 140), (128, 64, 128), (110, 110, 110), (244, 35, 232),
    (150, 100, 100), (70, 70, 70), (150, 120, 90), (220, 20, 60), (255, 0, 0), (255, 0, 100),
    (255, 0, 200), (200, 128, 128), (255, 255, 255), (64, 170, 64), (230, 160, 50),
    (70, 130, 180), (190, 255, 255), (152, 251, 152), (107, 142, 35), (0, 170, 30),
    (255, 255, 128), (250, 0, 30), (100, 140, 180), (220, 220, 220), (220, 128, 128),
    (222, 40, 40), (100, 170, 30), (40, 40, 40), (33, 33, 33), (100, 128, 160), (142, 0, 0),
    (70, 100, 150), (210, 170, 100), (153, 153, 153), (128, 128, 128), (0, 0, 80),
    (250, 170, 30), (192, 192, 192), (220, 220, 0), (140, 140, 20), (119, 11, 32), (150, 0, 255),
    (0, 60, 100), (0, 0, 142), (0, 0, 90), (0, 0, 230), (0, 80, 100), (128, 64, 64), (0, 0, 110),
    (0, 0, 70), (0, 0, 192), (32, 32, 32), (120, 10, 10), (0, 0, 0),
  ])},
  # In the alphabetical order of the set's own list of colours.
  'camvid32': {colour: raw for raw, colour in enumerate([
    (64, 128, 64), (192, 0, 128), (0, 128, 192), (0, 128, 64), (128, 0, 0), (64, 0, 128),
    (64, 0, 192), (192, 128, 64), (192, 192, 128), (64, 64, 128), (128, 0, 192), (192, 0, 64),
    (128, 128, 64), (192, 0, 192), (128, 64, 64), (64, 192, 128), (64, 64, 0), (128, 64, 128),
    (128, 128, 192), (0, 0, 192), (192, 128, 128), (128, 128, 128), (64, 128, 192), (0, 0, 64),
    (0, 64, 64), (192, 64, 128), (128, 128, 0), (192, 128, 192), (64, 0, 64), (192, 192, 0),
    (0, 0, 0), (64, 192, 0),
  ])},
}  # fmt: skip
COLOURS['gta5'] = {**COLOURS['cityscapes'], (20, 20, 20): 4}

# One RGB triple per class: the colours in which the two data sets' own figures are drawn.
PALETTE: dict[str, np.ndarray] = {
  'cityscapes19': np.array([
    {raw: colour for colour, raw in COLOURS['cityscapes'].items()}[raw] for raw in _CITYSCAPES
  ], np.uint8),
  'camvid11': np.array([
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
    (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
  ], np.uint8),
  'robotcar9': np.array([
    (70, 130, 180), (220, 20, 60), (119, 11, 32), (0, 0, 142), (220, 220, 0), (250, 170, 30),
    (70, 70, 70), (244, 35, 232), (128, 64, 128),
  ], np.uint8),
}  # fmt: skip


def colours(table: TableLike) -> list[tuple[Colour, int]]:
  """The table of a set whose label files hold colours: (red, green, blue) and train id.

  Raises:
    BadInput: no such table is known, a pair is not of a colour and a train id, or a colour stands
      in two.
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
  if len({colour for colour, _ in pairs}) < len(pairs):
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

  Returns:
    int16 [256]: the train id, 255 (ignored), or -1 where the table does not know the pixel value.

  Raises:
    BadInput: there is no such table, it yields train ids that are not below `classes`, or a pair
      is not of two ids from 0 to 255.
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


def translate(raw: np.ndarray, table: bytes) -> np.ndarray:
  """uint8 -> uint8 of the same shape by a table of 256; many times as fast as indexing an array."""
  return np.frombuffer(raw.tobytes().translate(table), np.uint8).reshape(raw.shape)


def _pairs(table: TableLike) -> list[tuple[int, int]]:
  """(raw id, train id) pairs of a table, whose raw ids are all different."""
  if isinstance(table, str):
    if table not in TABLES:
      raise BadInput(f'label table {table!r} does not exist: choose one of {", ".join(TABLES)}')
    return list(TABLES[table].items())
  for pair in table:
    if len(pair) != 2 or not all(isinstance(i, int) and 0 <= i <= 255 for i in pair):
      raise BadInput(f'label table: {pair!r} is not a pair (raw id, train id) of 0 to 255')
  if len({raw for raw, _ in table}) < len(table):
    raise BadInput('label table: a raw id stands in two pairs')
  return list(table)
