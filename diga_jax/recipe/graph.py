"""The stage graph: which stage feeds which, what is complete, what is stale.

Every stage is a folder of the working directory that holds its config, its inputs and its result
(`stage_folder.produce`). Running a recipe again goes over all of them: complete ones are read, a
partial one is continued, a stale one is refused.
"""

import hashlib
import json
import pathlib
from collections.abc import Callable

from ml_collections import ConfigDict

from data_pipelines.errors import BadInput
from diga_jax import weights
from diga_jax.config import flatten
from diga_jax.parallel import processes
from diga_jax.recipe import evaluation, labels, training
from diga_jax.recipe.experiment import Experiment, Run, has_labels
from diga_jax.stages.kinds import inputs, kind_of
from diga_jax.storage import stage_folder
from diga_jax.types import PyTree, Row


def run_recipe(run: Run) -> list[Row]:
  """Carries out the whole recipe and evaluates its networks; returns the results in order.

  Raises:
    BadInput: before the first stage, if a data set cannot be opened or a file of weights does not
      fit; then as `run_stage`.
  """
  for name in stages_of(run):
    for key, labelled in inputs(run.stage(name), run.config).sets.items():
      run.images(key, labelled)
    run.check_weights(run.stage(name))
  for name in stages_of(run):
    run_stage(run, name)
  return evaluate(run)


def stages_of(experiment: Experiment) -> list[str]:
  """The recipe's stages; the translator's only where there is a network to train."""
  config = experiment.config
  skipped = () if config.translator.kind == 'network' else ('translator',)
  return [name for name in config.recipe if experiment.stage(name).kind not in skipped]


def run_stage(run: Run, name: str) -> dict[str, PyTree]:
  """Carries out one stage, or continues it; a complete one is only read.

  Raises:
    BadInput: if a stage that it reads is not complete, it was begun with other settings, or its
      input is wrong.
  """
  stage = run.stage(name)
  make = labels.label_stage if kind_of(stage).train_step is None else training.train_stage

  def build(directory: pathlib.Path) -> dict[str, PyTree]:
    result, read = make(run, name, directory), inputs(stage, run.config).sets
    dates = {key: made for key, made in run.examined.items() if key in read}
    return result | ({'examined': dates} if dates else {})

  return stage_folder.produce(run.workdir / name, identity(run, name), build)


# What a stage depends on.


def identity(run: Run, name: str) -> dict[str, PyTree]:
  """All that the result of a stage depends on, flat: dotted field -> value.

  Raises:
    BadInput: if a stage that it reads is not complete.
  """
  config, stage = run.config, run.stage(name)
  reads = inputs(stage, config)
  chosen, fields = config.checkpoint_choice, flatten(config.to_dict())
  return flatten(
    {
      'seed': config.seed,
      'stream': run.stream(name),
      'checkpoint_choice': [chosen, config.save_every] if chosen != 'last' else 'last',
      'model': config.model.to_dict(),
      'translator': config.translator.to_dict(),
      'stage': stage.to_dict(),
      'data': {
        'classes': config.data.classes,
        'crop': config.data.crop,
        'sets': {key: _content(config.data.sets[key]) for key in reads.sets},
      },
      'input': {key: digest(run, key) for key in reads.stages},
      'images': {key: run.images(key, true).fingerprint() for key, true in reads.sets.items()},
      'files': {
        key: weights.file_digest(file)
        for key, file in (*((key, fields[key]) for key in reads.files), ('weights', reads.weights))
        if file not in ('', weights.RANDOM)
      },
    }
  )


def _content(settings: ConfigDict) -> dict[str, PyTree]:
  """The settings of a data set that its batches depend on: packed or not, they are the same."""
  return {key: value for key, value in settings.to_dict().items() if key != 'shards'}


def digest(run: Run, name: str) -> str:
  """A hash of a complete stage's identity, and so of everything before it.

  Raises:
    BadInput: if the stage is not complete.
  """
  directory = run.workdir / name
  if not directory.exists():
    raise BadInput(f'stage {name!r} is not complete in {run.workdir}: run it first')
  record = json.dumps(stage_folder.read_record(directory)['identity'], sort_keys=True)
  return hashlib.sha256(record.encode()).hexdigest()[:16]


# What is measured.


def evaluate(run: Run) -> list[Row]:
  """Evaluates the recipe's networks and pseudo-labels under the config's protocol.

  Returns:
    One row for each network and evaluation set (`inference.evaluate`) and for each label pass
    (`inference.label_quality`), in the recipe's order; each is also in
    WORKDIR/evaluation/PROTOCOL/STAGE/SET/metrics.json, beside its pictures.

  Raises:
    BadInput: if a stage is not complete, or the protocol's folder holds another protocol.
  """
  settings, rows = run.config.evaluation, []
  for name in settings.stages or run.config.recipe:
    stage = run.stage(name)
    kind = kind_of(stage)
    if kind.train_step is None:
      rows.append(measure(run, name, inputs(stage, run.config).target, evaluation.measure_labels))
    elif kind.trains == 'segmentation':
      rows += [measure(run, name, key, evaluation.evaluate_network) for key in settings.sets]
  return rows


def measure(run: Run, name: str, key: str, make: Callable[..., Row]) -> Row:
  """One measurement of one stage on one data set, made once: its metrics.json."""
  settings = run.config.evaluation
  unrelated = ('stages', 'sets', 'name')
  dependencies = {
    'input': {name: digest(run, name)},
    'evaluation': {k: v for k, v in settings.to_dict().items() if k not in unrelated},
    'images': run.images(key, has_labels(run, key)).fingerprint(),
  }

  def build(directory: pathlib.Path) -> Row:
    row = make(run, name, key, directory)
    if processes.is_main_process():
      stage_folder.write_metrics(directory / 'metrics.json', row)
    return row

  place = run.workdir / 'evaluation' / settings.name / name / key
  return stage_folder.produce(place, flatten(dependencies), build)
