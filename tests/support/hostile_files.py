"""Files of weights that are damaged or made to do harm, and a process that reads them.

`python -m tests.support.hostile_files bombs` and `... fuzz COUNT` read them under a limit of memory
and end with status 0 if every one is loaded or refused in one line, in time.
"""

import io
import json
import pathlib
import pickle
import resource
import struct
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable

import ml_dtypes
import numpy as np
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipelines.errors import BadInput
from diga_jax import weights
from diga_jax.weights import torch_file, zip_file

MEMORY = 600 * 2**20  # more than reading may take: zip_file.MORE twice, and 300 MiB for a pickle
SECONDS = 20.0  # of this process
FLOATS = b'\0\0\x80?\0\0\0@'  # 1 and 2
DATA = pathlib.Path(__file__).parents[1] / 'weights' / 'data'

# Files of a pickle.


def zipped(pickled: bytes, **entries: bytes) -> bytes:
  """A file of PyTorch's newer format."""
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, 'w') as archive:
    archive.writestr('x/data.pkl', pickled)
    for name, data in {'0': FLOATS, **entries}.items():
      archive.writestr(f'x/data/{name}', data)
  return stream.getvalue()


def legacy(pickled: bytes, count: int = 2, data: bytes = FLOATS, keys: bytes = b'') -> bytes:
  """A file of PyTorch's older format."""
  head = (torch_file.LEGACY_MAGIC, 1001, {'little_endian': True})
  parts = [pickle.dumps(part, protocol=2) for part in head]
  keys = keys or pickle.dumps(['0'], protocol=2)
  return b''.join([*parts, pickled, keys, struct.pack('<q', count), data])


def named(module: str, name: str) -> bytes:
  return b'c' + f'{module}\n{name}\n'.encode()


def storage(kind: bytes = named('torch', 'FloatStorage'), count: bytes = b'K\x02') -> bytes:
  return b'(X\x07\0\0\0storage' + kind + b'X\x01\0\0\x000X\x03\0\0\0cpu' + count + b'tQ'


def tensor(
  stored: bytes = storage(), size: bytes = b'(K\x02t', stride: bytes = b'(K\x01t'
) -> bytes:
  rebuild = named('torch._utils', '_rebuild_tensor_v2')
  return rebuild + b'(' + stored + b'K\0' + size + stride + b'\x89}tR'


def dictionary(value: bytes, before: bytes = b'') -> bytes:
  """The pickle of {'w': value}; `before` leaves something below it."""
  return b'\x80\x02' + before + b'}X\x01\0\0\0w' + value + b's.'


def ten_bytes_long(number: int) -> bytes:
  return b'\x8a\x09' + number.to_bytes(9, 'little', signed=True)


BFLOAT = named('torch', 'BFloat16Storage')
ORDERED = named('collections', 'OrderedDict')
STATE = b'(K\x03X\x01\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0t'  # of numpy.dtype
DEEP = 150_000  # hashing such a tuple ends the process
PICKLES = {
  'a changed type': dictionary(tensor(storage(BFLOAT)), BFLOAT + STATE + b'b'),
  'a changed class': dictionary(tensor(), ORDERED + b'}X\x01\0\0\0xK\x01sb'),
  'a memo of 2^28': dictionary(tensor(), b'Nr\0\0\0\x10'),
  'a memo of 2^32 - 1': dictionary(tensor(), b'Nr\xff\xff\xff\xff'),
  'deep lists': dictionary(tensor(), b']' * DEEP + b'a' * (DEEP - 1)),
  'deep tuples': dictionary(tensor(), b')' + b'\x85' * DEEP),
  'a deep tuple as a key': b'\x80\x02})' + b'\x85' * DEEP + tensor() + b's.',
  'a deep tuple as a storage': dictionary(b')' + b'\x85' * DEEP + b'Q'),
  'doubled lists': dictionary(b']' + b'(22t' * 40 + b'0' * 39),
  'doubled pairs': b'\x80\x02' + b')' + b'2\x86' * 60 + b'.',
  'doubled wrappers': b'\x80\x02}q\0X\x0a\0\0\0state_dicth\0s.',
  'a copied list': dictionary(tensor(), b'](' + b'N' * 10**5 + b'eq\0' + (
    named('torch', 'Size') + b'(h\0tR0') * 10**5),
  'copied pairs': dictionary(
    tensor(), b'](' + b']' * 10**5 + b'eq\0' + (ORDERED + b'(h\0tR0') * 10**5),
  'copied arguments': dictionary(
    tensor(), b'(' + b'N' * 10**5 + b'tq\0' + (named('torch', 'Size') + b'h\0R0') * 10**5),
  'a long name': dictionary(named('x' * 10**6, 'y')),
  'a name of codes': dictionary(named('\1' * 1000, 'y')),
  'many lines': dictionary(b'X\x03\0\0\0a\nbX\x03\0\0\0c\nd\x93'),
  'a name of no text': dictionary(b'K\x01K\x02\x93'),
  'many dicts': b'\x80\x02' + b'}' * 2**20 + b'.',
  'a long pickle': b'\x80\x02' + b'N0' * 12 * 2**20 + b'.',
  'a long number': dictionary(b'\x8b' + struct.pack('<i', 10**6) + b'\1' * 10**6),
  'digits': dictionary(b'L' + b'9' * 10**6 + b'L\n'),
  'no text': dictionary(b'\x8d' + struct.pack('<Q', 2**62)),
  'no bytes': dictionary(b'\x8e' + struct.pack('<Q', 2**40)),
  'a repeated number': dictionary(
    tensor(size=b'(J\0\0\1\0J\0\0\1\0t', stride=b'(K\0K\0t')),
  'repeated often': b'\x80\x02}(' + b''.join(
    b'X\x04\0\0\0' + f'{i:04d}'.encode() + tensor(size=b'(J\0\0\0\1t', stride=b'(K\0t')
    for i in range(200)) + b'u.',
  'repeated and negative': b'\x80\x02}(' + b'X\1\0\0\0a' + tensor(
    size=b'(' + ten_bytes_long(-(2**60)) + b't') + b'X\1\0\0\0b' + tensor(
    size=b'(' + ten_bytes_long(2**40) + b't', stride=b'(K\0t') + b'u.',
  'a huge shape': dictionary(tensor(size=b'(' + ten_bytes_long(2**66) + b't')),
  'an empty huge shape': dictionary(
    tensor(size=b'(K\0' + ten_bytes_long(2**61) + b't', stride=b'(K\1K\1t')),
  'many sides': dictionary(tensor(size=b'(' + b'K\1' * 10**5 + b't', stride=b'(K\1t')),
  'a huge storage': dictionary(tensor(storage(count=ten_bytes_long(2**61)))),
  'a negative storage': dictionary(tensor(storage(count=b'J\xff\xff\xff\xff'))),
  'no storage': dictionary(tensor(b'N')),
  'a called tensor': dictionary(tensor() + b')R'),
  'an extension': dictionary(b'\x82\1'),
  'an instance': dictionary(b'(iposix\nsystem\n'),
  'unknown objects': dictionary(
    tensor(), (named('a', 'B') + b')R}b0') * 10**5),
  'unknown in unknown': dictionary(tensor(), named('a', 'B') + (b'\x85' + named('a', 'B') + b'2R')),
  'an unknown of all': dictionary(
    tensor(), named('a', 'B') + b'(' + (named('c', 'D') + b')R') * 10**5 + b'tR'),
  'changes of an unknown': dictionary(
    tensor(), named('a', 'B') + b')R' + b'](K\1K\2eb' + b'(K\1K\2u' + b'(K\1K\2e' + b'K\1a'),
  'a called unknown': dictionary(tensor(), named('a', 'B') + b')R' + b')R' * 10**5),
  'a set of all': dictionary(tensor(), b'\x8f(' + b'K\1' * 10**5 + b'\x90'),
  'a frozen set': dictionary(tensor(), b'(' + b'K\1' * 10**5 + b'\x91'),
  'an object with keywords': dictionary(tensor(), named('a', 'B') + b')}\x92'),
  'an old object': dictionary(tensor(), b'(' + named('a', 'B') + b'K\1o'),
  'a rebuilt deep tuple': dictionary(
    named('torch._tensor', '_rebuild_from_type_v2') + b'(' + b')' + b'\x85' * DEEP + b'NNNtR'),
  'a tensor of unknowns': dictionary(tensor(named('a', 'B') + b')R')),
  'a size of unknowns': dictionary(tensor(size=b'(' + named('a', 'B') + b')Rt')),
  'a dict of unknowns': dictionary(tensor(), ORDERED + b'(' + named('a', 'B') + b')RtR'),
  'pairs of a name': dictionary(tensor(), ORDERED + b'(' + named('a', 'B') + b'tR'),
  'a dict in itself': b'\x80\x02}q\0(' + b''.join(
    b'X\x04\0\0\0' + f'{i:04d}'.encode() + b'h\0' for i in range(9999)) + b'u.',
  'dicts of one dict': b'\x80\x02' + b'}q\0X\1\0\0\0w' + tensor() + b's0' + b''.join(
    b'}(' + b''.join(
      b'X\x04\0\0\0' + f'{i:04d}'.encode() + b'h' + bytes([level]) for i in range(2000)
    ) + b'uq' + bytes([level + 1]) + b'0' for level in range(2)) + b'h\2.',
  'a class with its source': dictionary(
    b'(X\x06\0\0\0module' + named('a', 'B') + b'NNtQ' + b')R'),
  'long texts': dictionary(
    tensor(), (b'X\0\0\x10\0' + '\U0001f600'.encode() + b'a' * (2**20 - 4)) * 12),
  'texts of one odd letter': dictionary(
    tensor(), (b'X\0\x10\0\0' + '\U0001f600'.encode() + b'a' * (2**12 - 4)) * 3500),
  'an empty stack': b'\x80\x02' + b'0' * 9 + b'.',
  'no mark': b'\x80\x02tttt.',
}  # fmt: skip


# Archives and others.


def archive(method: int = zipfile.ZIP_DEFLATED, **entries: bytes) -> bytes:
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, 'w', method) as file:
    for name, data in entries.items():
      file.writestr(name.replace('_', '.'), data)
  return stream.getvalue()


def npy(head: str, data: bytes = FLOATS) -> bytes:
  text = head.encode() + b'\n'
  return b'\x93NUMPY\1\0' + struct.pack('<H', len(text)) + text + data


def array(shape: str, data: bytes = FLOATS, kind: str = "'<f4'") -> bytes:
  return npy(f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}}}", data)


def packed_zeros(size: int) -> bytes:
  """DEFLATE of `size` zeros, a multiple of 2^20."""
  squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
  block = squeeze.compress(bytes(2**20)) + squeeze.flush(zlib.Z_FULL_FLUSH)
  return block * (size >> 20) + squeeze.flush()


def by_hand(name: str, packed: bytes, size: int, method: int = zipfile.ZIP_DEFLATED) -> bytes:
  """An archive of one entry that says it has `size` bytes."""
  facts = struct.pack('<4H3I', 0, method, 0, 0x21, 0, len(packed), size)
  lengths = struct.pack('<2H', len(name), 0)
  local = b'PK\3\4' + struct.pack('<H', 20) + facts + lengths + name.encode() + packed
  central = b'PK\1\2' + struct.pack('<2H', 20, 20) + facts + lengths + bytes(14) + name.encode()
  end = struct.pack('<4s4H2IH', b'PK\5\6', 0, 0, 1, 1, len(central), len(local), 0)
  return local + central + end


NPZ: dict[str, Callable[[], bytes]] = {
  'zeros': lambda: by_hand('a.npy', packed_zeros(2**31), 2**31),
  'understated zeros': lambda: by_hand('a.npy', packed_zeros(2**31), 100),
  'overstated zeros': lambda: by_hand('a.npy', FLOATS, 2**31, zipfile.ZIP_STORED),
  'zeros by LZMA': lambda: archive(zipfile.ZIP_LZMA, a_npy=bytes(10**6)),
  'zeros by bzip2': lambda: archive(zipfile.ZIP_BZIP2, a_npy=bytes(10**6)),
  'a huge shape': lambda: archive(a_npy=array(f'({10**12},)')),
  'a huge product': lambda: archive(a_npy=array(f'({2**32}, {2**32})')),
  'an empty huge one': lambda: archive(a_npy=array(f'(0, {2**62})', b'')),
  'a negative shape': lambda: archive(a_npy=array('(-1, -2)')),
  'no shape': lambda: archive(a_npy=array('2')),
  'objects': lambda: archive(a_npy=array('(1,)', pickle.dumps(print), "'|O'")),
  'records': lambda: archive(a_npy=array('(1,)', FLOATS, "[('a', '<f4'), ('b', '<f4')]")),
  'a wide type': lambda: archive(a_npy=array('(1,)', FLOATS, "'<U1000000000'")),
  'deep brackets': lambda: archive(a_npy=npy('(' * 9000)),
  'deep signs': lambda: archive(a_npy=npy('-' * 9000 + '1')),
  'a long head': lambda: archive(a_npy=npy(' ' * 60000 + "{'descr': '<f4'}")),
  'many entries': lambda: archive(**{f'{i}_npy': array('(2,)') for i in range(1000)}),
  'no array': lambda: archive(a_npy=b'hello'),
}
TENSORS: dict[str, Callable[[], bytes]] = {
  'a long head': lambda: struct.pack('<Q', 2**63) + b'{}',
  'a head of 90 MB': lambda: struct.pack('<Q', 90 * 10**6) + b'{}',
  'deep brackets': lambda: struct.pack('<Q', 10**6) + b'[' * 10**6,
  'offsets': lambda: _tensors({'a': entry([2**40])}),
  'overlap': lambda: _tensors({n: entry([2]) for n in 'ab'}),
  'a product': lambda: _tensors({'a': entry([2**32, 2**32])}),
  'another type': lambda: _tensors({'a': entry([8], 'F8_E4M3')}),
}  # fmt: skip


def entry(shape: list[int], kind: str = 'F32') -> dict:
  return {'dtype': kind, 'shape': shape, 'data_offsets': [0, 8]}


def _tensors(head: dict) -> bytes:
  text = json.dumps(head).encode()
  return struct.pack('<Q', len(text)) + text + FLOATS


def bombs() -> dict[str, Callable[[], bytes]]:
  """Name of a file -> what makes its bytes."""
  found: dict[str, Callable[[], bytes]] = {}
  for name, pickled in PICKLES.items():
    found[f'zip, {name}.pth'] = lambda pickled=pickled: zipped(pickled)
    if len(pickled) < 10**5:  # the others take a while, and the same machine reads them
      found[f'legacy, {name}.pth'] = lambda pickled=pickled: legacy(pickled)
  plain, keys = dictionary(tensor()), b'\x80\x02]' + b')' + b'\x85' * DEEP + b'a.'
  found |= {
    'legacy, a deep key.pth': lambda: legacy(plain, keys=keys),
    'legacy, keys twice.pth': lambda: legacy(plain, keys=pickle.dumps(['0', '0'], protocol=2)),
    'legacy, a long storage.pth': lambda: legacy(
      dictionary(tensor(storage(count=b'\x8a\x05\0\0\0\0\1'))), 2**32),
    'zip, a packed pickle.pth': lambda: by_hand('x/data.pkl', packed_zeros(2**31), 2**31),
    'zip, an understated pickle.pth': lambda: by_hand('x/data.pkl', packed_zeros(2**31), 100),
    'zip, a packed storage.pth': lambda: archive(
      **{'x/data_pkl': plain, 'x/data/0': bytes(2**27)}),
  }  # fmt: skip
  found |= {f'{name}.npz': make for name, make in NPZ.items()}
  return found | {f'{name}.safetensors': make for name, make in TENSORS.items()}


# Random files.

OPCODES = [bytes([code]) for code in b'()]}N\x88\x89tulaesb0122.RQ\x85\x86\x87\x81\x93\x94']
PIECES = [
  *OPCODES, named('torch', 'Size'), ORDERED, BFLOAT, named('torch', 'FloatStorage'),
  named('torch._utils', '_rebuild_tensor_v2'), named('torch._utils', '_rebuild_parameter'),
  named('posix', 'system'), named('a', 'B'), b')R', b'\x8f', b'\x90', b'\x92',
  b'X\x01\0\0\x000', b'X\x07\0\0\0storage', b'X\x03\0\0\0cpu', b'K\0',
  b'K\1', b'K\2', ten_bytes_long(2**40), ten_bytes_long(-1), b'h\0', b'h\1', b'q\0', b'q\1',
  b'r\0\0\0\x10', storage(), tensor(), tensor(storage(BFLOAT)), STATE, b'X\x01\0\0\0w', b'(', b'',
]  # fmt: skip
LISTS = st.lists(st.sampled_from(PIECES), max_size=40).map(b''.join)
NUMBERS = st.one_of(st.integers(-3, 9), st.integers(-(2**65), 2**65))


@st.composite
def edited(draw: st.DrawFn, content: bytes) -> bytes:
  """A file with a few bytes changed, taken out, put in or repeated, or its end cut off."""
  found = bytearray(content)
  for _ in range(draw(st.integers(1, 4))):
    at = draw(st.integers(0, max(len(found) - 1, 0)))
    length = draw(st.sampled_from([1, 1, 1, 2, 4, 8, 60]))
    match draw(st.sampled_from(['flip', 'set', 'cut', 'insert', 'repeat', 'end'])):
      case 'flip' if found:
        found[at] ^= 1 << draw(st.integers(0, 7))
      case 'set':
        found[at : at + length] = draw(st.binary(min_size=length, max_size=length))
      case 'cut':
        del found[at : at + length]
      case 'insert':
        found[at:at] = draw(st.sampled_from(PIECES))
      case 'repeat':
        found[at:at] = found[at : at + length] * draw(st.sampled_from([1, 3, 1000]))
      case 'end':
        del found[at:]
  return bytes(found)


def whole_files() -> list[tuple[str, bytes]]:
  """(ending, bytes) of sound files."""
  values = {'a.weight': np.arange(6, dtype='f').reshape(2, 3), 'n': np.array([3])}
  packed, plain = io.BytesIO(), io.BytesIO()
  np.savez_compressed(packed, **values)
  np.savez(plain, **values)
  return [
    ('.pth', (DATA / 'zip.pth').read_bytes()), ('.pth', (DATA / 'legacy.pth').read_bytes()),
    ('.npz', packed.getvalue()), ('.npz', plain.getvalue()),
    ('.safetensors', safetensors.numpy.save(values)),
  ]  # fmt: skip


def inner_pickle() -> bytes:
  with zipfile.ZipFile(DATA / 'zip.pth') as file:
    return file.read(next(name for name in file.namelist() if name.endswith('data.pkl')))


def files() -> st.SearchStrategy[tuple[str, bytes]]:
  """(ending, bytes): sound files damaged, and files put together from parts of such."""
  damaged = [edited(data).map(lambda d, e=ending: (e, d)) for ending, data in whole_files()]
  pickles = st.one_of(
    LISTS.map(lambda parts: b'\x80\x02' + parts + b'.'),
    LISTS.map(lambda parts: dictionary(tensor(), parts)),
    edited(inner_pickle()),
    edited(dictionary(tensor())),
  )
  shapes = st.lists(NUMBERS, max_size=4).map(lambda sides: f'({"".join(f"{n}, " for n in sides)})')
  kinds = st.sampled_from(
    ["'<f4'", "'>f8'", "'|O'", "'<U9'", "'|b1'", "'<V2'", "[('a', '<f4')]", '3']
  )
  arrays = st.builds(lambda s, k, d: array(s, d, k), shapes, kinds, st.binary(max_size=40))
  entries = st.fixed_dictionaries(
    {
      'dtype': st.sampled_from(['F32', 'F16', 'BF16', 'I64', 'F8_E4M3', 'U8', 'x']),
      'shape': st.lists(NUMBERS, max_size=4),
      'data_offsets': st.lists(st.sampled_from([0, 4, 8, 9, -1, 2**63]), min_size=1, max_size=3),
    }
  )
  heads = st.dictionaries(st.text(max_size=3), entries, max_size=3)
  return st.one_of(
    *damaged,
    pickles.map(lambda data: ('.pth', zipped(data))),
    pickles.map(lambda data: ('.pth', legacy(data))),
    arrays.map(lambda data: ('.npz', archive(a_npy=data))),
    heads.map(lambda head: ('.safetensors', _tensors(head))),
  )  # fmt: skip


# The process that reads them.


def check(path: pathlib.Path) -> str:
  """Reads a file, for no network and for one; what came of it without one."""
  check_for(path, WANTED)
  return check_for(path, None)


WANTED = {'w': (2,), 'a.weight': (2, 3), 'backbone.w': (2,)}


def check_for(path: pathlib.Path, wanted: dict[str, tuple[int, ...]] | None) -> str:
  """What comes of reading a file; AssertionError where it is neither loaded nor refused."""
  began = time.process_time()
  try:
    found = weights.find(str(path), wanted).arrays
    said = f'loaded {len(found)}'
    assert all(type(value) is np.ndarray for value in found.values())
    assert sum(value.nbytes for value in found.values()) <= 16 * path.stat().st_size + zip_file.MORE
  except BadInput as error:
    said = str(error)
    assert str(path) in said and '\n' not in said and len(said) < 600, said[:1000]
    assert 'MemoryError' not in said and 'allocate' not in said, said
  took = time.process_time() - began
  assert took < SECONDS, f'{path.name}: {took:.0f} s'
  kind = np.dtype(ml_dtypes.bfloat16)
  assert (kind.itemsize, kind.flags, kind.alignment) == KIND, 'bfloat16 has changed'
  return f'{took:.2f} s: {said}'


_BFLOAT = np.dtype(ml_dtypes.bfloat16)
KIND = _BFLOAT.itemsize, _BFLOAT.flags, _BFLOAT.alignment


def main(argv: list[str]) -> None:
  taken = int(pathlib.Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
  with tempfile.TemporaryDirectory() as folder:
    if argv[0] == 'bombs':
      for name, make in bombs().items():
        path = pathlib.Path(folder) / name
        path.write_bytes(make())
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))
        print(f'{name}: {check(path)[:200]}', flush=True)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        path.unlink()
      return

    @settings(
      max_examples=int(argv[1]),
      deadline=None,
      database=None,
      suppress_health_check=list(HealthCheck),
    )
    @given(files())
    def fuzz(file: tuple[str, bytes]) -> None:
      path = pathlib.Path(folder) / f'a{file[0]}'
      path.write_bytes(file[1])
      outcomes.append(check(path))

    outcomes: list[str] = []
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))
    fuzz()
    loaded = sum('loaded' in outcome for outcome in outcomes)
    print(f'{len(outcomes)} files, {loaded} loaded')


if __name__ == '__main__':
  main(sys.argv[1:])
