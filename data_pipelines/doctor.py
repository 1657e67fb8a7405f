"""Looks at every file of a data set and says what is wrong with it and what to do about it."""

import dataclasses
import datetime
import functools
import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from data_pipelines import image_files, label_tables, processes, published_sets
from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder, matching

IGNORE = label_tables.IGNORE
# A class is looked at when it is known to hold this share, and found odd when it holds so many
# times more or less of the pixels, in a set of at least so many images.
SHARE_MATTERS, SHARE_FACTOR, SHARE_IMAGES = 0.005, 3.0, 100


@dataclasses.dataclass(frozen=True)
class Finding:
  """One kind of thing that is wrong.

  Attributes:
    kind: a few words.
    where: files or classes, each with what is wrong there.
    mend: what to do about it.
  """

  kind: str
  where: list[str]
  mend: str


@dataclasses.dataclass(frozen=True)
class Look:
  """What was seen of one image and its label.

  Attributes:
    image: (bytes, SHA-256, height, width), None if it cannot be read.
    label: the same for the label file, None if there is none or it cannot be read.
    pixels: int64 [256], how many pixels each train id has.
    problems: (kind, path and reason).
  """

  image: tuple[int, str, int, int] | None
  label: tuple[int, str, int, int] | None
  pixels: np.ndarray
  problems: list[tuple[str, str]]


# What to do about each kind of problem of a single file, in the order of the report.
MENDS = {
  'missing image': 'add the file, or take its id off the list',
  'missing label': 'add the file, take its id off the list, or leave it out by `without`',
  'unreadable image': 'fetch the file again: it is cut short or no picture',
  'unreadable label': 'fetch the file again, or set label_format to what the files are',
  'label of another size': 'leave the image out by `without`: label and image do not go together',
  'unknown id': 'choose the table or label_format that these files follow, or fetch them again',
  'nothing but ignored pixels': 'leave the image out by `without`: nothing can be learned from it',
  'one colour': 'leave the image out by `without`: it shows nothing',
}


def look(folder: Folder, index: int) -> Look:
  """Reads an image and its label whole; nothing is raised for what is wrong with them."""
  problems: list[tuple[str, str]] = []
  image = label = None
  pixels = np.zeros(256, np.int64)

  def note(kind: str, path: str, error: object) -> None:
    text = str(error)
    problems.append((kind, text if path in text else f'{path}: {text}'))

  path = folder.image_path(index)
  if not os.path.exists(path):
    problems.append(('missing image', path))
  else:
    try:
      shown = image_files.read_image(path)
      image = (*_file(path), *shown.shape[:2])
      if shown.min() == shown.max():
        note('one colour', path, f'every pixel is {shown.ravel()[0]}')
    except BadInput as error:
      note('unreadable image', path, error)
  path = folder.label_path(index)
  if path and not os.path.exists(path):
    problems.append(('missing label', path))
  elif path:
    try:
      raw = folder.read_raw(index)
      label = (*_file(path), *raw.shape)
    except BadInput as error:
      note('unreadable label', path, error)
    else:
      _look_at_label(folder, index, raw, image, pixels, note)
  return Look(image, label, pixels, problems)


def _look_at_label(folder, index, raw, image, pixels, note) -> None:
  path, found = folder.label_path(index), folder.lut[raw]
  if image and image[2:] != raw.shape:
    (height, width), (other_height, other_width) = raw.shape, image[2:]
    note('label of another size', path, f'{width}x{height}, its image {other_width}x{other_height}')
  unknown = np.unique(raw[found == label_tables.UNKNOWN])
  if unknown.size:
    note('unknown id', path, f'id {", ".join(map(str, unknown[:5]))}')
  counts = np.bincount(found[found >= 0], minlength=256)
  pixels += counts
  if not unknown.size and counts[IGNORE] == raw.size:
    note('nothing but ignored pixels', path, 'no class is labelled')


def _file(path: str) -> tuple[int, str]:
  with open(path, 'rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  return os.path.getsize(path), digest


def looks(folder: Folder, jobs: int, seen: Callable[[], Any] = lambda: None) -> Iterator[Look]:
  """A look at every image, in order, by `jobs` processes; `seen` is called after each."""
  one = functools.partial(look, folder)
  for result in processes.in_order(one, range(len(folder)), jobs, chunk=4):
    yield result
    seen()


@dataclasses.dataclass(frozen=True)
class Report:
  """What is to be said of a data set.

  Attributes:
    facts: (what, value) pairs in words.
    findings: what is wrong; empty for a sound set.
    shares: float [C], the share of each class of the labelled pixels; None without labels.
    manifest: what `check_manifest` compares later; for JSON.
  """

  facts: list[tuple[str, str]]
  findings: list[Finding]
  shares: np.ndarray | None
  manifest: dict[str, Any]


def examine(folder: Folder, names: tuple[str, ...], found: list[Look]) -> Report:
  """Puts the looks at all images together.

  Args:
    folder: the data set, its files not necessarily there.
    names: of the classes.
    found: what `looks` gave.
  """
  table = folder.table if isinstance(folder.table, str) else ''
  pixels = sum((one.pixels for one in found), np.zeros(256, np.int64))
  classes = pixels[: len(names)]
  shares = classes / max(classes.sum(), 1) if folder.labels else None
  findings = [*_by_file(found), *_unpaired(folder), *_sizes(folder, table, found)]
  if unusable := published_sets.unusable(table, folder.ids):
    mend = "HIAST leaves them out: set without='gta5_unusable_25' to do the same"
    findings.append(Finding('unusable images of GTA5', unusable, mend))
  if folder.labels:
    findings += _classes(folder, table, names, shares, len(found))
  sizes = Counter(one.image[2:] for one in found if one.image)
  common = ', '.join(f'{w}x{h} ({n})' for (h, w), n in sizes.most_common(3))
  facts = [
    ('images', f'{len(folder):,}'),
    ('which', published_sets.which_list(table, folder.ids) or 'no selection that is known'),
    ('sizes', common + (', ...' if len(sizes) > 3 else '')),
  ]
  if folder.labels:
    ignored = pixels[IGNORE] / max(pixels.sum(), 1)
    facts.append(('ignored pixels', f'{ignored:.1%}'))
  return Report(facts, findings, shares, _manifest(folder, names, found, classes))


def _by_file(found: list[Look]) -> list[Finding]:
  """The problems of single files, kind by kind."""
  kinds = defaultdict(list)
  for one in found:
    for kind, text in one.problems:
      kinds[kind].append(text)
  return [Finding(kind, kinds[kind], mend) for kind, mend in MENDS.items() if kind in kinds]


def _unpaired(folder: Folder) -> list[Finding]:
  """Label files whose image is not there."""
  if not folder.labels:
    return []
  alone = set(matching(folder.labels)) - set(matching(folder.images))
  alone -= set(folder.ids)  # those are missing images
  where = [folder.labels.replace('{id}', name) for name in sorted(alone)]
  mend = 'add the images: a part of the set is missing, or the pattern of the images is wrong'
  return [Finding('labels without an image', where, mend)] if where else []


def _sizes(folder: Folder, table: str, found: list[Look]) -> list[Finding]:
  """Images of sizes that the set does not have, or that nearly no other image has."""
  sizes = [one.image[2:] if one.image else None for one in found]
  counted = Counter(size for size in sizes if size)
  usual = published_sets.SIZES.get(published_sets.SAME.get(table, table))
  if usual is None:
    usual = {size for size, n in counted.items() if n >= 0.05 * len(found)}
    if sum(counted[size] for size in usual) < 0.9 * len(found):
      return []  # sizes of all kinds, as in Mapillary Vistas
  odd = [
    f'{folder.image_path(i)}: {size[1]}x{size[0]}'
    for i, size in enumerate(sizes)
    if size and size not in usual
  ]
  expected = ' or '.join(f'{w}x{h}' for h, w in sorted(usual))
  mend = f'the set has images of {expected}: take the originals, not resized ones'
  return [Finding('images of another size', odd, mend)] if odd else []


def _classes(folder, table, names, shares, images) -> Iterator[Finding]:
  """Classes that never occur although the table yields them, or with a share unlike the known."""
  able = set(folder.lut[(folder.lut >= 0) & (folder.lut < len(names))].tolist())
  absent = [names[c] for c in sorted(able) if shares[c] == 0]
  if absent:
    mend = 'a network cannot learn them here: see that table and label_format are the right ones'
    yield Finding('classes that never occur', absent, mend)
  expected = published_sets.SHARES.get(published_sets.SAME.get(table, table))
  if expected is None or len(expected) != len(shares) or images < SHARE_IMAGES:
    return
  with np.errstate(divide='ignore', invalid='ignore'):
    factor = np.maximum(shares / expected, expected / shares)
  odd = np.flatnonzero((expected >= SHARE_MATTERS) & (shares > 0) & (factor > SHARE_FACTOR))
  where = [f'{names[c]}: {shares[c]:.2%}, known {expected[c]:.2%}' for c in odd]
  mend = 'the labels are perhaps of another table or format, or the images a special selection'
  if where:
    yield Finding('classes with another share of the pixels than known', where, mend)


# The manifest.


def _manifest(folder, names, found, classes) -> dict[str, Any]:
  return {
    'made': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'fingerprint': folder.fingerprint(),
    'images': len(folder),
    'pixels': dict(zip(names, classes.tolist(), strict=True)) if folder.labels else {},
    'files': {
      name: {'image': one.image, 'label': one.label}
      for name, one in zip(folder.ids, found, strict=True)
    },
  }


def manifest_path(directory: str, name: str, settings: Mapping[str, Any], root: str) -> str:
  """Where the manifest of a data set lies: a name for these patterns and this table."""
  parts = ('images', 'labels', 'label_format', 'table')
  what = [os.path.abspath(root), *(str(settings[part]) for part in parts)]
  digest = hashlib.sha256('\0'.join(what).encode()).hexdigest()[:12]
  return os.path.join(os.path.expanduser(directory), 'manifests', f'{name}-{digest}.json')


def read_manifest(path: str) -> dict[str, Any] | None:
  """A manifest, None if there is none; raises BadInput if it is damaged."""
  try:
    with open(path, encoding='utf-8') as file:
      return json.load(file)
  except FileNotFoundError:
    return None
  except (OSError, ValueError) as error:
    raise BadInput(f'{path}: the manifest is damaged ({error}); run doctor again') from None


def check_manifest(path: str, folder: Folder) -> dict[str, Any] | None:
  """Compares a data set with what `doctor` saw, by the sizes of its files.

  A selection of the images that were seen is fine.

  Returns:
    The manifest, or None if there is none.

  Raises:
    BadInput: a file has another size, or was not there.
  """
  manifest = read_manifest(path)
  if manifest is None or manifest['fingerprint'] == folder.fingerprint():
    return manifest
  now = folder.file_sizes()
  changed = []
  for name, sizes in now.items():
    seen = manifest['files'].get(name, {})
    was = {part: seen[part] and seen[part][0] for part in sizes if part in seen}
    if was != sizes:
      changed.append(name)
  if changed:
    raise BadInput(
      f'{folder.images.replace("{id}", changed[0])}: this image or its label is not what doctor '
      f'saw on {manifest["made"]} ({len(changed)} of {len(now)} differ): run doctor again, or '
      f'delete {path}'
    )
  return manifest
