"""Which files of folders are images, which are labels, and what belongs together, by their names.

Names are taken apart at '_', '-', '.' and between letters and digits: of `aachen/a_01_leftImg8bit`
and `aachen/a_01_gtFine_labelIds` the id is `aachen/a_01`.
"""

import collections
import itertools
import os
import re
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from data_pipelines import file_names, image_ids
from data_pipelines.errors import BadInput

SEPARATOR = re.compile(r'[_.-]|(?<=[^\W\d])(?=\d)|(?<=\d)(?=[^\W\d])')
SAMPLE = 500  # names that the pattern of labels is guessed from
NEARLY = 0.9  # of the labels: kinds that go with so many images are told apart by their names
SPLITS = {
  'train': ('train', 'training', 'Train', 'Training'),
  'val': ('val', 'valid', 'validation', 'Val', 'Validation'),
  'test': ('test', 'testing', 'Test', 'Testing'),
}
# Which of several kinds of labels is taken, by what stands around the ids: best nothing, then these
# in order; hardly those that are no classes.
BETTER = (
  re.compile('label_?ids?', re.I), re.compile('train_?ids?', re.I),
  re.compile('label|mask|annot|sem|seg|gt', re.I), re.compile('colou?r|_L', re.I),
)  # fmt: skip
IMAGE = re.compile(r'im(age|g)s?$|rgb|left|photo|orig|raw|input', re.I)
HARDLY = re.compile('inst|poly|pano|depth|disp|edge|overlay|vis|conf', re.I)


class Pairs(NamedTuple):
  """Patterns of images and of their labels, '' for none; the ids of the images; what was not taken.

  Patterns are absolute paths with `{id}`.
  """

  images: str
  labels: str
  ids: list[str]
  left: list[str]  # in words


class _Around(NamedTuple):
  """What stands around an id: the folder before it, the beginning and the end of the file name."""

  folder: str
  before: str
  after: str


def split_folders(directory: str) -> dict[str, str]:
  """{'train': folder, 'val': ..., 'test': ...} of those folders that a folder consists of."""
  names = [entry.name for entry in os.scandir(directory) if entry.is_dir()]
  found = {split: next((n for n in SPLITS[split] if n in names), '') for split in SPLITS}
  return {split: name for split, name in found.items() if name} if found['train'] else {}


def find(images: str, labels: str = '') -> Pairs:
  """The images of a folder and, unless '', their labels in a folder, which may be the same.

  Raises BadInput: there are none, several kinds in one folder, or labels do not go with images.
  """
  files = _files(images, image_ids.ENDINGS)
  if not files:
    raise BadInput(
      f'{images}: holds no image ({", ".join(image_ids.ENDINGS)}): give another folder'
    )
  label_files = _label_files(labels) if labels else []
  taken = {os.path.join(labels, name) for name in label_files}
  by_ending = collections.defaultdict(list)
  for name in files:
    by_ending[file_names.ending_of(name).lower()].append(name)
  ending = max(by_ending, key=lambda e: (e != '.png', len(by_ending[e])))
  names, left = by_ending[ending], []
  if labels and taken.intersection(os.path.join(images, name) for name in names):
    names = _without_labels(names)
  left += [f'{len(n)} {e} files' for e, n in by_ending.items() if e != ending and not labels]
  others = set(by_ending[ending]).difference(names)
  own = {os.path.join(images, name) for name in names}
  label_files = [name for name in label_files if os.path.join(labels, name) not in own]
  if not labels:
    top, stems = _below_common_folder(names)
    return Pairs(_joined(images, top, '{id}', ending), '', stems, left)
  pairs = _matched(images, names, ending, labels, label_files)
  if lost := len(others) - _votes(sorted(others), set(pairs.ids)).total():
    raise BadInput(
      f'{images}: holds {lost} {ending} files that are neither images such as '
      f'{pairs.images.replace("{id}", pairs.ids[0])} nor labels of them: give --images and '
      '--labels the folders of these alone'
    )
  return pairs


def _files(directory: str, endings: Collection[str]) -> list[str]:
  """The files below a folder with one of these endings, by paths from there; none is hidden."""
  found = []
  for path in image_ids.walk(directory):
    name = file_names.normal(os.path.relpath(path, directory))
    hidden = any(part.startswith('.') for part in name.split('/'))
    if not hidden and file_names.ending_of(name).lower() in endings:
      found.append(name)
  return sorted(found)


def _label_files(directory: str) -> list[str]:
  found = _files(directory, ('.png',))
  if found:
    return found
  others = collections.Counter(
    file_names.ending_of(path).lower() for path in image_ids.walk(directory)
  )
  most = f'{others.most_common(1)[0][1]} {others.most_common(1)[0][0]} files' if others else 'none'
  raise BadInput(f'{directory}: holds no .png file ({most}): convert the labels to PNG first')


def _below_common_folder(names: Sequence[str]) -> tuple[str, list[str]]:
  """(the folder that all lie in, the rest of each path without its ending)."""
  top = os.path.commonpath([os.path.dirname(name) for name in names]) if names else ''
  rest = [os.path.relpath(name, top) if top else name for name in names]
  return top, [name.removesuffix(file_names.ending_of(name)) for name in rest]


def _joined(directory: str, top: str, name: str, ending: str) -> str:
  return os.path.join(directory, top, name + ending)


def _without_labels(names: Sequence[str]) -> list[str]:
  """The images among files of one folder, the others' names being theirs with another end.

  All of them where no names tell them apart.
  """
  stems = {name.removesuffix(file_names.ending_of(name)): name for name in names}
  starts = collections.defaultdict(set)  # by the end of a name, what stands before it
  for stem in stems:
    starts[''].add(stem)
    for place in re.finditer(r'[_.-]', stem):
      starts[stem[place.start() :]].add(stem[: place.start()])
  shared = {
    end: set().union(*(starts[end] & before for other, before in starts.items() if other != end))
    for end in starts
    if not end or IMAGE.search(end)
  }
  end = max(shared, key=lambda end: len(shared[end]))
  return [stems[start + end] for start in sorted(shared[end])] or list(names)


def _matched(
  images: str, names: Sequence[str], ending: str, labels: str, label_files: Sequence[str]
) -> Pairs:
  """Images with the labels that most of them have; see `find`."""
  top, stems = _below_common_folder(names)
  sample = label_files[:: max(len(label_files) // SAMPLE, 1)]
  found = [
    _Match(count, _rank(of_label), -stripped, around, of_label)
    for stripped, around in enumerate(_around_ids(stems))
    for of_label, count in _votes(sample, {_id_in(stem, around) for stem in stems}).items()
  ]
  if not found:
    raise BadInput(
      f'{labels}: no label goes with an image such as {os.path.join(images, names[0])}: give the '
      'folder of the labels, whose names hold those of the images'
    )
  most = max(match.count for match in found)
  best = max(found, key=lambda match: (match.count >= NEARLY * most, *match[1:3], match.count))
  around, label = best.around, best.of_label
  others = {f'*{match.of_label.after}.png' for match in found if match.around == around}
  pairs = Pairs(
    _joined(images, top, f'{around.before}{{id}}{around.after}', ending),
    _joined(labels, label.folder, f'{label.before}{{id}}{label.after}', '.png'),
    [_id_in(stem, around) for stem in stems],
    sorted(others - {'*.png', f'*{label.after}.png'}),
  )
  _check_all_there(pairs)
  return pairs


class _Match(NamedTuple):
  """What may stand around the ids of images and of labels, and how well that fits."""

  count: int  # of labels
  rank: int
  plainness: int  # the less stands around the ids of images
  around: _Around
  of_label: _Around


def _rank(label: _Around) -> int:
  text = label.before + label.after
  if HARDLY.search(f'{label.folder}/{text}'):
    return -1
  fits = (not text, *(kind.search(text) for kind in BETTER))
  return len(fits) - next((place for place, fit in enumerate(fits) if fit), len(fits))


def _around_ids(stems: Sequence[str]) -> Iterator[_Around]:
  """What may stand around the ids of images, the least first."""
  bases = [os.path.basename(stem) for stem in stems]
  start, end = _common_start(bases), _common_start([base[::-1] for base in bases])[::-1]
  ends = ['', *(end[m.start() :] for m in reversed([*re.finditer(r'[_.-]', end)]))]
  nested = any('/' in stem for stem in stems)
  starts = ['', *([] if nested else (start[: m.end()] for m in SEPARATOR.finditer(start + '0')))]
  shortest = min(map(len, bases))
  for before, after in itertools.product(starts, ends):
    if len(before) + len(after) < shortest:
      yield _Around('', before, after)


def _common_start(texts: Sequence[str]) -> str:
  alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False))
  return ''.join(letters[0] for letters in alike)


def _id_in(stem: str, around: _Around) -> str:
  folder, _, base = stem.rpartition('/')
  base = base.removeprefix(around.before).removesuffix(around.after)
  return f'{folder}/{base}' if folder else base


def _votes(label_files: Sequence[str], ids: Collection[str]) -> collections.Counter[_Around]:
  """How many labels have an id in what surroundings; the longest id in a name counts."""
  found = collections.Counter()
  for name in label_files:
    folder, _, base = name.removesuffix(file_names.ending_of(name)).rpartition('/')
    parts = folder.split('/') if folder else []
    marks = {0, len(base)}.union(*((m.start(), m.end()) for m in SEPARATOR.finditer(base)))
    spans = sorted(itertools.combinations(sorted(marks), 2), key=lambda s: (s[0] - s[1], s[0]))
    for depth, (first, last) in itertools.product(range(len(parts) + 1), spans):
      if '/'.join([*parts[depth:], base[first:last]]) in ids:
        found[_Around('/'.join(parts[:depth]), base[:first], base[last:])] += 1
        break
  return found


def _check_all_there(found: Pairs) -> None:
  """Raises BadInput if images have no label."""
  listing = file_names.Listing()
  missing = [n for n in found.ids if listing.find(found.labels.replace('{id}', n)) is None]
  if missing:
    raise BadInput(
      f'{found.images.replace("{id}", missing[0])}: has no label '
      f'{found.labels.replace("{id}", missing[0])} ({len(missing)} of {len(found.ids)} images have '
      'none): add it, or keep images without labels in a folder apart (--target)'
    )
