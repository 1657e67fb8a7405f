"""Writes files as PyTorch does, with the objects that training codes put beside the tensors."""

import io
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Mapping

import numpy as np

from diga_jax.weights import torch_file

STORAGE = 'storage'  # first word of a reference to one
_STORAGES = {'float32': 'FloatStorage', 'int64': 'LongStorage', 'float16': 'HalfStorage'}


class Global:
  """Pickles as the global `module.name`, called with `args` where there are any, and changed."""

  def __init__(self, module: str, name: str, *args, state=None):
    self.call, self.state = (module, name, args), state


class Pickler(pickle._Pickler):
  """Writes Global as a call of a named global, arrays as tensors, and storages by reference."""

  def __init__(self, file, protocol: int = 2):
    super().__init__(file, protocol)
    self.storages: dict[str, np.ndarray] = {}

  def save_global_call(self, obj: Global) -> None:
    module, name, args = obj.call
    self.write(b'c' + f'{module}\n{name}\n'.encode())
    if args:
      self.save(args)
      self.write(b'R')
    if obj.state is not None:
      self.save(obj.state)
      self.write(b'b')
    self.memoize(obj)

  def save_array(self, array: np.ndarray) -> None:
    key = str(len(self.storages))
    self.storages[key] = array
    strides = tuple(int(np.prod(array.shape[i + 1 :])) for i in range(array.ndim))
    kind = Global('torch', _STORAGES[array.dtype.name])
    storage = (STORAGE, kind, key, 'cuda:0', array.size)
    hooks = Global('collections', 'OrderedDict', ())
    self.save_global_call(
      Global('torch._utils', '_rebuild_tensor_v2', storage, 0, array.shape, strides, False, hooks)
    )

  dispatch = pickle._Pickler.dispatch | {Global: save_global_call, np.ndarray: save_array}

  def persistent_id(self, obj):
    return obj if type(obj) is tuple and obj and obj[0] is STORAGE else None


def pickled(content) -> bytes:
  file = io.BytesIO()
  Pickler(file).dump(content)
  return file.getvalue()


def save(path: pathlib.Path, content, *, legacy: bool = False) -> pathlib.Path:
  """Writes nested containers of arrays and Globals; returns the path."""
  file = io.BytesIO()
  pickler = Pickler(file)
  pickler.dump(content)
  if legacy:
    head = [torch_file.LEGACY_MAGIC, 1001, {'little_endian': True}]
    parts = [pickled(part) for part in head] + [file.getvalue(), pickled(list(pickler.storages))]
    parts += [struct.pack('<q', a.size) + a.tobytes() for a in pickler.storages.values()]
    path.write_bytes(b''.join(parts))
    return path
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/data.pkl', file.getvalue())
    for key, array in pickler.storages.items():
      archive.writestr(f'archive/data/{key}', array.tobytes())
  return path


# What stands beside the tensors.


def numpy_scalar(value: float) -> Global:
  dtype = Global('numpy', 'dtype', 'f8', False, True, state=(3, '<', None, None, None, -1, -1, 0))
  return Global('numpy.core.multiarray', 'scalar', dtype, struct.pack('<d', value))


def numpy_array(count: int) -> Global:
  """As protocol 2 writes it: its bytes are a text of as many letters."""
  data = Global('_codecs', 'encode', '\0\xff' * 4 * count, 'latin1')
  dtype = Global('numpy', 'dtype', 'f8', False, True)
  empty = Global('numpy.core.multiarray', '_reconstruct', Global('numpy', 'ndarray'), (0,), b'b')
  empty.state = (1, (count,), dtype, False, data)
  return empty


def instance(module: str, name: str, **attributes) -> Global:
  """An object as protocol 2 writes it before Python 3.13, and a plain class."""
  new = Global(
    'copy_reg', '_reconstructor', Global(module, name), Global('builtins', 'object'), None
  )
  new.state = attributes
  return new


def objects() -> Mapping[str, object]:
  """Every kind of object that is known from such files."""
  buffer = {'_log_history': numpy_array(9), '_count_history': numpy_array(9), 'max_length': 10**6}
  return {
    'args': instance('argparse', 'Namespace', arch='resnet101', lr=0.1),
    'previous_best': numpy_scalar(71.5),
    'history': numpy_array(2000),
    'message_hub': {
      'log_scalars': {
        'train/loss': instance('mmengine.logging.history_buffer', 'HistoryBuffer', **buffer)
      },
      'runtime_info': {'cfg': 'model = dict()\n' * 1000},
    },
    'path': Global('pathlib', 'PosixPath', '/', 'work', 'runs'),
    'dtype': Global('torch', 'float32'),
    'device': Global('torch', 'device', 'cuda', 0),
    'classes': Global('__builtin__', 'set', ['road', 'sky']),
    'losses': Global('collections', 'defaultdict', Global('__builtin__', 'list')),
    'config': Global('mmengine.config.config', 'ConfigDict', (), state={'a': 1}),
    'hparams': Global('omegaconf.dictconfig', 'DictConfig', state={'_content': {}}),
    'seed': {('a', 1): 2, 0: 1},
  }
