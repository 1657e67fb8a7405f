"""What is known of the public data sets: how many images, of which sizes, which classes how often.

Keyed by the label table by which a set is read (`labels.TABLES`). Sizes are (height, width); shares
are of the pixels that belong to a class, in the order of the train ids.
"""

import re
from collections.abc import Collection, Sequence

import numpy as np

from data_pipelines.image_ids import LISTS, read_list
from data_pipelines.label_tables import IGNORE, TABLES, Colour, colours

LABELLED = (186, 372, 744, 1488)  # sizes of the semi-supervised splits of Cityscapes
# What a set of so many images is.
COUNTS: dict[str, dict[int, str]] = {
  'gta5': {
    24_966: 'all of GTA5',
    24_941: 'GTA5 without the 25 unusable images, as HIAST trains on it',
    18_111: 'as many images of GTA5 as DiGA trains on',
  },
  'synthia16': {9_400: 'all of SYNTHIA-RAND-CITYSCAPES'},
  'cityscapes': {
    2_975: 'Cityscapes train',
    500: 'Cityscapes val',
    **{2_975 - n: f'Cityscapes train without its {n} labelled images' for n in LABELLED},
  },
  'bdd100k': {1_000: 'BDD100K val', 7_000: 'BDD100K train'},
  'mapillary': {2_000: 'Mapillary Vistas validation', 18_000: 'Mapillary Vistas training'},
  'robotcar9': {894: 'Oxford RobotCar train', 271: 'Oxford RobotCar val'},
  'camvid11': {367: 'CamVid train', 101: 'CamVid val', 233: 'CamVid test'},
  'camvid32': {701: 'all of CamVid'},
}

SIZES: dict[str, set[tuple[int, int]]] = {
  'gta5': {(1052, 1914), (1046, 1914)}, 'synthia16': {(760, 1280)}, 'cityscapes': {(1024, 2048)},
  'bdd100k': {(720, 1280)}, 'robotcar9': {(960, 1280)}, 'camvid11': {(360, 480)},
  'camvid32': {(720, 960)},
}  # fmt: skip

# In per cent, before they are brought to a sum of 1. GTA5, SYNTHIA and Cityscapes (train and val
# together) as counted by github.com/m-birke/automotive-segmentation-datasets, CamVid's train split
# by us.
_SHARES = {
  'gta5': [
    32.1046, 8.2764, 16.9, 1.8435, 0.6331, 1.06, 0.1342, 0.0807, 7.6, 2.2, 13.5, 0.362, 0.031,
    2.5154, 1.129, 0.368, 0.0648, 0.0315, 0.0054,
  ],
  'synthia16': [
    18.4, 19.3, 29.3, 0.27, 0.268, 1.04, 0.0389, 0.1013, 10.3, 0, 6.9, 4.3, 0.47, 4.1, 0, 1.5, 0,
    0.21, 0.22,
  ],
  'cityscapes': [
    32.7, 5.3, 20.1, 0.59, 0.77, 1.1243, 0.1823, 0.5015, 14.3, 0.98, 3.5, 1.1, 0.1295, 6.0, 0.2406,
    0.2271, 0.1907, 0.0848, 0.403,
  ],
  'camvid11': [17.54, 24.21, 1.02, 32.96, 4.67, 10.12, 1.22, 1.17, 6.11, 0.67, 0.3],
}  # fmt: skip
SHARES = {name: np.array(values) / sum(values) for name, values in _SHARES.items()}
# The largest raw id of the label files that a table of raw ids reads (not of train ids).
LARGEST_ID = {'cityscapes': 33, 'gta5': 34, 'synthia16': 22, 'mapillary': 65, 'robotcar9': 17}

# Tables that read the labels of the same pictures as another one does.
ALIASES = {
  'synthia': 'synthia16', 'synthia16_packed': 'synthia16', 'cityscapes16_packed': 'cityscapes',
  'cityscapes_to_robotcar9': 'cityscapes',
}  # fmt: skip
for _alias, _table in ALIASES.items():
  COUNTS[_alias], SIZES[_alias] = COUNTS[_table], SIZES[_table]
  LARGEST_ID[_alias] = LARGEST_ID[_table]
for _alias in ('synthia', 'cityscapes_to_robotcar9'):
  SHARES[_alias] = SHARES[ALIASES[_alias]]


def _ignored(table: str, counted: str) -> float:
  """The share of all pixels whose raw id a table ignores, by the shares of another's train ids."""
  classes = (train for raw, train in TABLES[counted].items() if TABLES[table][raw] != IGNORE)
  return 1 - sum(_SHARES[counted][train] for train in classes if train != IGNORE) / 100


# Table -> the share of all pixels that belong to no class.
IGNORED = {
  table: _ignored(table, ALIASES.get(table, table))
  for table in ('gta5', 'cityscapes', 'synthia16', *ALIASES)
}


def some_classes(
  table: str, kept: Sequence[int], label_format: str = 'index'
) -> tuple[tuple[int | Colour, int], ...]:
  """The pairs of a named table for some of its classes, which are numbered anew from 0 on.

  Args:
    table: a key of `label_tables.TABLES`, of `label_tables.COLOURS` for the format 'colour'.
    kept: train ids of the table; all others are ignored.
    label_format: of the label files.
  """
  largest = LARGEST_ID.get(table, IGNORE)
  pairs = [(raw, train) for raw, train in TABLES[table].items() if raw <= largest or raw == IGNORE]
  if label_format == 'colour':
    pairs = colours(table)
  return tuple((value, kept.index(train) if train in kept else IGNORE) for value, train in pairs)


# The drive that a frame is of, by the name of its file, and whether the published training and test
# images share drives: Cityscapes, BDD100K, Oxford RobotCar; CamVid, ACDC and Dark Zurich.
DRIVES = [
  (re.compile(r'([a-z-]+_\d{6})_\d{6}'), False),
  (re.compile(r'([0-9a-f]{8}-[0-9a-f]{8})(?![0-9a-f])'), False),
  (re.compile(r'(\d{4}(?:-\d{2}){5})_'), False),
  (re.compile(r'(0001TP|0006R0|0016E5|Seq05VD)_'), True),
  (re.compile(r'(GOPR\d{4})_'), True),
]


def drive_of(name: str) -> tuple[str, bool]:
  """(drive, whether it is shared by design) of an id; '' for no published naming of drives."""
  for pattern, shared in DRIVES:
    if found := pattern.match(name.rpartition('/')[2]):
      return found[1], shared
  return '', False


def which_list(table: str, ids: Collection[str]) -> str:
  """In words, which published selection of images this is; '' if it is none that is known."""
  names = {name.rpartition('/')[2] for name in ids}
  for path in sorted(LISTS.glob('*.txt')):
    if len(names) == len(ids) and names == set(read_list(str(path))):
      return f'the list {path.stem}'
  return COUNTS.get(table, {}).get(len(ids), '')


def unusable(table: str, ids: Collection[str]) -> list[str]:
  """Those of the 25 images of GTA5 that HIAST leaves out which are among `ids`."""
  if table != 'gta5':
    return []
  return sorted(set(read_list(str(LISTS / 'gta5_unusable_25.txt'))).intersection(ids))
