"""The stage graph: which stage feeds which, what is complete, what is stale.

Every stage is a folder of the working directory that holds its config, its inputs and its result
(`artifact.produce`). Running a recipe again goes over all of them: complete ones are read, a
partial one is continued, a stale one is refused.
"""

import functools
import hashlib
import json
from typing import Any

from data_pipelines.errors import BadInput
from diga_jax import weights
from diga_jax.config import flatten
from diga_jax.recipe import evaluation, labels, training
from diga_jax.recipe.experiment import Experiment, labelled
from diga_jax.stages import kinds
from diga_jax.storage import stage_folder


def run(experiment: Experiment) -> list[dict[str, Any]]:
  """Carries out the whole recipe and evaluates its networks; returns the results in order."""
  for name in experiment.config.recipe:
    run_stage(experiment, name)
  return evaluate(experiment)


def run_stage(experiment: Experiment, name: str) -> dict[str, Any]:
  """Carries out one stage, or continues it; a complete one is only read.

  Raises:
    BadInput: if a stage that it reads is not complete, it was begun with other settings, or its
      input is wrong.
  """
  kind = experiment.stage(name).kind
  if kind == 'translator' and experiment.config.translator.kind != 'network':
    return {}
  if kind not in (*kinds.STEPS, 'label'):
    raise BadInput(f'config.stages.{name}.kind is {kind!r}: one of {", ".join(kinds.STEPS)}, label')
  make = labels.labels if kind == 'label' else training.network
  return stage_folder.produce(
    experiment.workdir / name,
    identity(experiment, name),
    lambda directory: make(experiment, name, directory) | examined(experiment, name),
  )


def examined(experiment: Experiment, name: str) -> dict[str, Any]:
  """When `doctor` last looked at the data sets that a stage reads, for its result."""
  read = sets_read(experiment, name)
  seen = {key: made for key, made in experiment.examined.items() if key in read}
  return {'examined': seen} if seen else {}


# What a stage reads.


def stages_read(experiment: Experiment, name: str) -> list[str]:
  """The stages that must be complete before this one."""
  stage, network = experiment.stage(name), experiment.config.translator.kind == 'network'
  if stage.kind == 'translator':
    return []
  before = [stage.start] if stage.start else []
  if experiment.uses_labels(stage):
    before.append(stage.labels)
  mixes = (
    stage.centroids_from == 'source'
    if stage.kind == 'label'
    else experiment.uses_translation(stage)
  )
  return before + [stage.translator] if network and mixes else before


def sets_read(experiment: Experiment, name: str) -> dict[str, bool]:
  """The data sets that a stage reads, and whether it reads their labels."""
  stage = experiment.stage(name)
  if stage.kind == 'label':
    source = {stage.source: True} if stage.centroids_from == 'source' else {}
    return {stage.target: False} | source
  target = {stage.batch.target: False} if experiment.uses_target(stage) else {}
  return target | ({stage.batch.source: True} if experiment.uses_source(stage) else {})


def identity(experiment: Experiment, name: str) -> dict[str, Any]:
  """All that the result of a stage depends on, flat: dotted field -> value.

  Raises:
    BadInput: if a stage that it reads is not complete.
  """
  config, stage = experiment.config, experiment.stage(name)
  data = sets_read(experiment, name)
  external = {'model.weights': config.model.weights}
  if stage.kind == 'translator':
    external = {f'translator.{key}': config.translator[key] for key in ('vgg', 'enc_s', 'dec_s2t')}
  return flatten(
    {
      'seed': config.seed,
      'checkpoint_choice': [config.checkpoint_choice, config.save_every]
      if config.checkpoint_choice != 'last'
      else 'last',
      'model': config.model.to_dict(),
      'translator': config.translator.to_dict(),
      'stage': stage.to_dict(),
      'data': {
        'classes': config.data.classes,
        'crop': config.data.crop,
        'sets': {key: _content(config.data.sets[key]) for key in data},
      },
      'input': {key: digest(experiment, key) for key in stages_read(experiment, name)},
      'images': {key: experiment.images(key, wanted).fingerprint() for key, wanted in data.items()},
      'files': {key: weights.file_digest(path) for key, path in external.items() if path},
    }
  )


def _content(settings: Any) -> dict[str, Any]:
  """The settings of a data set that its batches depend on: packed or not, they are the same."""
  return {key: value for key, value in settings.to_dict().items() if key != 'shards'}


def digest(experiment: Experiment, name: str) -> str:
  """A hash of a complete stage's identity, and so of everything before it.

  Raises:
    BadInput: if the stage is not complete.
  """
  directory = experiment.workdir / name
  if not directory.exists():
    raise BadInput(f'stage {name!r} is not complete in {experiment.workdir}: run it first')
  record = json.dumps(stage_folder.read_record(directory)['identity'], sort_keys=True)
  return hashlib.sha256(record.encode()).hexdigest()[:16]


# What is measured.


def evaluate(experiment: Experiment) -> list[dict[str, Any]]:
  """Evaluates the recipe's networks and pseudo-labels under the config's protocol.

  Returns:
    One result for each network and evaluation set (`evaluate.evaluate`) and for each label pass
    (`label_quality.measure`), in the recipe's order; each is also in
    WORKDIR/evaluation/PROTOCOL/STAGE/SET/metrics.json, beside its pictures.

  Raises:
    BadInput: if a stage is not complete, or the protocol's folder holds another protocol.
  """
  settings = experiment.config.evaluation
  results = []
  for name in settings.stages or experiment.config.recipe:
    kind = experiment.stage(name).kind
    if kind == 'label':
      results.append(
        measure(experiment, name, experiment.stage(name).target, evaluation.measure_labels)
      )
    elif kind != 'translator':
      results += [
        measure(experiment, name, key, evaluation.evaluate_network) for key in settings.sets
      ]
  return results


def measure(experiment: Experiment, name: str, key: str, make: Any) -> dict[str, Any]:
  """One measurement of one stage on one data set, made once."""
  settings = experiment.config.evaluation
  dependencies = flatten(
    {
      'input': {name: digest(experiment, name)},
      'evaluation': settings.to_dict(),
      'images': experiment.images(key, labelled(experiment, key)).fingerprint(),
    }
  )
  for unrelated in ('stages', 'sets', 'name'):
    dependencies.pop(f'evaluation.{unrelated}')
  return stage_folder.produce(
    experiment.workdir / 'evaluation' / settings.name / name / key,
    dependencies,
    functools.partial(make, experiment, name, key),
  )
