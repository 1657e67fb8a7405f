"""Reads and writes PyTorch's .pth files without PyTorch, and without running what is in them.

A .pth file is a pickle: instructions for a stack machine, which may name any object of this process
and call or change it. Here `_Machine` carries out those that build plain values. A name becomes a
`Name`, two words, and only those that rebuild tensors mean something. What another one would make,
such as the argparse.Namespace beside the weights, is an `Unknown`: nothing is looked up or called.
A tensor that depends on one is an `Unknown` too.

Two formats exist. Zip (since PyTorch 1.6): `NAME/data.pkl` is the pickle and `NAME/data/KEY` the
bytes of each storage. Legacy: three small pickles (a magic number, a version, facts about the
writer's machine), the pickle, the list of keys, then for each key a count and the bytes.

Whatever a file holds, reading it takes no more memory than `zip_file.check_budget` allows for what
it unpacks, as much for the arrays, about 300 MiB for `MOST` instructions, and five times the bytes
of its pickle: at most `LONGEST`, or the size of the file up to `LONGEST_OF_ALL`; and some seconds
besides the time to read its bytes.
"""

import dataclasses
import io
import math
import os
import pathlib
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

import ml_dtypes
import numpy as np

from data_pipelines.errors import BadInput
from diga_jax.types import PyTree
from diga_jax.weights import zip_file

ByteOrder = Literal['<', '>']
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LONGEST, LONGEST_OF_ALL = 2**24, 2**26  # bytes of a pickle: of any file, and of a large one
MOST = 2**20  # instructions of the pickles of a file
TEXT = 2**12  # bytes or letters; a longer one names no layer, and is not kept
MOST_SIDES = 32  # of a tensor

_TYPES = {
  **{'Float': np.float32, 'Double': np.float64, 'Half': np.float16, 'BFloat16': ml_dtypes.bfloat16},
  **{'Long': np.int64, 'Int': np.int32, 'Short': np.int16, 'Char': np.int8},
  **{'Byte': np.uint8, 'Bool': np.bool_},
}
_STORAGES = {f'{name}Storage': np.dtype(kind) for name, kind in _TYPES.items()}


class Name(NamedTuple):
  """An object that a pickle names. Nothing is looked up."""

  module: str
  name: str


@dataclasses.dataclass(eq=False)
class Unknown:
  """In place of what a pickle makes by a name that means nothing here.

  Attributes:
    name: that name.
    tensor: whether it would be a tensor.
  """

  name: str
  tensor: bool = False


@dataclasses.dataclass
class Storage:
  """A run of `count` numbers, shared by the tensors that view it. `data` comes after the pickle."""

  dtype: np.dtype
  count: int
  data: bytes = b''

  @property
  def nbytes(self) -> int:
    """The length of its data."""
    return self.count * self.dtype.itemsize

  def fill(self, data: bytes, order: ByteOrder) -> None:
    """Takes its bytes."""
    self.data, self.dtype = data, self.dtype.newbyteorder(order)


@dataclasses.dataclass
class Tensor:
  """A view of a storage, in elements; read by `array` once the storage has its bytes."""

  storage: Storage
  offset: int
  size: tuple[int, ...]
  stride: tuple[int, ...]

  @property
  def nbytes(self) -> int:
    """What its array will take."""
    return math.prod(self.size) * self.storage.dtype.itemsize

  def array(self) -> np.ndarray:
    """The numbers. Raises ValueError if the view leaves its storage."""
    dtype = self.storage.dtype
    if 0 in self.size:
      return np.zeros(self.size, dtype.newbyteorder('='))
    stored = np.frombuffer(self.storage.data, dtype, self.storage.count)
    last = self.offset + sum((n - 1) * s for n, s in zip(self.size, self.stride, strict=True))
    if last >= self.storage.count:
      raise ValueError('a tensor is larger than its storage')
    steps = [s * dtype.itemsize for s in self.stride]
    view = np.lib.stride_tricks.as_strided(stored[self.offset :], self.size, steps)
    return view.astype(dtype.newbyteorder('='))


def arrays(tensors: Mapping[str, Tensor], path: pathlib.Path) -> dict[str, np.ndarray]:
  """The numbers of the tensors of a file.

  Raises:
    BadInput: they repeat what is stored too often.
    ValueError: one leaves its storage.
  """
  zip_file.check_budget(path, sum(tensor.nbytes for tensor in tensors.values()))
  return {name: tensor.array() for name, tensor in tensors.items()}


# What a pickle may call.


def _tensor(
  storage: PyTree,
  offset: PyTree,
  size: PyTree,
  stride: PyTree,
  _grad: PyTree = None,
  _hooks: PyTree = None,
  metadata: PyTree = None,
) -> Tensor | Unknown:
  numbers = (offset, *_sides(size), *_sides(stride))
  if unknown := next((x for x in (storage, *numbers) if isinstance(x, Unknown)), None):
    return Unknown(unknown.name, tensor=True)
  if not isinstance(storage, Storage) or len(size) != len(stride):
    raise ValueError('a tensor without a storage or a shape')
  if not all(type(n) is int and 0 <= n < 2**62 for n in numbers):
    raise ValueError('a tensor has an impossible shape')
  if metadata:  # such as a bit that turns its sign
    raise BadInput('it holds a tensor that is not as it is stored: save a plain copy of it')
  return Tensor(storage, offset, _sides(size), _sides(stride))


def _sides(sides: PyTree) -> tuple[PyTree, ...]:
  if not isinstance(sides, tuple | list) or len(sides) > MOST_SIDES:
    raise ValueError('a tensor without a shape')
  return tuple(sides)


def _with_attributes(
  function: PyTree, kind: PyTree, arguments: PyTree, *_attributes: PyTree
) -> Tensor | Unknown:
  """A tensor with attributes, which are left out; of a class that may mean more it is unknown."""
  plain = isinstance(function, Name) and function in _REBUILD and kind in _TENSORS
  if not plain or type(arguments) is not tuple:
    return Unknown(words_of(kind), tensor=True)
  return _REBUILD[function](*arguments)


def words_of(value: PyTree) -> str:
  """What a value is, in a word: the name of an object, or a type."""
  match value:
    case Name(module, name):
      return f'{module}.{name}'
    case Unknown():
      return value.name
    case _:
      return type(value).__name__


_TENSORS = (
  Name('torch', 'Tensor'), Name('torch.nn.parameter', 'Parameter'),
  Name('torch.nn.parameter', 'Buffer'),
)  # fmt: skip
_REBUILD: dict[Name, Callable[..., Tensor | Unknown]] = {
  Name('torch._utils', '_rebuild_tensor'): _tensor,
  Name('torch._utils', '_rebuild_tensor_v2'): _tensor,
  Name('torch._utils', '_rebuild_parameter'): lambda data, *_: data,
  Name('torch._utils', '_rebuild_parameter_with_state'): lambda data, *_: data,
}
_MAKE_TENSORS = ('torch._utils', 'torch._tensor')  # modules that hold nothing else to call
ORDERED_DICT = Name('collections', 'OrderedDict')
DICTS = (ORDERED_DICT, Name('collections', 'defaultdict'))
_CALLS: dict[Name, Callable[..., PyTree]] = {
  Name('torch', 'Size'): _sides,
  Name('torch._tensor', '_rebuild_from_type_v2'): _with_attributes,
  **_REBUILD,
}
_DTYPES = {
  **{Name('torch.storage', f'{kind}Storage'): np.dtype(np.uint8) for kind in ('Untyped', 'Typed')},
  **{Name('torch', name): dtype for name, dtype in _STORAGES.items()},
}


class _Machine:
  """The stack machine that a pickle is a program of; collects the storages that it meets."""

  def __init__(self) -> None:
    self.storages: dict[str, Storage] = {}
    self.instructions = 0

  def run(self, stream: io.BytesIO) -> PyTree:
    """What the next pickle of a stream builds."""
    self.stack: list[PyTree] = []
    self.marks: list[int] = []
    self.memo: dict[int, PyTree] = {}
    for opcode, argument, _ in pickletools.genops(stream):
      length = len(argument) if isinstance(argument, str | bytes | bytearray) else 0
      self.spend(1 + min(length, TEXT) // 16)
      if opcode.name in _CONSTANTS:
        self.stack.append(_CONSTANTS[opcode.name])
      elif opcode.name in _ARGUMENTS:
        self.stack.append(argument if length <= TEXT else Unknown('a long text'))
      elif opcode.name in _INSTRUCTIONS:
        _INSTRUCTIONS[opcode.name](self, argument)
      else:
        raise BadInput(
          f'its pickle has the instruction {opcode.name}, which no tensor needs: refused'
        )
    return self.stack.pop()

  def spend(self, count: int) -> None:
    """Counts work; raises BadInput once it is too much."""
    self.instructions += count
    if self.instructions > MOST:
      raise BadInput(f'its pickle has more than {MOST} instructions: refused')

  def since_mark(self) -> list[PyTree]:
    """Takes what lies above the last mark."""
    mark = self.marks.pop()
    values = self.stack[mark:]
    del self.stack[mark:]
    return values

  def take(self, count: int) -> list[PyTree]:
    """Takes the last `count` values."""
    if count > len(self.stack):
      raise ValueError('its pickle takes more than there is')
    values = self.stack[-count:]
    del self.stack[-count:]
    return values

  def name(self, module: PyTree, name: PyTree) -> None:
    """Pushes a name, whatever it is."""
    if not (isinstance(module, str) and isinstance(name, str)):
      raise ValueError('a name that is no text')
    if len(module) + len(name) > 300:
      raise ValueError('a name that is too long')
    self.stack.append(Name(module, name))

  def call(self) -> None:
    """Replaces a name and its arguments by what it makes of them."""
    function, arguments = self.take(2)
    if isinstance(arguments, Unknown) or not isinstance(function, Name | Unknown):
      self.stack.append(Unknown(words_of(function)))
      return
    if type(arguments) is not tuple:
      raise ValueError('a call without arguments')
    if function in DICTS:
      self.stack.append({})
      if function == ORDERED_DICT and arguments:  # with all that is in it, as Python 2 wrote it
        self.set_pairs(arguments[0])
    elif isinstance(function, Name) and function in _CALLS and len(arguments) <= MOST_SIDES:
      self.stack.append(_CALLS[function](*arguments))
    else:
      makes_tensors = isinstance(function, Name) and function.module in _MAKE_TENSORS
      self.stack.append(Unknown(words_of(function), makes_tensors))

  def set_pairs(self, pairs: PyTree) -> None:
    """Pairs of a key and a value into the dict below."""
    for pair in pairs if type(pairs) in (list, tuple) else ():
      self.spend(1)
      self.set_items(pair)

  def make(self) -> None:
    """Replaces what lies above the last mark, a class and its arguments, by an unknown object."""
    values = self.since_mark()
    self.stack.append(Unknown(words_of(values[0] if values else None)))

  def set_items(self, values: list[PyTree]) -> None:
    """Keys and values in turn into the dict below; only keys that a state dict may have."""
    if isinstance(self.stack[-1], Unknown):
      return
    if not isinstance(self.stack[-1], dict):
      raise ValueError('entries of what is no dict')
    if not isinstance(values, list | tuple) or len(values) % 2:
      raise ValueError('entries without a value')
    self.spend(len(values))
    for key, value in zip(values[::2], values[1::2], strict=True):
      if isinstance(key, str) or (type(key) is int and abs(key) < 2**31):
        self.stack[-1][key] = value

  def extend(self, values: list[PyTree]) -> None:
    """Values onto the list below."""
    if isinstance(self.stack[-1], Unknown):
      return
    if not isinstance(self.stack[-1], list):
      raise ValueError('values of what is no list')
    self.stack[-1].extend(values)

  def storage(self) -> None:
    """Replaces the persistent id of a storage by the storage."""
    pid = self.take(1)[0]
    if type(pid) is not tuple or not 4 <= len(pid) <= 6 or pid[0] not in ('module', 'storage'):
      raise BadInput('it refers to something that is no storage of a tensor: refused')
    if pid[0] == 'module':  # a class with its source, of a network that was pickled whole
      self.stack.append(Unknown(words_of(pid[1])))
      return
    kind, key, count, view = pid[1], pid[2], pid[4], pid[5:]
    if view and view[0] is not None:
      raise BadInput('it holds views of storages (PyTorch before 0.4): save it again')
    if isinstance(kind, Name | Unknown) and kind not in _DTYPES:  # complex or quantised numbers
      self.stack.append(Unknown(words_of(kind)))
      return
    if not isinstance(kind, Name) or not isinstance(key, str | int):
      raise ValueError('a storage without a type or a key')
    if type(count) is not int or count < 0:
      raise ValueError('a storage without a length')
    stored = Storage(_DTYPES[kind], count)
    if self.storages.setdefault(str(key), stored) != stored:
      raise ValueError('a storage of two types or lengths')
    self.stack.append(self.storages[str(key)])

  def push(self, value: PyTree) -> None:
    """Puts a value on top."""
    self.stack.append(value)

  def keep(self, number: int | None) -> None:
    """Remembers the last value under a number, or the next one."""
    self.memo[len(self.memo) if number is None else number] = self.stack[-1]

  def recall(self, number: int) -> None:
    """Pushes what was kept under a number."""
    if number not in self.memo:
      raise ValueError('its pickle asks for what it has not kept')
    self.stack.append(self.memo[number])


_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False, 'EMPTY_TUPLE': ()}
# Those that push their own argument.
_ARGUMENTS = (
  'INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT', 'STRING',
  'BINSTRING', 'SHORT_BINSTRING', 'BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8', 'UNICODE',
  'SHORT_BINUNICODE', 'BINUNICODE', 'BINUNICODE8', 'BYTEARRAY8',
)  # fmt: skip
# (machine, the instruction's argument) -> nothing.
_INSTRUCTIONS: dict[str, Callable[[_Machine, PyTree], object]] = {
  **dict.fromkeys(('PROTO', 'FRAME', 'STOP'), lambda machine, _: None),
  'EMPTY_LIST': lambda machine, _: machine.push([]),
  'EMPTY_DICT': lambda machine, _: machine.push({}),
  'EMPTY_SET': lambda machine, _: machine.push(Unknown('set')),
  'FROZENSET': lambda machine, _: (machine.since_mark(), machine.push(Unknown('frozenset'))),
  'ADDITEMS': lambda machine, _: machine.since_mark(),
  'MARK': lambda machine, _: machine.marks.append(len(machine.stack)),
  'POP': lambda machine, _: machine.take(1),
  'POP_MARK': lambda machine, _: machine.since_mark(),
  'DUP': lambda machine, _: machine.push(machine.stack[-1]),
  'TUPLE': lambda machine, _: machine.push(tuple(machine.since_mark())),
  'TUPLE1': lambda machine, _: machine.push(tuple(machine.take(1))),
  'TUPLE2': lambda machine, _: machine.push(tuple(machine.take(2))),
  'TUPLE3': lambda machine, _: machine.push(tuple(machine.take(3))),
  'LIST': lambda machine, _: machine.push(machine.since_mark()),
  'APPEND': lambda machine, _: machine.extend(machine.take(1)),
  'APPENDS': lambda machine, _: machine.extend(machine.since_mark()),
  'SETITEM': lambda machine, _: machine.set_items(machine.take(2)),
  'SETITEMS': lambda machine, _: machine.set_items(machine.since_mark()),
  **dict.fromkeys(('PUT', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE'), _Machine.keep),
  **dict.fromkeys(('GET', 'BINGET', 'LONG_BINGET'), _Machine.recall),
  'GLOBAL': lambda machine, words: machine.name(*words.split(' ', 1)),
  'STACK_GLOBAL': lambda machine, _: machine.name(*machine.take(2)),
  'REDUCE': lambda machine, _: machine.call(),
  'NEWOBJ': lambda machine, _: machine.call(),
  'NEWOBJ_EX': lambda machine, _: (machine.take(1), machine.call()),
  'OBJ': lambda machine, _: machine.make(),
  'INST': lambda machine, words: (
    machine.since_mark(),
    machine.push(Unknown('.'.join(words.split(' ', 1)))),
  ),
  'BUILD': lambda machine, _: machine.take(1),  # attributes, which nothing here has
  'BINPERSID': lambda machine, _: machine.storage(),
}


def read(path: pathlib.Path) -> PyTree:
  """What a .pth file holds: plain containers, and `Tensor`s that have their bytes (`arrays`).

  Mappings become dicts, of the entries under texts and whole numbers; other objects are `Unknown`.

  Raises:
    BadInput: it is larger than any file of weights, or has instructions that no object needs.
    Exception: of whatever kind a damaged file causes; weights.read turns it into BadInput.
  """
  return (_read_zip if zipfile.is_zipfile(path) else _read_legacy)(path)


def _longest(path: pathlib.Path) -> int:
  """The bytes that the pickle of a file may have; its history of losses may be a part of it."""
  return max(LONGEST, min(path.stat().st_size, LONGEST_OF_ALL))


def _read_zip(path: pathlib.Path) -> PyTree:
  with zip_file.opened(path) as archive:
    pickles = [n for n in archive.namelist() if n == 'data.pkl' or n.endswith('/data.pkl')]
    if len(pickles) != 1:
      raise BadInput('it is an archive without a data.pkl: not a PyTorch file')
    root, machine = pickles[0].removesuffix('data.pkl'), _Machine()
    content = machine.run(io.BytesIO(zip_file.read(archive, pickles[0], _longest(path))))
    order = f'{root}byteorder'
    big = order in archive.namelist() and zip_file.read(archive, order) == b'big'
    for key, storage in machine.storages.items():
      storage.fill(zip_file.read(archive, f'{root}data/{key}'), '>' if big else '<')
  return content


def _read_legacy(path: pathlib.Path) -> PyTree:
  with open(path, 'rb') as file:
    stream, machine = io.BytesIO(file.read(_longest(path))), _Machine()
    if (first := machine.run(stream)) != LEGACY_MAGIC:
      raise BadInput(
        f"it is a plain pickle ({words_of(first)}), not one of PyTorch's: save it by torch.save"
      )
    machine.run(stream)  # The version of the format: there has been one.
    facts, content, keys = (machine.run(stream) for _ in range(3))
    order = '<' if facts.get('little_endian', True) else '>'
    file.seek(stream.tell())
    size, left = os.fstat(file.fileno()).st_size, dict(machine.storages)
    for key in keys:
      if not isinstance(key, str):  # hashing what else there may be has no bound
        raise ValueError('a storage without a key')
      if key not in left:
        raise BadInput('it holds numbers of a type that no weights have (complex or quantised)')
      storage = left.pop(key)
      if struct.unpack('<q', file.read(8)) != (storage.count,):
        raise ValueError('a storage does not have the announced length')
      if storage.nbytes > size - file.tell():
        raise ValueError('the file has lost its end')
      storage.fill(file.read(storage.nbytes), order)
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
