"""The stage graph: which stage feeds which, what is complete, what is stale.

Every stage is a folder of the working directory that holds its config, its inputs and its result
(`stage_folder.produce`). Running a recipe again goes over all of them: complete ones are read, a
partial one is continued, a stale one is refused.
"""

import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from data_pipelines.errors import BadInput
from diga_jax import criteria, progress, weights
from diga_jax.config import flatten
from diga_jax.inference import shapes
from diga_jax.parallel import processes
from diga_jax.recipe import evaluation, labels, provenance, training
from diga_jax.recipe.experiment import (
  Experiment,
  Run,
  class_names,
  has_labels,
)
from diga_jax.stages.kinds import Inputs, criteria_of, inputs, kind_of
from diga_jax.storage import file_digests, passport, run_record, stage_folder
from diga_jax.storage.stage_folder import stage_and_choice
from diga_jax.types import ImageCounts, PyTree, Row

OTHER_PROTOCOL = 'give the changed protocol a config.evaluation.name of its own'


def run_recipe(run: Run, after_stage: Callable[[], None] = lambda: None) -> list[Row]:
  """Carries out the whole recipe and evaluates its networks; returns the results in order.

  `after_stage` is called after each stage, in every process.
  """
  for name in stages_of(run):
    run_stage(run, name)
    after_stage()
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
    begun = any(path.name != stage_folder.RECORD for path in directory.iterdir())
    run_record.note(run.workdir, name, begun)
    since = time.perf_counter()
    part = name if make is labels.label_stage else ''  # the bar of a training has its name
    with run_record.timed(run.workdir, name), progress.within(_seed(run), part):
      result, read = make(run, name, directory), inputs(stage, run.config).sets
    if 'images' in result and not begun:  # a training notes its own
      run_record.note_pace(run.workdir, name, time.perf_counter() - since, result['images'])
    dates = {key: made for key, made in run.examined.items() if key in read}
    return result | ({'examined': dates} if dates else {})

  return stage_folder.produce(run.workdir / name, identity(run, name), build)


def _seed(run: Run) -> str:
  return f'seed {run.config.seed}'


# What a stage depends on.


def identity(
  run: Run, name: str, digest_of: Callable[[str], str] | None = None
) -> dict[str, PyTree]:
  """All that the result of a stage depends on, flat: dotted field -> value.

  Args:
    run, name: the stage.
    digest_of: what stands for the stages that it reads; None: `digest`, of complete ones.

  Raises:
    BadInput: if a stage that it reads is not complete.
  """
  digest_of = digest_of or functools.partial(digest, run)
  config, stage = run.config, run.stage(name)
  reads, chosen = inputs(stage, config), config.checkpoint_choice
  scored = criteria_of(stage, config)
  recorded = bool(config.criteria.record and scored)
  sets = reads.sets | _held_out(scored, config)
  return flatten(
    {
      'seed': config.seed,
      'stream': run.stream(name),
      'checkpoint_choice': [chosen, config.save_every] if chosen != 'last' else 'last',
      'criteria': {'record': [*scored], 'save_every': config.save_every} if recorded else {},
      'oracle': _oracle(run) if criteria.ORACLE in scored else {},
      'model': config.model.to_dict(),
      'translator': config.translator.to_dict(),
      'stage': stage.to_dict(),
      'padding': {} if kind_of(stage).train_step else _padding(run, stage.target, stage.image_size),
      'data': {
        'classes': config.data.classes,
        'crop': config.data.crop,
        'sets': {key: _content(config.data.sets[key]) for key in sets},
      },
      'input': {key: digest_of(key) for key in reads.stages},
      'images': {key: run.fingerprint(key, true) for key, true in sets.items()},
      'files': _files(reads, config),
    }
  )


def _files(reads: Inputs, config: ConfigDict) -> dict[str, str]:
  """The digests of the files of weights that a stage reads, by field."""
  fields = flatten(config.to_dict())
  files = {key: fields[key] for key in reads.files} | {'weights': reads.weights}
  return {
    key: weights.file_digest(file)
    for key, file in files.items()
    if file not in ('', weights.RANDOM)
  }


def _held_out(scored: Sequence[str], config: ConfigDict) -> dict[str, bool]:
  """The data set that criteria without labels look at, as of `Inputs.sets`."""
  return {config.criteria.set: False} if {*scored} & {*criteria.UNLABELLED} else {}


def _oracle(run: Run) -> dict[str, PyTree]:
  """What a checkpoint is chosen by: the first evaluation set, and how it is measured."""
  settings = run.config.evaluation
  fields = ('scales', 'flip', 'class_means', 'mean')
  padding = {'padding': padding_of(run, settings.sets[0])}
  return {field: settings[field] for field in fields} | _measured(run, settings.sets[0]) | padding


def _measured(experiment: Experiment, key: str) -> dict[str, PyTree]:
  """What a number on a data set depends on there: settings, classes and files."""
  data = experiment.config.data
  labelled = has_labels(experiment, key)
  return {
    'data': {'names': data.names, 'sets': {key: _content(data.sets[key])}},
    'class_names': class_names(experiment),
    'images': {key: experiment.fingerprint(key, labelled, afresh=('label',))},
  }


def padding_of(experiment: Experiment, key: str) -> dict[str, PyTree]:
  """`_padding` of an evaluation set."""
  return _padding(experiment, key, experiment.config.data.sets[key].evaluation_size)


def _padding(experiment: Experiment, key: str, size: Sequence[int]) -> dict[str, PyTree]:
  """How a pass computes images of many sizes; {} where each is computed in its own."""
  if experiment.shape_plan(key, size) is None:
    return {}
  return {'programs': experiment.config.programs, 'window': shapes.WINDOW}


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
  return stage_folder.hash_of(stage_folder.read_record(directory)['identity'])


def warnings_of(run: Run) -> list[str]:
  """What the records of the recipe's complete stages warn of, in order; see `class_balance`."""
  places = [run.workdir / name for name in stages_of(run)]
  records = [stage_folder.read_record(place) for place in places if place.exists()]
  return [text for record in records for text in stage_folder.warnings_in(record)]


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
  return [measure(run, name, key) for name, key in measurements(run)]


def measurements(experiment: Experiment) -> list[tuple[str, str]]:
  """(stage, data set) of all that the config's protocol measures, in order.

  With evaluation.checkpoints a stage's networks are named STAGE@CHOICE.
  """
  settings, found = experiment.config.evaluation, []
  for name in settings.stages or experiment.config.recipe:
    stage = experiment.stage(name)
    kind = kind_of(stage)
    if kind.train_step is None:
      found.append((name, stage.target))
    elif kind.trains == 'segmentation':
      found += [(each, key) for each in networks_of(experiment, name) for key in settings.sets]
  return found


def networks_of(experiment: Experiment, name: str) -> list[str]:
  """The networks of a trained stage that are measured: STAGE, or STAGE@CHOICE for each choice."""
  known = (criteria.LAST, *criteria_of(experiment.stage(name), experiment.config))
  measured = experiment.config.evaluation.checkpoints
  return [f'{name}@{choice}' for choice in measured if choice in known] if measured else [name]


def place_of(run: Run, name: str, key: str) -> pathlib.Path:
  """The folder of one measurement."""
  return run.workdir / 'evaluation' / run.config.evaluation.name / name / key


def is_network(experiment: Experiment, name: str) -> bool:
  """Whether one of `measurements` is of a network, and not of labels."""
  return kind_of(experiment.stage(stage_and_choice(name)[0])).train_step is not None


def way_of_measuring(run: Run) -> dict[str, PyTree]:
  """Settings, classes and images of the evaluation, flat: rows that differ there have no order."""
  settings = run.config.evaluation
  found = flatten({'evaluation': {k: v for k, v in settings.to_dict().items() if k != 'stages'}})
  for key in settings.sets:
    found |= flatten(_measured(run, key) | {'padding': {key: padding_of(run, key)}})
  return found


def dependencies(
  run: Run, name: str, key: str, digest_of: Callable[[str], str] | None = None
) -> dict[str, PyTree]:
  """All that a measurement of a stage on a data set depends on, flat; `digest_of` as `identity`.

  `name` is one of `measurements`.
  """
  digest_of = digest_of or functools.partial(digest, run)
  name, choice = stage_and_choice(name)
  config, stage = run.config, run.stage(name)
  found = {'input': {name: digest_of(name)}, **measurement_on(run, key)}
  if choice:
    found['checkpoint'] = choice
  if kind_of(stage).train_step:
    found['padding'] = padding_of(run, key)
  if kind_of(stage).train_step is None:  # its labels are measured with what it started from
    reads = inputs(stage, config)
    began = digest_of(reads.start) if reads.start else _files(reads, config)
    found |= {'stage': stage.to_dict(), 'start': began}
  return flatten(found)


def measurement_on(experiment: Experiment, key: str) -> dict[str, PyTree]:
  """What a network's number on a data set depends on beside its weights."""
  unrelated = ('stages', 'sets', 'name', 'checkpoints', 'weights', 'partial_weights')
  settings = {
    group: {k: v for k, v in experiment.config[group].to_dict().items() if k not in unrelated}
    for group in ('evaluation', 'model')
  }
  return settings | _measured(experiment, key)


def measure(run: Run, name: str, key: str) -> Row:
  """One of `measurements`, made once: its metrics.json and passport."""
  make = evaluation.evaluate_network if is_network(run, name) else evaluation.measure_labels

  def build(directory: pathlib.Path) -> Row:
    run_record.note(run.workdir, folder, resumed=False)
    since = time.perf_counter()
    within = progress.within(_seed(run), folder.removeprefix('evaluation/'))
    with run_record.timed(run.workdir, folder), within:
      row = make(run, name, key, directory)
    run_record.note_pace(run.workdir, folder, time.perf_counter() - since, row['images'])
    if processes.is_main_process():
      stage_folder.write_metrics(directory / 'metrics.json', row)
    return row

  place = place_of(run, name, key)
  folder = place.relative_to(run.workdir).as_posix()
  row = stage_folder.produce(place, dependencies(run, name, key), build, OTHER_PROTOCOL)
  try:
    stage_folder.check_files(place, 'metrics.json')
  except file_digests.Damaged:
    logging.warning('%s: is damaged or missing: it is written again', place / 'metrics.json')
    if processes.is_main_process():
      stage_folder.write_metrics(place / 'metrics.json', row)
  if processes.is_main_process():
    keep_passport(run, name, key, row)
  return row


def keep_passport(run: Run, name: str, key: str, row: Row) -> None:
  """Writes the passport of a complete measurement, unless it is there."""
  place = place_of(run, name, key)
  path = place / passport.NAME
  try:
    if path.exists():
      passport.read(path)
      return
  except BadInput as error:
    logging.warning('%s: it is written again', error)
  folder = place.relative_to(run.workdir).as_posix()
  measurement = stage_folder.hash_of(stage_folder.read_record(place)['identity'])
  content = provenance.describe(run, name, key, row, folder)
  passport.write(place, {**content, 'measurement': measurement})


def passports_of(runs: Sequence[Run]) -> list[dict[str, PyTree]]:
  """The passports of all that runs of one recipe have measured, such as the seeds of a study.

  Raises:
    BadInput: one is missing, damaged or of another measurement.
  """
  return [
    passport.read(place_of(run, name, key) / passport.NAME)
    for run in runs
    for name, key in measurements(run)
  ]


class Measured(NamedTuple):
  """Ids of a data set's images, and what each adds to a network's IoUs, in several runs."""

  ids: list[str]
  counts: ImageCounts


def counts_of(runs: Sequence[Run], name: str, key: str) -> Measured:
  """What every image of a data set adds to the IoUs of a stage's network, in several runs.

  Raises:
    BadInput: the record of a measurement is damaged, or the runs were measured on other images.
  """
  found = []
  for run in runs:
    place = place_of(run, name, key)
    if 'images.npz' not in stage_folder.read_record(place)['files']:
      raise BadInput(
        f'{place}: was measured by an earlier version, which kept no counts of its images: measure '
        'again, with another config.evaluation.name'
      )
    stage_folder.check_files(place, 'images.npz')
    with np.load(place / 'images.npz') as arrays:
      found.append(dict(arrays))
    if found[-1]['ids'].tolist() != found[0]['ids'].tolist():
      raise BadInput(f'{place}: was measured on other images than {place_of(runs[0], name, key)}')
  counts = ImageCounts(*(np.stack([part[what] for part in found]) for what in ImageCounts._fields))
  return Measured(found[0]['ids'].tolist(), counts)
