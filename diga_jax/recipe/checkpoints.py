"""Which checkpoint of a stage is used: scores while it trains, and the choice afterwards."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

from absl import logging

from data_pipelines import records
from data_pipelines.errors import BadInput
from diga_jax import criteria
from diga_jax.inference import held_out
from diga_jax.parallel import processes
from diga_jax.parallel.mesh import to_local_mesh
from diga_jax.recipe import evaluation
from diga_jax.recipe.experiment import Run
from diga_jax.report import choices, tables
from diga_jax.stages.kinds import criteria_of, inputs
from diga_jax.state import TrainState
from diga_jax.storage import stage_folder
from diga_jax.types import CheckpointTable, Variables

FILE = stage_folder.SCORES


class Scores(TypedDict):
  """What FILE holds."""

  table: CheckpointTable
  chosen: dict[str, int]  # choice -> step


def scorer(run: Run, name: str) -> Callable[[TrainState], dict[str, float]] | None:
  """state -> the scores of a checkpoint by criterion; None for a stage without criteria."""
  wanted = criteria_of(run.stage(name), run.config)
  if not wanted:
    return None
  unlabelled = [criterion for criterion in wanted if criterion in criteria.UNLABELLED]

  def score(state: TrainState) -> dict[str, float]:
    student = to_local_mesh(
      {'params': state.params, 'batch_stats': state.batch_stats}, run.local_mesh
    )
    found = look_at_held_out(run, name, state, student, unlabelled) if unlabelled else {}
    if criteria.ORACLE in wanted:
      found[criteria.ORACLE] = true_score(run, student)
    return {criterion: found[criterion] for criterion in wanted}

  return score


def look_at_held_out(
  run: Run, name: str, state: TrainState, student: Variables, wanted: Sequence[str]
) -> dict[str, float]:
  """The criteria without labels, on the images of `criteria.set`."""
  config, stage = run.config, run.stage(name)
  key, local = config.criteria.set, run.local_mesh
  networks = held_out.Networks(student, {**student, 'params': to_local_mesh(state.teacher, local)})
  if inputs(stage, config).centroids:
    networks = networks._replace(centroids=to_local_mesh(state.centroids, local))
  return held_out.measure(
    networks,
    run.images(key, labelled=False),
    wanted,
    model=run.model,
    rank=stage.get('rank', 1),
    batch_size=run.rows(config.evaluation.batch_size),
    size=tuple(config.data.sets[key].evaluation_size) or None,
    place=run.put,
  )


def true_score(run: Run, student: Variables) -> float:
  """mIoU on the first evaluation set: the published choice, which uses its labels.

  The mean is the benchmark's own, `evaluation.mean`.

  Raises:
    BadInput: the set has no labelled pixel.
  """
  settings = run.config.evaluation
  name, mean = settings.sets[0], settings.mean
  row = evaluation.scores_in_training(run, run.predictor_of(student), name)
  found = row['mean_iou_subsets'][mean] if mean else row['mean_iou']
  if found is None:
    raise BadInput(f'config.evaluation.sets: {name!r} has no labelled pixel to choose weights by')
  return found


# The choice.


def choose(run: Run, name: str, table: CheckpointTable, available: Sequence[int]) -> dict[str, int]:
  """choice -> step, of the network that the next stage takes and those that are measured beside it.

  Args:
    run, name: the stage.
    table: its scores.
    available: steps whose checkpoints are there: a damaged one has been set aside.
  """
  config, scored = run.config, criteria_of(run.stage(name), run.config)
  own = config.checkpoint_choice if config.checkpoint_choice in scored else criteria.LAST
  beside = (criteria.LAST, *scored) if config.criteria.record else ()
  found: dict[str, int] = {}
  for choice in (own, *beside):
    wanted, found[choice] = best(table, choice), best(table, choice, available)
    if wanted != found[choice]:
      logging.warning(
        '%s: step %d, the best by %s, was damaged: step %d takes its place',
        *(name, wanted, choice, found[choice]),
      )
  return found


def best(table: CheckpointTable, choice: str, available: Sequence[int] | None = None) -> int:
  """The step with the highest score, of equals the latest; the last step for 'last'."""
  rows = [row for row in table if available is None or row['step'] in available]
  return int(max(rows, key=lambda row: (row.get(choice, 0), row['step']))['step'])


def write(directory: pathlib.Path, table: CheckpointTable, chosen: Mapping[str, int]) -> None:
  """Writes the scores of a stage into its folder, by one process."""
  if processes.is_main_process():
    records.write(directory / FILE, {'table': table, 'chosen': chosen})


def read(directory: pathlib.Path) -> Scores:
  """The scores of a stage, complete or not; raises BadInput if the file is damaged."""
  redo = f'restore it from a copy, or rename {directory} to train again'
  return records.read(directory / FILE, redo, 'table', 'chosen')


def describe(runs: Sequence[Run]) -> list[tables.Part]:
  """A table of how the criteria without labels rank the checkpoints of the measured stages.

  All processes must ask: they share the files.

  Args:
    runs: measured, of the same recipe, one for each seed.

  Returns:
    Nothing if no such criterion is recorded of any of them.

  Raises:
    BadInput: the scores of a stage are damaged.
  """
  config = runs[0].config
  found: dict[str, list[choices.Recorded]] = {}
  for name in config.evaluation.stages or config.recipe:
    if not {*criteria.UNLABELLED} & {*criteria_of(runs[0].stage(name), config)}:
      continue
    complete = [run for run in runs if (run.workdir / name / stage_folder.RECORD).exists()]
    for run in complete:
      if FILE in stage_folder.read_record(run.workdir / name)['files']:  # else trained without
        stage_folder.check_files(run.workdir / name, FILE)
        scores = read(run.workdir / name)
        found.setdefault(name, []).append(choices.Recorded(scores['table'], scores['chosen']))
  return choices.describe(found) if found else []
