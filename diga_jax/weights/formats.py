"""What a file of weights holds, told by its first bytes: its name may end with anything.

Read are PyTorch's files (torch_file.py), safetensors, NumPy's .npz, and folders of the Hugging Face
Hub, whose weights may lie in several files.
"""

import hashlib
import io
import json
import math
import pathlib
import struct
import zipfile
from collections.abc import Callable

import numpy as np
import safetensors
import safetensors.numpy

from data_pipelines.errors import BadInput
from diga_jax.types import PyTree
from diga_jax.weights import torch_file, zip_file

# The files of a folder of the Hub, in the order in which they are preferred. An index says which
# file holds which entry.
HUB = ('model.safetensors', 'pytorch_model.bin')
INDEX = '.index.json'
LONGEST_INDEX = 2**25  # bytes
KINDS = '.pth (PyTorch), .safetensors or .npz'
# First bytes -> what a file is that people take for weights.
_OTHERS = (
  (b'\x1f\x8b', 'is packed by gzip: unpack it first'),
  (b'version https://git-lfs', 'is a pointer of Git LFS: fetch the file itself by git lfs pull'),
  (b'<', 'is a web page: fetch the file again'),
  (b'\x89HDF', 'is an HDF5 file, as Keras writes'),
)  # fmt: skip


def read(path: pathlib.Path) -> PyTree:
  """What a file holds: nested containers of arrays, or of torch_file's `Tensor`s.

  Raises:
    BadInput: it is another kind of file, or would take too much memory.
    Exception: of whatever kind a damaged file causes.
  """
  with open(path, 'rb') as file:
    head = file.read(512)
  if head.startswith(b'PK'):
    return _zip_reader(path)(path)
  if head.startswith(b'\x80'):
    return torch_file.read(path)
  if head[8:9] == b'{' and struct.unpack('<Q', head[:8])[0] < path.stat().st_size:
    return _read_safetensors(path)
  if head[257:262] == b'ustar':
    raise BadInput('is a tar archive: unpack it first')
  for start, what in _OTHERS:
    if head.startswith(start):
      raise BadInput(f'{what}; weights are read from {KINDS} files')
  raise BadInput(f'not a readable file of weights: by its content, it is none of {KINDS}')


def _zip_reader(path: pathlib.Path) -> Callable[[pathlib.Path], PyTree]:
  if not zipfile.is_zipfile(path):
    raise BadInput('is damaged: its end is missing, as of a copy that was cut off')
  with zipfile.ZipFile(path) as archive:
    names = archive.namelist()
  return _read_npz if names and all(n.endswith('.npy') for n in names) else torch_file.read


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  arrays = safetensors.numpy.load_file(path)
  with safetensors.safe_open(path, 'numpy') as file:
    said = (file.metadata() or {}).get('sha256')
  if said and said != digest(arrays):  # the format has no checksum of its own
    raise ValueError('its numbers are not those that were written')
  return arrays


def digest(arrays: dict[str, np.ndarray]) -> str:
  """SHA-256 of arrays with their names, types and shapes."""
  found = hashlib.sha256()
  for name, array in sorted(arrays.items()):
    found.update(f'{name} {array.dtype} {array.shape}'.encode() + array.tobytes())
  return found.hexdigest()


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
  with zip_file.opened(path) as archive:
    names = archive.namelist()
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


# Folders of the Hub.


def hub_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """The files with the weights of a folder of the Hub; none in any other folder.

  Raises:
    BadInput: its index is damaged, or names a file that is not there.
  """
  for name in HUB:
    if (folder / name).is_file():
      return [folder / name]
    if (folder / f'{name}{INDEX}').is_file():
      parts = sorted(set(_index(folder / f'{name}{INDEX}').values()))
      if missing := [part for part in parts if not (folder / part).is_file()]:
        raise BadInput(
          f'{folder / missing[0]}: missing, of the {len(parts)} files that {name}{INDEX} names: '
          'fetch it'
        )
      return [folder / part for part in parts]
  return []


def _index(path: pathlib.Path) -> dict[str, str]:
  """Name of an entry -> name of its file, of the index of a folder."""
  try:
    if path.stat().st_size > LONGEST_INDEX:
      raise ValueError('it is too long')
    found = json.loads(path.read_bytes())['weight_map']
    names = [*found.keys(), *found.values()]
    if not names or not all(isinstance(name, str) and name.isprintable() for name in names):
      raise ValueError('it names no files')
  except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
    raise BadInput(f'{path}: damaged ({type(error).__name__}): fetch it again') from None
  if outside := [name for name in found.values() if pathlib.PurePath(name).name != name]:
    raise BadInput(f'{path}: names {outside[0]}, which is no file of its folder: refused')
  return found


def join_shards(folder: pathlib.Path, shards: dict[pathlib.Path, PyTree]) -> dict[str, PyTree]:
  """The entries of the files of a folder as one dict.

  Raises:
    BadInput: an entry is in two files, or in none though the index names it.
  """
  joined: dict[str, PyTree] = {}
  for path, content in shards.items():
    if not isinstance(content, dict) or joined.keys() & content.keys():
      raise BadInput(f'{path}: holds no named entries, or some that another file of {folder} holds')
    joined |= content
  for name in HUB:
    if len(shards) > 1 and (index := folder / f'{name}{INDEX}').is_file():
      if lost := sorted(_index(index).keys() - joined.keys()):
        raise BadInput(f'{index}: no file holds {lost[0]}, which it names: fetch the folder again')
      break
  return joined
