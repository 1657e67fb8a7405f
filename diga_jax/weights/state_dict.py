"""Between PyTorch's names and layouts and Flax's.

A parameter's path in Flax, joined by dots, is its name in PyTorch but for the last part: `kernel`
and `scale` are PyTorch's `weight`, `mean` and `var` its `running_mean` and `running_var`.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from data_pipelines.errors import BadInput
from diga_jax import models
from diga_jax.rules import search
from diga_jax.types import PyTree, Variables
from diga_jax.weights import pretrained
from diga_jax.weights.pretrained import StateDict

Row = tuple[str, tuple[int, ...], str]  # PyTorch name, shape, status
Path = tuple[str, ...]  # collection, layers, leaf

_LEAVES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias'}
_LEAVES |= {'mean': 'running_mean', 'var': 'running_var'}
# PyTorch's BatchNorm counts its batches; nothing here uses the count.
COUNTER = 'num_batches_tracked'
HEAD = re.compile(rf'^({"|".join(models.HEADS)})\.')  # at the start of a name: it is of the head


def from_torch(name: str, state_dict: StateDict, **options: Any) -> Variables:
  """The variables of the network `name` from its PyTorch state dict.

  Args:
    name: see models.build; `options` go there.
    state_dict: every entry of the network and no other; batch counters may be missing.

  Returns:
    {'params', ['batch_stats']}, float32.

  Raises:
    BadInput: an entry is missing, unexpected or of another shape.
  """
  variables, rows = match(models.shapes(models.build(name, **options)), state_dict)
  _check_fit(rows, name)
  return variables


def to_torch(name: str, variables: Variables) -> dict[str, np.ndarray]:
  """The inverse of `from_torch`: PyTorch names and layouts, batch counters as zeros.

  Raises:
    BadInput: there is no such network.
  """
  models.build(name)  # raises BadInput for an unknown name
  return state_dict_of(variables)


def state_dict_of(variables: Variables) -> dict[str, np.ndarray]:
  """Any network's variables under PyTorch's names and in its layouts."""
  state_dict = {}
  for path, leaf in _flat(variables):
    key = _torch_name(path)
    state_dict[key] = _transpose(np.asarray(leaf), path, (3, 2, 0, 1))
    if path[-1] == 'var':
      state_dict[_sibling(key, COUNTER)] = np.zeros((), np.int64)
  return state_dict


def shapes_of(variables: Variables) -> dict[str, tuple[int, ...]]:
  """PyTorch name -> shape in PyTorch's layout of every entry but the batch counters."""
  return {_torch_name(path): _torch_shape(path, leaf) for path, leaf in _flat(variables)}


def match(variables: Variables, state_dict: StateDict) -> tuple[Variables, list[Row]]:
  """Puts every entry that fits, by name and shape, into a copy of `variables`.

  Args:
    variables: arrays, or shapes (models.shapes): these stay where nothing fits.
    state_dict: PyTorch names and layouts.

  Returns:
    The variables, and one row (PyTorch name, shape, status) per entry of either side, in the
    order of `state_dict`, the missing ones last. The status is 'used', 'missing', 'unexpected' or
    'shape A != B' (the file's and the network's, PyTorch layout).
  """
  wanted = {_torch_name(path): (path, leaf) for path, leaf in _flat(variables)}
  found, rows = {}, []
  for key, value in state_dict.items():
    shape = tuple(np.shape(value))
    if key in wanted:
      path, leaf = wanted[key]
      target = _torch_shape(path, leaf)
      rows.append((key, shape, 'used' if shape == target else f'shape {shape} != {target}'))
      if shape == target:
        found[path] = jnp.asarray(_transpose(np.asarray(value), path, (2, 3, 1, 0)), leaf.dtype)
    else:
      counter = key.endswith(COUNTER) and _sibling(key, 'running_var') in wanted
      rows.append((key, shape, 'used' if counter else 'unexpected'))
  for key, (path, leaf) in wanted.items():
    if key not in state_dict:
      rows.append((key, _torch_shape(path, leaf), 'missing'))
  filled = jax.tree_util.tree_map_with_path(lambda p, x: found.get(_names(p), x), variables)
  return filled, rows


def initialise(
  variables: Variables, state_dict: StateDict, may_differ: Sequence[str] | None = None
) -> tuple[Variables, list[Row]]:
  """`variables` with a file's weights in them, for a start from a pretrained network.

  Accepts the network's own names and those of the usual other distributions (`pretrained`).

  Args:
    variables: the freshly initialised network.
    state_dict: see `read`.
    may_differ: regular expressions that name the entries (by `search`) that the file may lack,
      hold in another shape or have left over. With a tuple, an empty one too, a classifier or a
      head that the network does not have is left out as well. None: nothing may differ.

  Returns:
    The variables and the rows of `match`, with the network's names.

  Raises:
    BadInput: an entry that may not differ does, none fits, or one holds what no network does.
  """
  variables, rows = fill(variables, state_dict)
  wanted = {key: shape for key, shape, status in rows if status != 'unexpected'}
  holds = (
    f': the file holds {pretrained.describe(state_dict)}; wanted is '
    f'{pretrained.describe({key: np.broadcast_to(0, shape) for key, shape in wanted.items()})}'
  )
  if may_differ is not None and not any(status == 'used' for _, _, status in rows):
    raise BadInput(f'none of the {len(state_dict)} entries fits this network{holds}')
  strict = rows
  if may_differ is not None:
    left_out = _beside([key for key, _, _ in rows if key not in wanted], wanted)
    strict = [row for row in rows if row[0] not in left_out]
    strict = [row for row in strict if not any(search(p, row[0]) for p in may_differ)]
  _check_fit(strict, 'this network', holds)
  return variables, rows


def fill(variables: Variables, state_dict: StateDict) -> tuple[Variables, list[Row]]:
  """`match` for a file that may have other names, whatever fits; see `initialise`.

  Raises:
    BadInput: an entry that fits does not hold finite numbers, or a variance is below 0.
  """
  wanted = {_torch_name(path) for path, _ in _flat(variables)}
  renamed = pretrained.rename(state_dict, wanted)
  for name in wanted & renamed.keys():
    if not jnp.issubdtype(renamed[name].dtype, jnp.floating):
      raise BadInput(f'{name} holds {renamed[name].dtype} numbers: give a file of float weights')
    with np.errstate(over='ignore'):
      finite = np.isfinite(renamed[name].astype(np.float32)).all()
    if not finite:
      raise BadInput(f'{name} holds numbers that are not finite: the file is of no use')
    if name.endswith('.running_var') and np.min(renamed[name], initial=0) < 0:
      raise BadInput(f'{name} holds variances below 0: the file is of no use')
  return match(variables, renamed)


def only_arrays(variables: Variables) -> Variables:
  """Without what is still a shape: where nothing has fitted."""
  flat = traverse_util.flatten_dict(variables)
  return traverse_util.unflatten_dict(
    {path: x for path, x in flat.items() if not isinstance(x, jax.ShapeDtypeStruct)}
  )


def _beside(names: Iterable[str], wanted: Iterable[str]) -> set[str]:
  """Those of the names that are no part of the body of a network: a classifier, another head.

  A part of the body lies within one of its layers: a block more, or a module more in a block.
  """
  layers = [_parents(name) for name in wanted if not HEAD.match(name)]
  body = set().union(*layers) - set.intersection(*layers) if layers else set()
  return {name for name in names if HEAD.match(name) or not _parents(name) & body}


def _parents(name: str) -> set[str]:
  parts = name.split('.')
  return {'.'.join(parts[:count]) for count in range(1, len(parts))}


def describe_fit(rows: Sequence[Row]) -> str:
  """The rows of `initialise` in a line: how many entries fit, what is random, what is left over."""
  counted = [row for row in rows if not row[0].endswith(COUNTER)]
  left = [key for key, _, status in counted if status == 'unexpected']
  random = [key for key, _, status in counted if status not in ('used', 'unexpected')]
  total = len(counted) - len(left)
  text = f"{total - len(random)} of the network's {total} entries are the file's"
  if random:
    where = 'of the head' if all(map(HEAD.match, random)) else _first(random)
    text += f', {len(random)} start at random ({where})'
  return text + (f"; {len(left)} of the file's are not used ({_first(left)})" if left else '')


def _first(names: Sequence[str]) -> str:
  return ', '.join(names[:3]) + ', ...' * (len(names) > 3)


def _check_fit(rows: list[Row], network: str, holds: str = '') -> None:
  misfits = [f'{key} ({status})' for key, _, status in rows if status != 'used']
  if misfits:
    raise BadInput(
      f'{len(misfits)} of {len(rows)} entries do not fit {network}: {_first(misfits)}{holds}'
    )


def _flat(variables: Variables) -> list[tuple[Path, PyTree]]:
  leaves, _ = jax.tree_util.tree_flatten_with_path(variables)
  return [(_names(path), leaf) for path, leaf in leaves]


def _names(path: Iterable[PyTree]) -> Path:
  return tuple(entry.key for entry in path)


def _torch_name(path: Path) -> str:
  # The first part is the collection, 'params' or 'batch_stats'.
  return '.'.join((*path[1:-1], _LEAVES[path[-1]]))


def _torch_shape(path: Path, leaf: PyTree) -> tuple[int, ...]:
  return _transpose(np.broadcast_to(0, leaf.shape), path, (3, 2, 0, 1)).shape


def _sibling(key: str, leaf: str) -> str:
  return f'{key.rpartition(".")[0]}.{leaf}'


def _transpose(value: np.ndarray, path: Path, convolution: tuple[int, ...]) -> np.ndarray:
  """Between convolutions OIHW and HWIO, and between linear layers OI and IO."""
  if path[-1] != 'kernel':
    return value
  return value.transpose(convolution if value.ndim == 4 else (1, 0))
