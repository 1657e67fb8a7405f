"""config.json of a folder for the Hugging Face Hub: what of a config its network needs.

`describe` makes it, `read` makes a config of it again. The fields 'model', 'data' and 'inference'
are those of a config; the others are for readers and for PyTorch.
"""

import inspect
import json
import pathlib
from collections.abc import Mapping

from ml_collections import ConfigDict

from data_pipelines import digests, records
from data_pipelines.errors import BadInput
from diga_jax import pixels
from diga_jax.config import check, config_file, read_config
from diga_jax.recipe.experiment import Experiment, class_names, palette
from diga_jax.types import PyTree

NAME, WEIGHTS = 'config.json', 'model.safetensors'
LIBRARY, VERSION = 'diga_jax', 1  # of what the file holds
LONGEST = 2**24  # bytes
# Attributes of a network that are no options of the config.
COMMON = ('classes', 'dtype', 'precision', 'remat', 'axis_name', 'parent', 'name')
FIELDS = {
  'data': ('classes', 'names', 'class_names', 'palette'),
  'inference': ('scales', 'flip', 'network'),
}


def describe(experiment: Experiment) -> dict[str, PyTree]:
  """What a network of this config is and how it is applied, JSON-able.

  All options of the network are there, those too that the config leaves at their defaults.
  """
  config, model = experiment.config, experiment.model
  names, colours = class_names(experiment), palette(experiment).tolist()
  options = {name: getattr(model, name) for name in inspect.signature(type(model)).parameters}
  settings = {'data': config.data, 'inference': config.evaluation}
  found = {group: {k: settings[group][k] for k in keys} for group, keys in FIELDS.items()}
  return {
    'library_name': LIBRARY,
    'version': VERSION,
    'architecture': type(model).__name__,
    'model': {
      'name': config.model.name,
      'dtype': config.model.dtype,
      'precision': config.model.precision,
      'options': {k: value for k, value in options.items() if k not in COMMON},
    },
    **found,
    'classes': [
      {'id': i, 'name': name, 'colour': colour}
      for i, (name, colour) in enumerate(zip(names, colours, strict=False))
    ],
    'id2label': dict(enumerate(names)),
    'label2id': {name: i for i, name in enumerate(names)},
    'normalization': {
      'input': 'RGB, 0 to 255',
      'channels': 'BGR',
      'mean': pixels.MEAN_BGR,
      'divided_by': pixels.SCALE,
    },
    'output': {
      'logits': '[B, classes, H, W], float32, at the size of the images',
      'fusion': 'the largest logit over the scales',
      'resizing': 'bilinear, corners aligned',
      'ignored': 255,
    },
  }


def read(folder: pathlib.Path) -> ConfigDict | None:
  """The config of a network in a folder that `describe` was written to; None for another folder.

  Raises:
    BadInput: the file is damaged or of another version, or the weights beside it are others.
  """
  path, redo = folder / NAME, 'fetch it again'
  content = content_of(folder, redo)
  if not content:
    return None
  if content.get('version') != VERSION:
    raise BadInput(
      f'{path}: is of version {content.get("version")!r}, and this package reads {VERSION}: use '
      'the version of the package that wrote it'
    )
  try:
    config = _config(content)
    wanted = content['files'][WEIGHTS]
  except BadInput as error:
    raise BadInput(f'{path}: {error}') from None
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise BadInput(f'{path}: is damaged ({type(error).__name__}): {redo}') from None
  if not (folder / WEIGHTS).is_file() or digests.of_file(folder / WEIGHTS) != wanted:
    raise BadInput(f'{folder / WEIGHTS}: is not what {NAME} was written with: fetch both again')
  return config


def content_of(folder: pathlib.Path, redo: str) -> dict[str, PyTree]:
  """What the file of a folder holds; {} where there is none, or one of another library.

  Raises:
    BadInput: it is not as it was written; `redo` says what to do.
  """
  path = folder / NAME
  if not path.is_file():
    return {}
  try:
    if path.stat().st_size > LONGEST:
      raise ValueError
    content = json.loads(path.read_text(encoding='utf-8'))
  except (ValueError, RecursionError):
    raise BadInput(f'{path}: is damaged: it is no JSON: {redo}') from None
  if not isinstance(content, dict) or content.get('library_name') != LIBRARY:
    return {}
  return records.read(path, redo)


def _config(content: Mapping[str, PyTree]) -> ConfigDict:
  config = read_config([f'--config={config_file("default")}'])
  model, data, used = content['model'], content['data'], content['inference']
  with config.ignore_type():
    for key in ('name', 'dtype', 'precision'):
      config.model[key] = model[key]
    config.model.options = ConfigDict({k: with_tuples(v) for k, v in model['options'].items()})
    for key in FIELDS['data']:
      config.data[key] = with_tuples(data[key])
    for key in FIELDS['inference']:
      config.evaluation[key] = with_tuples(used[key])
  check(config)
  return config


def with_tuples(value: PyTree) -> PyTree:
  """What JSON has made lists of, as it was."""
  return tuple(map(with_tuples, value)) if isinstance(value, list) else value
