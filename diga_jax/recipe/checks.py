"""All that a recipe reads, opened before its first step.

What is wrong with the last stage, or with what is measured after it, is said in the first seconds,
and not after hours of training.
"""

import functools
import shutil
from collections.abc import Callable, Mapping, Sequence

from data_pipelines import pipeline
from data_pipelines.errors import BadInput
from diga_jax import criteria, progress
from diga_jax.parallel import processes
from diga_jax.parallel.mesh import local_rows
from diga_jax.recipe import disk_space, graph, iou_curve, starts, training
from diga_jax.recipe.experiment import Experiment, Run, digest_memory, has_labels
from diga_jax.stages.kinds import criteria_of, inputs, is_chosen, kind_of
from diga_jax.storage import stage_folder
from diga_jax.storage.stage_folder import stage_and_choice
from diga_jax.tracking import writers
from diga_jax.types import PyTree

Facts = dict[str, str]  # what was looked at, and what it is, in words
Measured = Sequence[tuple[str, str]]  # (stage, data set) of each measurement


def check(run: Run, stages: Sequence[str], evaluated: bool = False) -> Facts:
  """Opens all that stages and their evaluation read; nothing is trained, and no stage written.

  Args:
    run: the config and the working directory.
    stages: those that are to be made, in this order; complete ones may be among them.
    evaluated: whether what the config's protocol names is measured after them.

  Returns:
    What was found.

  Raises:
    BadInput: at the first thing that would stop the run later.
  """
  check_trackers(run)
  for position, name in enumerate(stages):
    check_inputs(run, name, stages[:position])
  measured = check_protocol(run, stages) if evaluated else []
  facts = check_sets(run, stages, measured)
  check_folders(run, stages, measured)
  to_do = [name for name in stages if not is_complete(run, name)]
  facts |= check_weights(run, to_do) | check_steps(run, to_do)
  described = {f'stage {name}': _describe(run, name) for name in stages}
  for name, _ in measured:
    described[f'measured {name}'] = 'on ' + ', '.join(key for of, key in measured if of == name)
  return described | facts


def check_recipe(run: Run) -> Facts:
  """`check` of the whole recipe and its evaluation."""
  return check(run, graph.stages_of(run), evaluated=True)


def check_evaluation(run: Run) -> Facts:
  """`check` of the evaluation of complete stages."""
  return check(run, (), evaluated=True)


def is_complete(run: Run, name: str) -> bool:
  """Whether a stage has been made; raises BadInput if its record is damaged."""
  directory = run.workdir / name
  return (directory / stage_folder.RECORD).exists() and bool(stage_folder.read_record(directory))


# Names.


def check_trackers(run: Run) -> None:
  """Refuses trackers that the main process, which writes to them, cannot use; raises BadInput."""
  problem = ''
  if processes.is_main_process():
    try:
      writers.check(run.config.trackers)
    except BadInput as error:
      problem = str(error)
  if problem := processes.exchange(problem)[0]:
    raise BadInput(problem)


def check_inputs(run: Run, name: str, before: Sequence[str]) -> None:
  """Refuses a stage that reads a data set that is not there, or a stage that will not be."""
  config, stage, place = run.config, run.stage(name), f'config.stages.{name}'
  reads, sets = inputs(stage, config), ', '.join(config.data.sets)
  for key in reads.sets:
    if key not in config.data.sets:
      raise BadInput(f'{place} reads the data set {key!r}: config.data.sets has {sets}')
  for field in ('start', 'labels', 'translator', 'earlier'):
    other = getattr(reads, field)
    if other and other not in before and not is_complete(run, other):
      raise BadInput(
        f'{place}.{field} is {other!r}, which is not complete in {run.workdir}: run it first, or '
        f'name it before {name!r} in config.recipe'
      )


def check_protocol(run: Run, stages: Sequence[str]) -> list[tuple[str, str]]:
  """What is measured; refuses sets without labels, and stages that will not be there."""
  measured = graph.measurements(run)
  if not measured and not stages:
    raise BadInput('config.evaluation: there is nothing to measure: give sets, and a recipe')
  check_labels(run)
  for name, _ in measured:
    stage, choice = stage_and_choice(name)
    if stage not in stages and not is_complete(run, stage):
      raise BadInput(f'stage {stage!r} is not complete in {run.workdir}: run it first')
    if choice and stage not in stages:
      stage_folder.network_of(run.workdir / name)
  return measured


def check_labels(experiment: Experiment) -> None:
  """Refuses evaluation sets that have no labels; raises BadInput."""
  for key in experiment.config.evaluation.sets:
    if not has_labels(experiment, key):
      raise BadInput(f'config.evaluation.sets has {key!r}: config.data.sets.{key}.labels is empty')


# Data.


def check_sets(run: Run, stages: Sequence[str], measured: Measured) -> Facts:
  """Opens every data set with its labels, and reads the first image of each."""
  wanted = [pair for name in stages for pair in inputs(run.stage(name), run.config).sets.items()]
  wanted += [(key, has_labels(run, key)) for _, key in measured]
  networks = {*stages, *(stage_and_choice(name)[0] for name, _ in measured)}
  scored = {each for name in networks for each in criteria_of(run.stage(name), run.config)}
  held_out = run.config.criteria.set if scored & {*criteria.UNLABELLED} else ''
  wanted += [(held_out, False)] * bool(held_out)
  if criteria.ORACLE in scored and stages:
    wanted.append((run.config.evaluation.sets[0], True))
  curve = check_curves(run, stages)
  wanted += [(key, True) for key in curve]
  passes = {held_out, *(key for _, key in measured), *curve}
  passes |= {run.stage(name).target for name in stages if not kind_of(run.stage(name)).train_step}
  facts = {}
  for key in dict.fromkeys(key for key, _ in wanted):
    facts[f'data.sets.{key}'] = check_set(run, key, (key, True) in wanted, key in passes)
  for name in stages:
    check_labelled(run, name)
  if held_out:
    check_held_out(run, held_out, dict(wanted))
  return facts


def check_curves(run: Run, stages: Sequence[str]) -> Sequence[str]:
  """The sets that are evaluated while stages train; refuses those without labels."""
  trained = [name for name in stages if is_chosen(run.stage(name)) and not is_complete(run, name)]
  if not run.config.evaluate_every or not trained:
    return ()
  check_labels(run)
  return run.config.evaluation.sets


def check_set(experiment: Experiment, key: str, labelled: bool, whole: bool) -> str:
  """Opens a data set and reads its first image; returns what it is, in words.

  `whole`: whether every file of it is read, whatever config.data.on_bad_file says.
  """
  images = experiment.images(key, labelled)
  text = f'{len(images):,} images{" with labels" * labelled}'
  try:
    height, width = images.read(0)[0].shape[:2]
    return f'{text}, the first of {height}x{width} pixels'
  except BadInput as error:
    if experiment.config.data.on_bad_file == 'stop' or whole:
      raise BadInput(f'data.sets.{key}: {error}') from None
  return text


def check_held_out(run: Run, held_out: str, sets: Mapping[str, bool]) -> None:
  """Refuses held-out images that are files of another set too, which stages or numbers depend on.

  Args:
    run: the config.
    held_out: the set whose images choose checkpoints.
    sets: all that are read, and whether their labels are.
  """

  def find() -> str:
    ours = image_digests(run, held_out, False)
    for key, labelled in sets.items():
      shared = ours.keys() & image_digests(run, key, labelled).keys() if key != held_out else ()
      if shared:
        return (
          f'config.criteria.set: {len(shared):,} images of {held_out!r} are in {key!r} too, the '
          f'first is {min(ours[name] for name in shared)}: leave them out of one of the two, '
          'by its list or `without`'
        )
    return ''

  # By one process: the others wait, and learn what it found.
  if problem := processes.exchange(find() if processes.is_main_process() else '')[0]:
    raise BadInput(problem)


def image_digests(run: Run, name: str, labelled: bool) -> dict[str, str]:
  """SHA-256 (hex) -> id, of the images of a data set; remembered as in `Experiment.fingerprint`."""
  bar = functools.partial(progress.bar, description=f'hashing {name}', unit='files')
  skip = run.config.data.on_bad_file == 'skip'
  found = run.images(name, labelled).file_digests(digest_memory(run.config), bar=bar, skip=skip)
  return {parts['image']: name for name, parts in found.items() if parts['image']}


def check_labelled(run: Run, name: str) -> None:
  """Refuses a stage whose target has images that its labels' stage does not label."""
  reads = inputs(run.stage(name), run.config)
  if not reads.labels:
    return
  theirs = run.stage(reads.labels).target
  without = set(run.images(reads.target, False).ids).difference(run.images(theirs, False).ids)
  if without:
    raise BadInput(
      f'config.stages.{name} learns from {reads.target!r}, but {reads.labels!r} labels {theirs!r}, '
      f'which lacks {min(without)}: name the same set in both'
    )


# Folders that are there.


def expected_digests(run: Run) -> Callable[[str], str]:
  """The digests of stages that are complete, or will be when they are read, by name."""

  @functools.cache
  def digest_of(name: str) -> str:
    if is_complete(run, name):
      return graph.digest(run, name)
    return stage_folder.hash_of(graph.identity(run, name, digest_of))

  return digest_of


def check_folders(run: Run, stages: Sequence[str], measured: Measured) -> None:
  """Refuses stages and measurements in the working directory that were made from other settings."""
  digest_of = expected_digests(run)

  def same(place: PyTree, identity: Callable[[], dict[str, PyTree]], *instead: str) -> None:
    begun = place.with_name(f'{place.name}.partial')
    if place.exists() or (begun / stage_folder.RECORD).exists():
      stage_folder.check_same(place if place.exists() else begun, identity(), *instead)

  for name in stages:
    same(run.workdir / name, functools.partial(graph.identity, run, name, digest_of))
    iou_curve.check(run, name)
  for name, key in measured:

    def depends(name: str = name, key: str = key) -> dict[str, PyTree]:
      return graph.dependencies(run, name, key, digest_of)

    same(graph.place_of(run, name, key), depends, graph.OTHER_PROTOCOL)


# What stages start from.


def check_weights(run: Run, stages: Sequence[str]) -> Facts:
  """Reads the files of weights that the stages start from, and refuses those that do not fit."""
  facts: Facts = {}
  for name in stages:
    facts |= starts.check(run, run.stage(name))
  return facts


def check_steps(run: Run, stages: Sequence[str]) -> Facts:
  """Sets up every training step on shapes, and cuts its first row; asks for checkpoints' room."""
  trained = [name for name in stages if kind_of(run.stage(name)).train_step]
  for name in trained:
    training.check_memory(run, name)
    training.abstract_state(run, name)
    cut_first_row(run, name)
  kept, besides = disk_space.needed(run, trained)
  run_in = run.workdir.absolute()
  place = next(place for place in (run_in, *run_in.parents) if place.exists())
  if not place.is_dir():
    raise BadInput(f'{place}: is not a folder: give another --workdir')
  free = shutil.disk_usage(place).free
  words = [disk_space.in_words(size) for size in (kept, besides, free)]
  text = 'checkpoints take {} in the end and up to {} besides while a stage is trained, {} are free'
  begun = [run.workdir / f'{name}.partial' for name in trained]
  if free + sum(map(disk_space.used, begun)) < kept + besides:
    raise BadInput(f'{place}: {text.format(*words)}: free some, or give another --workdir')
  return {'disk': text.format(*words)} if trained else {}


def cut_first_row(run: Run, name: str) -> None:
  """Makes the first row of a stage's first batch; without its labels where they are to be made."""
  stage, data = run.stage(name), run.config.data
  reads = inputs(stage, run.config)
  images = run.images(reads.target, labelled=False) if reads.target else None
  target: dict[str, PyTree] = {'target': images}
  if reads.labels and is_complete(run, reads.labels):
    target = training.target_of(run, stage)
  local_rows(stage.batch.low_rows + stage.batch.full_rows, run.mesh)  # which must divide
  views = training.views(run, name, **target)
  stream, skipped = run.stream(name), {} if data.on_bad_file == 'skip' else None
  rows = pipeline.batches(
    views, seed=run.config.seed, stream=stream, rows=slice(1), skipped=skipped
  )
  next(rows)


def _describe(run: Run, name: str) -> str:
  """A stage in words."""
  stage, reads = run.stage(name), inputs(run.stage(name), run.config)
  begun = (run.workdir / f'{name}.partial').exists()
  state = 'complete' if is_complete(run, name) else 'begun' if begun else 'to do'
  steps = f', {stage.steps:,} steps' if 'steps' in stage else ''
  sets = ', '.join(f'{key}{" with labels" * labelled}' for key, labelled in reads.sets.items())
  start = f', after {", ".join(reads.stages)}' if reads.stages else ''
  return f'{stage.kind}{steps}, of {sets}{start}: {state}'
