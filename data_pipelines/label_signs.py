"""Signs that label files are not what their table and format take them for.

Such labels can be read, and training on them runs: only its result is wrong.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from data_pipelines import published_sets
from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder
from data_pipelines.label_tables import IGNORE, UNKNOWN, title

# How many label files are looked at, and of how many pixels together: less than a second's work.
FILES, PIXELS = 16, 60_000_000
GOLDEN = 0.6180339887498949
LARGEST_TRAIN_ID = 18  # of Cityscapes' 19 classes, to which most sets' labels are converted
# Of the pixels of a sample: so many ids of another set are no slip of an annotator.
ODD_IDS, IGNORED_IDS = 0.05, 0.2
# Shares that are odd: so far from those known of the set; so many ignored, where none is known.
FAR, FAR_IGNORED, MOSTLY = 0.5, 0.3, 0.8
FEW = 8  # of so many classes a single one is odd
ENOUGH = 8  # files whose shares can be compared
TRAIN_IDS = ('train_ids', 'bdd100k', 'cityscapes_to_camvid11')  # tables of Cityscapes' train ids


class Sign(NamedTuple):
  """Something about the labels of a set that does not fit its settings."""

  fatal: bool  # whether it contradicts them; else it is odd
  text: str  # what, and what to do


def look_at(folder: Folder, names: Sequence[str]) -> list[Sign]:
  """The signs in the names of a labelled folder's files and in a sample of them.

  `names` are those of the classes. Files that cannot be read are left to the passes to refuse.
  """
  signs = list(_signs_of_names(folder))
  paths, counts = count_ids(folder)
  return signs + (list(_signs_of_ids(folder, names, paths, counts)) if counts.any() else [])


def count_ids(folder: Folder) -> tuple[list[str], np.ndarray]:
  """A few label files from all over a folder, and pixels of each raw id: int64 [files, 256]."""
  spread = (int(len(folder) * (i * GOLDEN % 1)) for i in range(FILES))
  paths, counts = [], []
  for index in dict.fromkeys(spread) if len(folder) > FILES else range(len(folder)):
    try:
      counts.append(Image.fromarray(folder.read_raw(index)).histogram())
    except BadInput:
      continue
    paths.append(folder.label_path(index))
    if np.sum(counts) > PIXELS:
      break
  return paths, np.array(counts, np.int64).reshape(-1, 256)


def _signs_of_names(folder: Folder) -> Iterator[Sign]:
  """Cityscapes' two kinds of files under a table of the other's ids."""
  path, table = folder.label_path(0), folder.table if isinstance(folder.table, str) else ''
  trains = bool(re.search('train_?ids?', path, re.IGNORECASE))
  raw = not trains and re.search(r'label_?ids?(?![a-z])', path, re.IGNORECASE)
  for kind, holds, tables, right in (
    ('trainIds', trains, published_sets.LARGEST_ID, 'train_ids'),
    ('labelIds', raw, TRAIN_IDS, 'cityscapes'),
  ):
    if holds and table in tables:
      yield Sign(
        True,
        f"{path}: {kind} files hold other ids than table '{table}' translates: set table to "
        f"'{right}'",
      )
  if table == 'mapillary' and '/v2.0/' in path:
    yield Sign(True, f"{path}: release 2.0 has other ids than table 'mapillary': take v1.2's files")


def _signs_of_ids(
  folder: Folder, names: Sequence[str], paths: Sequence[str], counts: np.ndarray
) -> Iterator[Sign]:
  """Signs in the pixels of each raw id in each file, int [files, 256]."""
  total, most = counts.sum(0), len(counts) / 2
  ids, of = np.flatnonzero(total), f'of {len(counts)} label files looked at'
  train, table = folder.lut[ids], title(folder.table)
  unknown = np.flatnonzero(counts[:, folder.lut == UNKNOWN].any(1))
  if len(unknown) > most:
    yield Sign(
      True,
      f'{len(unknown)} {of}, such as {paths[unknown[0]]}, hold ids that table {table} does not '
      f'know ({_few(ids[train == UNKNOWN])}): set table and label_format to what the files hold',
    )
  if isinstance(folder.table, str) and folder.label_format != 'colour':
    yield from _signs_of_known_tables(folder, counts, ids, of)
  labelled, able = (np.unique(x[(x != IGNORE) & (x != UNKNOWN)]) for x in (train, folder.lut))
  if not len(unknown) and not len(labelled):
    yield Sign(
      True,
      f'none {of} has a labelled pixel (raw ids {_few(ids)}): set table and label_format to what '
      'the files hold',
    )
  elif len(labelled) <= max(1, len(able) // FEW):
    yield Sign(
      False,
      f'only {len(labelled)} of {len(able)} classes occur in all {of} ({_few(labelled)}): is table '
      f'{table} the right one?',
    )
  if len(labelled):
    yield from _signs_of_shares(folder, names, counts)


def _signs_of_known_tables(
  folder: Folder, counts: np.ndarray, ids: np.ndarray, of: str
) -> Iterator[Sign]:
  """What contradicts a table by name: masks, ids beyond the set's, ids converted before."""
  total, most, table = counts.sum(0), len(counts) / 2, title(folder.table)
  if ids.tolist() == [0, IGNORE] and folder.lut[IGNORE] == IGNORE:
    yield Sign(
      True,
      f"the {of[3:]} are masks of 0 and 255, and 255 means ignored: set table to 'masks' (0 is "
      'class 0, 255 class 1), or to pairs of what the two values mean',
    )
  largest = published_sets.LARGEST_ID.get(str(folder.table))
  if largest is None:
    return
  beyond = np.arange(largest + 1, IGNORE)
  files, share = counts[:, beyond].any(1).sum(), total[beyond].sum() / total.sum()
  if files:
    newer = "; release 2.0 of the labels is another: take v1.2's" * (folder.table == 'mapillary')
    yield Sign(
      bool(files > most or share > ODD_IDS),
      f'{files} {of} hold ids up to {ids[ids < IGNORE].max()}, but the ids of table {table} end at '
      f'{largest}: colours, or the labels of another set or release{newer}',
    )
  able = folder.lut[folder.lut != IGNORE].max()
  last = LARGEST_TRAIN_ID if largest > LARGEST_TRAIN_ID else able
  ignored = total[(folder.lut == IGNORE) & (np.arange(256) % IGNORE > 0)].sum() / total.sum()
  often = (counts[:, IGNORE] > 0).sum() > most
  if 0 < ids[ids < IGNORE].max(initial=0) <= last and (often or ignored > IGNORED_IDS):
    yield Sign(
      True,
      f'the {of[3:]} hold the ids {_few(ids)}, which are train ids, and table {table} translates '
      "raw ids: the files were converted before, so set table to 'train_ids', or 'identity' for "
      'other classes than the 19',
    )


def _signs_of_shares(folder: Folder, names: Sequence[str], counts: np.ndarray) -> Iterator[Sign]:
  """Shares of the ignored pixels and of the classes far from those known of the set."""
  table, known = folder.table if isinstance(folder.table, str) else '', None
  pixels = np.bincount(folder.lut.clip(0), counts.sum(0) * (folder.lut >= 0), 256)
  ignored, usual = pixels[IGNORE] / pixels.sum(), published_sets.IGNORED.get(table)
  if ignored > (MOSTLY if usual is None else usual + FAR_IGNORED):
    text = '' if usual is None else f' (known of the set: {usual:.0%})'
    yield Sign(
      False, f'{ignored:.0%} of the pixels looked at are ignored{text}: is the table the right one?'
    )
  known = published_sets.SHARES.get('cityscapes' if table in (*TRAIN_IDS, 'mapillary') else table)
  if known is None or len(known) != len(names) or len(counts) < ENOUGH:
    return
  shares = pixels[: len(names)] / pixels[: len(names)].sum()
  if np.abs(shares - known).sum() / 2 > FAR:
    odd = np.abs(shares - known).argmax()
    yield Sign(
      False,
      f'the classes have other shares of the pixels than known ({names[odd]} {shares[odd]:.0%}, '
      f'known {known[odd]:.0%}): is the table the right one?',
    )


def _few(ids: np.ndarray) -> str:
  return ', '.join(map(str, ids[:5])) + (f', ... {ids[-1]}' if len(ids) > 5 else '')
