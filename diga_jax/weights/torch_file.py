"""Reads and writes PyTorch's .pth files without PyTorch, and without running what is in them.

A .pth file is a pickle, which may name any function to be called. Here only the names that
rebuild tensors are known, and they lead to the inert classes below; any other name is refused.

Two formats exist. Zip (since PyTorch 1.6): `NAME/data.pkl` is the pickle and `NAME/data/KEY` the
bytes of each storage. Legacy: three small pickles (a magic number, a version, facts about the
writer's machine), the pickle, the list of keys, then for each key a count and the bytes.
"""

import collections
import dataclasses
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Literal

import ml_dtypes
import numpy as np

from data_pipelines.errors import BadInput
from diga_jax.types import PyTree

ByteOrder = Literal['<', '>']
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

_TYPES = {
  **{'Float': np.float32, 'Double': np.float64, 'Half': np.float16, 'BFloat16': ml_dtypes.bfloat16},
  **{'Long': np.int64, 'Int': np.int32, 'Short': np.int16, 'Char': np.int8},
  **{'Byte': np.uint8, 'Bool': np.bool_},
}
_STORAGES = {f'{name}Storage': np.dtype(kind) for name, kind in _TYPES.items()}


@dataclasses.dataclass
class Storage:
  """A run of `count` numbers, shared by the tensors that view it. `data` comes after the pickle."""

  key: str
  dtype: np.dtype
  count: int
  data: bytes = b''


@dataclasses.dataclass
class Tensor:
  """A view of a storage, in elements; read by `array` once the storage has its bytes."""

  storage: Storage
  offset: int
  size: tuple[int, ...]
  stride: tuple[int, ...]

  def array(self, byte_order: ByteOrder) -> np.ndarray:
    """The numbers. Raises ValueError if the view leaves its storage."""
    dtype = self.storage.dtype
    stored = np.frombuffer(self.storage.data, dtype.newbyteorder(byte_order), self.storage.count)
    if len(self.size) != len(self.stride) or min((self.offset, *self.size, *self.stride)) < 0:
      raise ValueError('a tensor has an impossible shape')
    if 0 in self.size:
      return np.zeros(self.size, dtype)
    last = self.offset + sum((n - 1) * s for n, s in zip(self.size, self.stride, strict=True))
    if last >= self.storage.count:
      raise ValueError('a tensor is larger than its storage')
    steps = [s * dtype.itemsize for s in self.stride]
    view = np.lib.stride_tricks.as_strided(stored[self.offset :], self.size, steps)
    return view.astype(dtype)


def _tensor(
  storage: Storage, offset: int, size: Iterable[int], stride: Iterable[int], *_: object
) -> Tensor:
  if not isinstance(storage, Storage):
    raise ValueError('a tensor without a storage')
  return Tensor(storage, int(offset), tuple(map(int, size)), tuple(map(int, stride)))


_NAMES = {
  ('collections', 'OrderedDict'): collections.OrderedDict,
  ('torch', 'Size'): tuple,
  ('torch._utils', '_rebuild_tensor'): _tensor,
  ('torch._utils', '_rebuild_tensor_v2'): _tensor,
  ('torch._utils', '_rebuild_parameter'): lambda data, *_: data,
  ('torch.storage', 'UntypedStorage'): np.dtype(np.uint8),
  ('torch.storage', 'TypedStorage'): np.dtype(np.uint8),
  **{('torch', name): dtype for name, dtype in _STORAGES.items()},
}


class _Unpickler(pickle.Unpickler):
  """Knows the names of `_NAMES` and no other; collects the storages that it meets."""

  def __init__(self, file: IO[bytes]):
    super().__init__(file, encoding='utf-8')
    self.storages: dict[str, Storage] = {}

  def find_class(self, module: str, name: str) -> object:
    if (module, name) not in _NAMES:
      raise BadInput(f'it asks for {module}.{name}, which is not part of a tensor: refused')
    return _NAMES[module, name]

  def persistent_load(self, pid: Sequence[PyTree]) -> Storage:
    kind, dtype, key, _, count, *view = pid
    if kind != 'storage' or not isinstance(dtype, np.dtype):
      raise BadInput(f'it holds a stored {kind!r}, which is not a tensor: refused')
    if view and view[0] is not None:
      raise BadInput('it holds views of storages (PyTorch before 0.4): save it again')
    return self.storages.setdefault(str(key), Storage(str(key), dtype, int(count)))


def read(path: pathlib.Path) -> PyTree:
  """What a .pth file holds, with arrays for its tensors.

  Returns:
    Plain containers; mappings become dicts, sequences lists; bfloat16 as ml_dtypes' type.

  Raises:
    BadInput: it asks for anything that is not a tensor.
    Exception: of whatever kind a damaged file causes; weights.read turns it into BadInput.
  """
  content, byte_order = (_read_zip if zipfile.is_zipfile(path) else _read_legacy)(path)
  return _with_arrays(content, byte_order)


def _read_zip(path: pathlib.Path) -> tuple[PyTree, ByteOrder]:
  with zipfile.ZipFile(path) as archive:
    pickles = [n for n in archive.namelist() if n == 'data.pkl' or n.endswith('/data.pkl')]
    if len(pickles) != 1:
      raise BadInput('it is an archive without a data.pkl: not a PyTorch file')
    root = pickles[0].removesuffix('data.pkl')
    with archive.open(pickles[0]) as file:
      unpickler = _Unpickler(file)
      content = unpickler.load()
    for key, storage in unpickler.storages.items():
      storage.data = archive.read(f'{root}data/{key}')
    big = f'{root}byteorder' in archive.namelist() and archive.read(f'{root}byteorder') == b'big'
  return content, '>' if big else '<'


def _read_legacy(path: pathlib.Path) -> tuple[PyTree, ByteOrder]:
  with open(path, 'rb') as file:
    if _Unpickler(file).load() != LEGACY_MAGIC:
      raise BadInput('it does not start as a PyTorch file does')
    _Unpickler(file).load()  # The version of the format: there has been one.
    machine = _Unpickler(file).load()
    unpickler = _Unpickler(file)
    content = unpickler.load()
    for key in _Unpickler(file).load():
      storage = unpickler.storages[str(key)]
      if struct.unpack('<q', file.read(8)) != (storage.count,):
        raise ValueError('a storage does not have the announced length')
      storage.data = file.read(storage.count * storage.dtype.itemsize)
  return content, '<' if machine.get('little_endian', True) else '>'


def _with_arrays(content: PyTree, byte_order: ByteOrder) -> PyTree:
  if isinstance(content, Tensor):
    return content.array(byte_order)
  if isinstance(content, dict):
    return {k: _with_arrays(v, byte_order) for k, v in content.items()}
  if isinstance(content, list | tuple):
    return [_with_arrays(v, byte_order) for v in content]
  return content


def write(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes a state dict that `torch.load(path, weights_only=True)` reads (zip format).

  Raises:
    BadInput: an array is of a type that PyTorch does not have.
  """
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as archive:
    archive.writestr('archive/data.pkl', _pickle(arrays))
    archive.writestr('archive/byteorder', 'little')
    for key, array in enumerate(arrays.values()):
      little = array.astype(array.dtype.newbyteorder('<'), copy=False)
      archive.writestr(f'archive/data/{key}', np.ascontiguousarray(little).tobytes())
    archive.writestr('archive/version', '3\n')


def _pickle(arrays: Mapping[str, np.ndarray]) -> bytes:
  """The pickle (protocol 2) of a dict of tensors, each with a storage of its own.

  Written opcode by opcode, because a pickler would have to import torch to name its functions.
  """
  out = [b'\x80\x02}(']  # protocol 2, an empty dict, a mark
  for key, (name, array) in enumerate(arrays.items()):
    storage = next((n for n, dtype in _STORAGES.items() if dtype == array.dtype), None)
    if storage is None:
      raise BadInput(f'{name}: PyTorch has no type for {array.dtype}')
    strides = [int(np.prod(array.shape[i + 1 :])) for i in range(array.ndim)]
    out += [
      _text(name),
      b'ctorch._utils\n_rebuild_tensor_v2\n(',
      # The storage, by a persistent id: ('storage', type, key, device, count).
      b'(' + _text('storage') + b'ctorch\n' + storage.encode() + b'\n' + _text(str(key)),
      _text('cpu') + _integer(array.size) + b'tQ',
      _integer(0) + _integers(array.shape) + _integers(strides),
      b'\x89ccollections\nOrderedDict\n)RtR',  # no gradient, no hooks; call the function
    ]
  return b''.join([*out, b'u.'])


def _text(text: str) -> bytes:
  data = text.encode()
  return b'X' + struct.pack('<I', len(data)) + data


def _integer(number: int) -> bytes:
  if number < 2**31:
    return b'J' + struct.pack('<i', number)
  return b'\x8a\x08' + struct.pack('<q', number)


def _integers(numbers: Iterable[int]) -> bytes:
  return b'(' + b''.join(map(_integer, numbers)) + b't'
