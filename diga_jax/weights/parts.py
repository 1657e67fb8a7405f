"""Which network of a file is meant: a checkpoint may hold a student, its teacher and much else.

The names of a file's entries are taken as one tree, whether a level of it is a dict ('state_dict')
or what names begin with ('model.'). A part is a branch of that tree. The one that a network takes
most entries of is taken; where several are alike, the student's, unless another is asked for.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from data_pipelines.errors import BadInput
from diga_jax.types import PyTree
from diga_jax.weights import pretrained
from diga_jax.weights.torch_file import Tensor, Unknown

LEVELS = 2  # of dicts below the first in which entries are looked for
DEPTH = 6  # of the tree: words before the names of layers
MOST_PARTS, MOST_ENTRIES = 300, 2**20
SHOWN = 6  # parts named in a line
# Words in the names of parts that a start does not take by itself.
_TEACHERS = {'ema', 'teacher', 'momentum', 'target', 'swa', 'averaged', 'avg', 'shadow'}
_TEACHER_NAMES = {'encoder_k', 'key_encoder'}  # MoCo's
_FROZEN = {'imnet', 'imagenet', 'frozen', 'fixed', 'initial', 'source', 'old', 'previous'}
# mmengine's EMAHook keeps the average in 'state_dict', and the student here.
_OTHER_NAMES = {'ema_state_dict'}
ROLES = ('student', 'teacher', '')

Leaf = Tensor | Unknown | np.ndarray
Shapes = Mapping[str, tuple[int, ...]]


class Part(NamedTuple):
  """A branch of a file.

  Attributes:
    path: where it is, such as 'state_dict.model'; '' is the whole file.
    entries: the rest of their names -> what they are.
    said: what was taken, and what else there is, in words; '' for the whole of a file.
  """

  path: str
  entries: dict[str, Leaf]
  said: str = ''


def tables(content: PyTree) -> dict[str, dict[str, Leaf]]:
  """The dicts of a file that hold entries: where they are, '' for the outermost -> their own.

  Raises:
    BadInput: there are too many.
  """
  found: dict[str, dict[str, Leaf]] = {}
  level: list[tuple[str, PyTree]] = [('', content)]
  count = 0
  for depth in range(LEVELS + 1):
    below: list[tuple[str, PyTree]] = []
    for path, table in level:
      count += len(table) if isinstance(table, dict) else 0
      if count > MOST_ENTRIES:
        raise BadInput(f'it has more than {MOST_ENTRIES} entries: refused')
      items = [(str(k), v) for k, v in table.items()] if isinstance(table, dict) else []
      own = {k: v for k, v in items if isinstance(v, Tensor | Unknown | np.ndarray)}
      if any(not isinstance(v, Unknown) for v in own.values()):
        if not all(key.isprintable() and len(key) < 300 for key in (path, *own)):
          raise BadInput('holds an entry whose name is no name of a layer')
        found[path] = own
      below += [(_join(path, k), v) for k, v in items if isinstance(v, dict) and depth < LEVELS]
    level = below
  return found


def first_table(content: PyTree) -> dict[str, Leaf]:
  """The entries of the outermost dict of a file."""
  return tables(content).get('', {})


def nbytes(found: Mapping[str, dict[str, Leaf]]) -> int:
  """The bytes that the arrays of all tables take."""
  return sum(
    leaf.nbytes
    for table in found.values()
    for leaf in table.values()
    if not isinstance(leaf, Unknown)
  )


def check_known(entries: Mapping[str, Leaf], wanted: Shapes) -> None:
  """Raises BadInput where an entry that is needed depends on an object that is not read."""
  unknown = {name: leaf for name, leaf in entries.items() if isinstance(leaf, Unknown)}
  needed = [name for name, leaf in unknown.items() if leaf.tensor]
  if wanted:
    stand_ins = dict.fromkeys(unknown, np.zeros(3))
    needed = [key for key in pretrained.rename(stand_ins, set(wanted)) if key in wanted]
  if needed:
    made = sorted({leaf.name for leaf in unknown.values()})
    raise BadInput(
      f'{needed[0]} is no plain tensor, but made by an object that is not read '
      f'({_listed(made)}): save plain tensors'
    )


def largest(found: Mapping[str, dict[str, Leaf]]) -> Part:
  """The table to take where no network is given: among the largest, a student's.

  One of half the entries of the largest counts as large.
  """
  sizes = {path: _count(table.values()) for path, table in found.items()}
  large = [path for path, size in sizes.items() if 2 * size >= max(sizes.values())]
  path = min(large, key=lambda path: ROLES.index(role(path)))
  return Part(path, found[path])


def choose(found: Mapping[str, dict[str, Leaf]], wanted: Shapes, asked: str = '') -> Part:
  """The branch of a file that fits a network best.

  Args:
    found: see `tables`.
    wanted: name -> shape of each entry of the network; none: the largest branch fits best.
    asked: the part to take: some words of its path, 'student' or 'teacher'; '' is any.

  Raises:
    BadInput: there is no such part, or several fit alike and none is the student's alone.
  """
  flat: dict[str, Leaf] = {}
  for path, table in found.items():
    for name, leaf in table.items():
      if (key := _join(path, name)) in flat:
        raise BadInput(f'holds two entries called {key}')
      flat[key] = leaf
  branches = _branches(flat)
  if asked:
    branches = _asked_for(branches, asked, found)
  scores = _scores(branches, flat, wanted)
  best = max(scores.values())
  alike = _outermost(path for path, score in scores.items() if score == best)
  if not best:
    alike = alike[:1]
  path = _preferred(alike)
  names = branches[path]
  inside = [table for table in found if _is_in(table, path)]
  if path not in found and len(inside) == 1:  # all of a branch is in one dict
    path = inside[0]
  entries = {_below(path, name): flat[name] for name in names}
  return Part(path, entries, _say(path, alike, flat))


def role(path: str) -> str:
  """'student', 'teacher', or '' for what is neither, by the words of a path."""
  parts = path.lower().split('.')
  words = set(re.split(r'[._]', path.lower()))
  if words & _FROZEN or _OTHER_NAMES & set(parts):
    return ''
  return 'teacher' if words & _TEACHERS or _TEACHER_NAMES & set(parts) else 'student'


def shown(path: str) -> str:
  """The name of a part as it is said, and may be asked for."""
  return path.removeprefix('state_dict.') or 'the whole file'


def _branches(flat: Mapping[str, Leaf]) -> dict[str, list[str]]:
  """Path -> names of the entries in it, the largest first, for the branches of a file."""
  found = {'': list(flat)}
  level = dict(found)
  for _ in range(DEPTH):
    below: dict[str, list[str]] = {}
    for path, names in level.items():
      for name in names:
        first, dot, _ = _below(path, name).partition('.')
        if dot:
          below.setdefault(_join(path, first), []).append(name)
    level = dict(sorted(below.items(), key=lambda item: -len(item[1]))[:MOST_PARTS])
    found |= level
  return dict(sorted(found.items(), key=lambda item: -len(item[1]))[:MOST_PARTS])


def _scores(
  branches: Mapping[str, list[str]], flat: Mapping[str, Leaf], wanted: Shapes
) -> dict[str, int]:
  """Path -> how many entries of the network a branch fills; the largest come first."""
  scores: dict[str, int] = {}
  best = 0
  for path, names in branches.items():
    if 2 * len(names) < best:  # an entry there becomes two at most
      break
    leaves = {_below(path, name): flat[name] for name in names}
    scores[path] = fit(leaves, wanted) if wanted else len(names)
    best = max(best, scores[path])
  return scores


def fit(leaves: Mapping[str, Leaf], wanted: Shapes) -> int:
  """How many entries of a network are among those of a file, by name and shape."""
  stand_ins = {
    name: np.broadcast_to(np.int8(0), leaf.size if isinstance(leaf, Tensor) else leaf.shape)
    for name, leaf in leaves.items()
    if not isinstance(leaf, Unknown)
  }
  named = pretrained.rename(stand_ins, set(wanted))
  return sum(named[name].shape == shape for name, shape in wanted.items() if name in named)


def _asked_for(
  branches: dict[str, list[str]], asked: str, found: Iterable[str]
) -> dict[str, list[str]]:
  words = asked.split('.')

  def holds(path: str) -> bool:
    parts = path.split('.')
    return any(parts[i : i + len(words)] == words for i in range(len(parts)))

  chosen = {path: names for path, names in branches.items() if holds(path)}
  if not chosen and asked in ROLES[:2]:
    chosen = {path: names for path, names in branches.items() if role(path) == asked}
  if not chosen:
    parts = [path for path in branches if path and len(branches[path]) > 1]
    raise BadInput(f'has no part {asked!r}; it has {_listed(map(shown, parts))}')
  return chosen


def _outermost(paths: Iterable[str]) -> list[str]:
  """Without those that lie within another one of them."""
  found: list[str] = []
  for path in sorted(paths, key=lambda path: (path.count('.') + bool(path), path)):
    if not any(_is_in(path, outer) for outer in found):
      found.append(path)
  return found


def _preferred(alike: list[str]) -> str:
  """The student's of several parts that fit alike."""
  for wanted in ROLES:
    one = [path for path in alike if role(path) == wanted]
    if len(one) == 1:
      return one[0]
    if one:
      raise BadInput(f'holds several networks that fit alike: {_listed(map(shown, one))}; {HOW}')
  raise AssertionError('no part')


HOW = 'choose one by --part=NAME, or by FILE#NAME where a field of the config names the file'


def _say(path: str, alike: list[str], flat: Mapping[str, Leaf]) -> str:
  """Which part was taken, and what is left out."""
  if not path:
    return ''
  beside: dict[str, None] = {}
  for name, leaf in flat.items():
    if not _is_in(name, path) and not isinstance(leaf, Unknown):
      beside[_fork(name, path)] = None
  others = [other for other in alike if not _is_in(path, other)]
  left = [other for other in beside if not any(_is_in(o, other) for o in others)]
  text = f'took {_with_role(path, alike)}'
  if beside:
    text += f', left {_listed([*(_with_role(o, alike) for o in others), *map(shown, left)])}'
  if not others:
    return text
  return f'{text}; choose another by --part={shown(others[0])} or FILE#{shown(others[0])}'


def _with_role(path: str, alike: Iterable[str]) -> str:
  """A part and whose it is, where there is a teacher and the name does not say it."""
  whose = role(path) if 'teacher' in map(role, alike) else ''
  return f'{shown(path)} ({whose})' if whose and whose not in path else shown(path)


def _fork(name: str, path: str) -> str:
  """The start of a name up to where it leaves a path."""
  parts, words = name.split('.'), path.split('.')
  same = next((i for i, (a, b) in enumerate(zip(parts, words, strict=False)) if a != b), 0)
  return '.'.join(parts[: same + 1])


def _listed(names: Iterable[str]) -> str:
  every = list(names)
  return ', '.join(every[:SHOWN]) + ', ...' * (len(every) > SHOWN)


def _count(leaves: Iterable[Leaf]) -> int:
  return sum(not isinstance(leaf, Unknown) for leaf in leaves)


def _join(path: str, name: str) -> str:
  return f'{path}.{name}' if path else name


def _below(path: str, name: str) -> str:
  return name[len(path) + 1 :] if path else name


def _is_in(name: str, path: str) -> bool:
  return not path or name == path or name.startswith(f'{path}.')
