"""Reads every file of a data set and reports what is wrong with it and how to fix it."""

import contextlib
import datetime
import functools
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, TypedDict, get_type_hints

import numpy as np

from data_pipelines import digests, label_signs, processes, published_sets, records
from data_pipelines.errors import BadInput, printable
from data_pipelines.folder import Digests, Folder
from data_pipelines.image_ids import HIDDEN, find_files
from data_pipelines.label_tables import IGNORE, UNKNOWN
from data_pipelines.sets import MANIFESTS

# A class is compared when it is known to hold this share, and found odd when it holds so many
# times more or less of the pixels, in a set of at least so many images.
SHARE_MATTERS, SHARE_FACTOR, SHARE_IMAGES = 0.005, 3.0, 200

Size = tuple[int, int]
FileFacts = tuple[int, str, int, int]  # bytes, SHA-256, height, width (0 if it cannot be read)


class Finding(NamedTuple):
  """One kind of thing that is wrong."""

  kind: str
  where: list[str]  # files or classes, each with what is wrong there
  fix: str


class FileReport(NamedTuple):
  """What was found of one image and its label."""

  image: FileFacts | None  # None if it is missing
  label: FileFacts | None  # None if the image has none or it is missing
  pixels: np.ndarray  # int64 [256], how many pixels each train id has
  problems: list[tuple[str, str]]  # kind, path and reason
  picture: str = ''  # SHA-256 of the image's pixels; '' if it cannot be read


class _Strays(NamedTuple):
  """Files beside those of a data set, by path, and why they are none of its."""

  alone: list[str]  # labels whose image is not there
  nearly: dict[str, str]  # names that nearly fit the patterns
  hidden: list[str]
  converted: list[str]  # made of a label, by another program: beside 1.png 1_labelTrainIds.png


class Manifest(TypedDict):
  """What `check_manifest` compares later; as JSON."""

  made: str  # date and time
  images: int
  pixels: dict[str, int]  # by class
  files: dict[str, dict[str, FileFacts | None]]  # by id and 'image' or 'label'


# What to do about each kind of problem of a single file, in the order of the report.
FIXES = {
  'missing image': 'add the file, or take its id off the list',
  'missing label': 'add the file, take its id off the list, or leave it out by `without`',
  'unreadable image': 'do what each line says, or fetch the file again',
  'unreadable label': 'fetch the file again, or set label_format to what the files are',
  'label of another size': 'leave the image out by `without`: label and image do not go together',
  'unknown id': 'choose the table or label_format that these files follow, or fetch them again',
  'nothing but ignored pixels': 'leave the image out by `without`: nothing can be learned from it',
  'one colour': 'leave the image out by `without`: it shows nothing',
}
LACKING_IMAGES = (
  'add the images: a part of the set is missing, or the pattern of the images is wrong'
)
RENAME = 'rename them'
# What other programs add to the name of a label file for what they make of it.
CONVERTED = re.compile(
  r'[_.-](gt|label|train|color|colour|instance|mask|panoptic|overlay|edge)\w*$', re.IGNORECASE
)


def inspect(folder: Folder, index: int) -> FileReport:
  """Reads an image and its label whole; nothing is raised for what is wrong with them."""
  problems: list[tuple[str, str]] = []
  path, label_path = folder.image_path(index), folder.label_path(index)
  image, image_facts = _read('image', path, lambda: folder.read_image(index), problems)
  raw, label_facts, pixels = None, None, np.zeros(256, np.int64)
  picture = ''
  if image is not None:
    picture = hashlib.sha256(f'{image.shape}'.encode() + image.tobytes()).hexdigest()
  if image is not None and image.min() == image.max():
    problems.append(('one colour', f'{path}: every pixel is {image.ravel()[0]}'))
  if label_path:
    raw, label_facts = _read('label', label_path, lambda: folder.read_raw(index), problems)
  if raw is not None:
    train_ids = folder.lut[raw]
    pixels = np.bincount(train_ids[train_ids >= 0], minlength=256)
    problems += [(kind, f'{label_path}: {text}') for kind, text in _compare(raw, train_ids, image)]
  return FileReport(image_facts, label_facts, pixels, problems, picture)


def _read(
  part: str, path: str, read: Callable[[], np.ndarray], problems: list[tuple[str, str]]
) -> tuple[np.ndarray | None, FileFacts | None]:
  """What `read` returns, None and a problem if it cannot be read; the file's facts."""
  if not os.path.lexists(path):
    problems.append((f'missing {part}', path))
    return None, None
  facts = None
  try:
    facts = digests.stamp(path)[0], digests.of_file(path)
    pixels = read()
    return pixels, (*facts, *pixels.shape[:2])
  except (BadInput, OSError) as error:
    reason = str(error) if printable(path) in str(error) else f'{path}: {error}'
    problems.append((f'unreadable {part}', reason))
    return None, facts and (*facts, 0, 0)


def _compare(
  raw: np.ndarray, train_ids: np.ndarray, image: np.ndarray | None
) -> Iterator[tuple[str, str]]:
  """The problems of a readable label [h, w] beside its image: (kind, what is wrong)."""
  if image is not None and image.shape[:2] != raw.shape:
    (height, width), (other_height, other_width) = raw.shape, image.shape[:2]
    yield 'label of another size', f'{height}x{width}, its image {other_height}x{other_width}'
  unknown = np.unique(raw[train_ids == UNKNOWN])
  if unknown.size:
    yield 'unknown id', f'id {", ".join(map(str, unknown[:5]))}'
  elif (train_ids == IGNORE).all():
    yield 'nothing but ignored pixels', 'no class is labelled'


def inspect_all(folder: Folder, jobs: int) -> Iterator[FileReport]:
  """`inspect` of every image, in order, by `jobs` processes."""
  return processes.in_order(functools.partial(inspect, folder), range(len(folder)), jobs, chunk=4)


class Report(NamedTuple):
  """What was found of a data set."""

  facts: list[tuple[str, str]]  # what and value, in words
  findings: list[Finding]  # what is wrong; empty for a sound set
  shares: np.ndarray | None  # float [C], of the labelled pixels; None without labels
  manifest: Manifest


def stamps(folder: Folder) -> dict[str, digests.Stamp]:
  """By path, the stamps of the images and labels that are there."""
  found = {}
  for index in range(len(folder)):
    for path in filter(None, (folder.image_path(index), folder.label_path(index))):
      with contextlib.suppress(BadInput):
        found[path] = digests.stamp(path)
  return found


def remember(
  directory: str,
  folder: Folder,
  before: Mapping[str, digests.Stamp],
  since: int,
  files: Sequence[FileReport],
) -> None:
  """Lets later runs know the digests of inspected files whose `stamps` were these before."""
  for part, pattern, path_of in (
    ('image', folder.images, folder.image_path),
    ('label', folder.labels, folder.label_path),
  ):
    paths = map(path_of, range(len(folder)))
    facts = zip(paths, (getattr(file, part) for file in files), strict=True)
    found = {path: (before[path], fact[1]) for path, fact in facts if fact and path in before}
    digests.Memory(directory, pattern).keep(found, since)


def examine(
  folder: Folder, names: Sequence[str], files: Sequence[FileReport], learned: bool = True
) -> Report:
  """Combines what `inspect_all` gave for a data set whose classes have these names.

  `learned`: whether a stage learns from it. A set that is only measured may lack a few classes.
  """
  table = folder.table if isinstance(folder.table, str) else ''
  pixels = sum((file.pixels for file in files), np.zeros(256, np.int64))
  classes = pixels[: len(names)]
  shares = classes / max(classes.sum(), 1) if folder.labels else None
  problems = [problem for file in files for problem in file.problems]
  strays = _find_strays(folder)
  unusable = "HIAST leaves them out: set without='gta5_unusable_25' to do the same"
  twins = [f'{folder.image_path(j)} = {folder.image_path(i)}' for i, j in _twins(files)]
  findings = [
    *(Finding(kind, [at for k, at in problems if k == kind], fix) for kind, fix in FIXES.items()),
    Finding('labels without an image', strays.alone, LACKING_IMAGES),
    Finding('files that are left out', [f'{p}: {why}' for p, why in strays.nearly.items()], RENAME),
    _odd_sizes(folder, table, files),
    Finding('the same image twice', twins, 'leave all but one out by `without`'),
    Finding('unusable images of GTA5', published_sets.unusable(table, folder.ids), unusable),
  ]
  facts = list(_facts(folder, files, strays))
  if shares is not None:
    fix = 'set table and label_format to what the files hold, or take the files that they mean'
    signs = [sign.text for sign in label_signs.look_at(folder, names)]
    findings.append(Finding('labels of another kind', signs, fix))
    absent = _absent_classes(folder, names, shares)
    fix = 'a network cannot learn them here: check table and label_format'
    if learned or 2 * len(absent) > len(names):
      findings.append(Finding('classes that never occur', absent, fix))
    elif absent:
      facts.append(('classes without a pixel', ', '.join(absent)))
    findings += _odd_classes(table, names, shares, len(files))
    facts.append(('ignored pixels', f'{pixels[IGNORE] / max(pixels.sum(), 1):.1%}'))
  findings = [
    finding._replace(where=[printable(line) for line in finding.where])
    for finding in findings
    if finding.where
  ]
  return Report(facts, findings, shares, _manifest(folder, names, files, classes))


def _facts(
  folder: Folder, files: Sequence[FileReport], strays: _Strays
) -> Iterator[tuple[str, str]]:
  """What is said of any set, its labels apart."""
  table = folder.table if isinstance(folder.table, str) else ''
  sizes = Counter(file.image[2:] for file in files if file.picture and file.image)
  common = ', '.join(f'{h}x{w} ({n})' for (h, w), n in sizes.most_common(3))
  yield 'images', f'{len(folder):,}'
  yield 'which', published_sets.which_list(table, folder.ids) or 'not a published selection'
  yield 'sizes', common + (', ...' if len(sizes) > 3 else '')
  for what, found in (('hidden', strays.hidden), ('converted labels', strays.converted)):
    if found:
      yield what, f'{len(found):,} are left out, such as {printable(found[0])}'


def _twins(files: Sequence[FileReport]) -> Iterator[tuple[int, int]]:
  """(first, other) positions of images whose pixels are the same, however they are stored."""
  first: dict[str, int] = {}
  for index, file in enumerate(files):
    if file.picture and first.setdefault(file.picture, index) != index:
      yield first[file.picture], index


def _find_strays(folder: Folder) -> _Strays:
  images, left_out = find_files(folder.images, folder.labels)
  labelled, more = find_files(folder.labels, folder.images) if folder.labels else ([], {})
  left_out |= more
  # Those of `folder.ids` are missing images.
  known = {*images, *folder.ids}
  others = sorted(set(labelled).difference(known))
  converted = [name for name in others if CONVERTED.sub('', name) in known.intersection(labelled)]
  hidden = [path for path, why in left_out.items() if why == HIDDEN]
  path_of = functools.partial(folder.labels.replace, '{id}')
  return _Strays(
    [path_of(name) for name in others if name not in converted],
    {path: why for path, why in left_out.items() if why != HIDDEN},
    hidden,
    list(map(path_of, converted)),
  )


def small_images(
  folder: Folder, files: Sequence[FileReport], sizes: Collection[Size | None], crop: Size
) -> Finding:
  """Images that are smaller than the crop where stages read them, and so are stretched to it.

  Args:
    folder, files: the data set, and what `inspect_all` gave for it.
    sizes: that stages resize its images to before they crop; None: they do not.
    crop: (h, w) of a batch.
  """
  small = []
  for index, file in enumerate(files):
    if not file.picture or not file.image:
      continue
    for size in sizes:
      height, width = size or file.image[2:]
      if height < crop[0] or width < crop[1]:
        resized = f', resized to {height}x{width}' * bool(size)
        small.append(
          f'{printable(folder.image_path(index))}: {file.image[2]}x{file.image[3]}{resized}'
        )
        break
  fix = (
    f'they are stretched to data.crop, {crop[0]}x{crop[1]}: lower data.crop, raise low_size and '
    'full_size of the set, or leave them out by `without`'
  )
  return Finding('images smaller than the crop', small, fix)


def _odd_sizes(folder: Folder, table: str, files: Sequence[FileReport]) -> Finding:
  """Images of sizes that the set does not have, or that nearly no other image has."""
  sizes = {i: file.image[2:] for i, file in enumerate(files) if file.picture and file.image}
  usual = published_sets.SIZES.get(table)
  if usual is None:
    counted = Counter(sizes.values())
    usual = {size for size, n in counted.items() if n >= 0.05 * len(files)}
    if sum(counted[size] for size in usual) < 0.9 * len(files):
      usual = set(counted)  # sizes of all kinds, as in Mapillary Vistas
  odd = [f'{folder.image_path(i)}: {h}x{w}' for i, (h, w) in sizes.items() if (h, w) not in usual]
  expected = ' or '.join(f'{h}x{w}' for h, w in sorted(usual))
  fix = f'the set has images of {expected}: take the originals, not resized ones'
  return Finding('images of another size', odd, fix)


def _absent_classes(folder: Folder, names: Sequence[str], shares: np.ndarray) -> list[str]:
  """Those that never occur although the table yields them."""
  able = set(folder.lut[(folder.lut >= 0) & (folder.lut < len(names))].tolist())
  return [name for c, name in enumerate(names) if c in able and shares[c] == 0]


def _odd_classes(
  table: str, names: Sequence[str], shares: np.ndarray, images: int
) -> Iterator[Finding]:
  """Classes whose share is unusual."""
  expected = published_sets.SHARES.get(table)
  if expected is None or len(expected) != len(shares) or images < SHARE_IMAGES:
    return
  with np.errstate(divide='ignore', invalid='ignore'):
    factor = np.maximum(shares / expected, expected / shares)
  odd = np.flatnonzero((expected >= SHARE_MATTERS) & (shares > 0) & (factor > SHARE_FACTOR))
  where = [f'{names[c]}: {shares[c]:.2%}, known {expected[c]:.2%}' for c in odd.tolist()]
  fix = 'the labels are perhaps of another table or format, or the images a special selection'
  yield Finding('classes with another share of the pixels than known', where, fix)


def _manifest(
  folder: Folder, names: Sequence[str], files: Sequence[FileReport], classes: np.ndarray
) -> Manifest:
  found = {
    name: {'image': file.image} | ({'label': file.label} if folder.labels else {})
    for name, file in zip(folder.ids, files, strict=True)
  }
  return {
    'made': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'images': len(folder),
    'pixels': dict(zip(names, classes.tolist(), strict=True)) if folder.labels else {},
    'files': found,
  }


def _digests_in(files: Mapping[str, Mapping[str, FileFacts | None]]) -> Digests:
  """Of a manifest's files; '' for one that was missing."""
  return {
    name: {part: facts[1] if facts else '' for part, facts in parts.items()}
    for name, parts in files.items()
  }


def manifest_path(directory: str, name: str, settings: Mapping[str, object], root: str) -> str:
  """Where the manifest of a data set lies: its name depends on the patterns and the table."""
  parts = ('images', 'labels', 'label_format', 'table')
  what = [os.path.abspath(root), *(str(settings[part]) for part in parts)]
  mark = hashlib.sha256('\0'.join(what).encode()).hexdigest()[:12]
  return os.path.join(os.path.expanduser(directory), MANIFESTS, f'{name}-{mark}.json')


def check_manifest(path: str, folder: Folder, now: Digests) -> Manifest | None:
  """Compares the files of a data set, or of a selection of it, with those that `doctor` saw.

  Returns the manifest, None if the file does not exist. Raises BadInput: a file is another one or
  was not there, or the manifest is damaged.

  Args:
    path: the manifest.
    folder: the data set.
    now: its `file_digests`.
  """
  if not os.path.exists(path):
    return None
  manifest: Manifest = records.read(path, 'run doctor again', *get_type_hints(Manifest))
  seen = _digests_in(manifest['files'])
  changed = [name for name, parts in now.items() if not parts.items() <= seen.get(name, {}).items()]
  if changed:
    raise BadInput(
      f'{folder.images.replace("{id}", changed[0])}: this image or its label is not what doctor '
      f'saw on {manifest["made"]} ({len(changed)} of {len(now)} differ): run doctor again'
    )
  return manifest
