"""What a measurement was made from: the content of its passport (`storage.passport`)."""

import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Literal

from data_pipelines.folder import Folder
from diga_jax.config import config_file, flatten, read_config
from diga_jax.recipe.experiment import Experiment, Run, class_names, digest_memory, has_labels
from diga_jax.storage import run_record, stage_folder
from diga_jax.storage.stage_folder import stage_and_choice
from diga_jax.types import PyTree, Row

DIGESTS = ('input', 'images', 'files')  # groups of a stage's identity
# Of a row, what is no number for a table: counts, and what a passport says elsewhere.
NO_SCORES = (
  'kind', 'name', 'selector', 'protocol', 'confusion', 'per_class', 'images', 'pixels',
)  # fmt: skip


def describe(run: Run, name: str, key: str, row: Row, place: str) -> dict[str, PyTree]:
  """The passport of a measurement that is complete or about to be.

  Args:
    run, name, key: the stage that was measured, and the data set.
    row: what was measured.
    place: the measurement's folder in the working directory.

  Returns:
    'kind', 'name', 'scores' (fractions); 'protocol', what two numbers must agree in; 'made_from',
    the stage's network or labels: seed, steps, digests, `changed_fields`, and under which
    conditions it was made and measured (`run_record.conditions`, {} where nobody noted them).
  """
  stage, step = stage_and_choice(name)[0], row['protocol']['step']
  return {
    'kind': row['kind'],
    'name': name,
    'scores': {field: value for field, value in row.items() if field not in NO_SCORES},
    'protocol': _protocol(run, key, row),
    'made_from': {
      'seed': row['protocol']['seed'],
      **origin(run.workdir, stage, step, row['kind']),
      'measured_under': run_record.conditions_of(run.workdir, place),
    },
  }


def origin(
  workdir: pathlib.Path, stage: str, step: int | None, kind: Literal['network', 'labels']
) -> dict[str, PyTree]:
  """What the network at a step of a complete stage, or its labels, were made from.

  'step', 'steps', 'stage' (hash of its identity), 'inputs', 'data_sha256', 'weight_files_sha256',
  KIND_sha256, 'warnings', 'config' (`changed_fields`), 'made_under' (`run_record.conditions`).
  """
  made = stage_folder.read_record(workdir / stage)
  return {
    'step': step,
    'steps': made['result'].get('steps'),
    'stage': stage_folder.hash_of(made['identity']),
    'inputs': _group(made['identity'], 'input'),
    'data_sha256': _group(made['identity'], 'images'),
    'weight_files_sha256': _group(made['identity'], 'files'),
    f'{kind}_sha256': _output_digest(made, step),
    'warnings': stage_folder.warnings_in(made),
    'config': changed_fields(stage, made['identity']),
    'made_under': run_record.conditions_of(workdir, stage),
  }


def describe_file(
  experiment: Experiment, name: str, digest: str, key: str, row: Row
) -> dict[str, PyTree]:
  """The passport of the measurement of a file of weights, which nobody knows the making of.

  Args:
    experiment: the config.
    name, digest: of the file, and the SHA-256 of its content.
    key, row: the data set, and what was measured.
  """
  return {
    'kind': row['kind'],
    'name': row['name'],
    'scores': {field: value for field, value in row.items() if field not in NO_SCORES},
    'protocol': _protocol(experiment, key, row),
    'made_from': {
      'weights': name,
      'weight_files_sha256': {'weights': digest},
      'model': experiment.config.model.to_dict(),
      'made_under': {},
      'measured_under': run_record.conditions(),
    },
  }


def _protocol(experiment: Experiment, key: str, row: Row) -> dict[str, PyTree]:
  """What was measured how: the row's protocol without what tells two rows apart, and digests."""
  images = experiment.images(key, has_labels(experiment, key))
  skip = experiment.config.data.on_bad_file == 'skip'
  digests = images.file_digests(digest_memory(experiment.config), skip=skip)
  labels = (parts.get('label', '') for parts in digests.values())
  apart = ('step', 'seed')
  return {
    **{field: value for field, value in row['protocol'].items() if field not in apart},
    'mean': experiment.config.evaluation.mean,
    'classes': list(class_names(experiment)),
    'images': len(images),
    'list_sha256': _sha256(images.ids),
    'image_files_sha256': _sha256(parts['image'] for parts in digests.values()),
    'label_files_sha256': _sha256(labels) if images.labels else None,
    'label_table': table_name(images),
  }


def table_name(images: Folder) -> str:
  """The name of a data set's label table, or a hash of one that is its own."""
  if isinstance(images.table, str):
    return images.table
  return f'own ({_sha256(map(repr, images.table))[:8]})'


def _sha256(parts: Iterable[str]) -> str:
  return hashlib.sha256('\n'.join(parts).encode()).hexdigest()


def _group(identity: Mapping[str, PyTree], name: str) -> dict[str, PyTree]:
  """The fields of a flat identity below a name."""
  start = f'{name}.'
  return {
    key.removeprefix(start): value
    for key, value in sorted(identity.items())
    if key.startswith(start)
  }


def _output_digest(made: stage_folder.Record, step: int | None) -> str | None:
  """SHA-256 (hex) over the digests of a stage's checkpoint at a step, or of its labels."""
  start = 'labels/' if step is None else f'checkpoints/{step}/'
  files = made.get('files', {})
  found = [f'{files[name]}  {name}' for name in sorted(files) if name.startswith(start)]
  return _sha256(found) if found else None


def changed_fields(name: str, identity: Mapping[str, PyTree]) -> dict[str, PyTree]:
  """The settings that a stage was made with and that configs/default.py has not, by field.

  They are those of its record: the config of today may be another one in what it does not measure.
  """
  default = flatten(read_config([f'--config={config_file("default")}']).to_dict(), empty=True)
  default = json.loads(json.dumps(default))
  found = {}
  for key, value in sorted(identity.items()):
    group, _, rest = key.partition('.')
    field = f'stages.{name}.{rest}' if group == 'stage' else key
    if group not in (*DIGESTS, 'seed') and (field not in default or value != default[field]):
      found[field] = value
  return found
