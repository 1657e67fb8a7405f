"""mIoU of a network while it trains, every `evaluate_every` steps, on the evaluation sets.

It reads their labels, for this curve alone: no step and no choice of a checkpoint depends on it.
The numbers of a stage are kept in a file of its folder, by step: what a run that was killed has
measured is not measured, written or shown a second time.
"""

import pathlib
import tempfile
from collections.abc import Callable
from typing import TypedDict

from absl import logging
from clu.metric_writers import MetricWriter

from data_pipelines import records
from data_pipelines.errors import BadInput
from diga_jax.inference.forward import Predictor
from diga_jax.parallel import processes
from diga_jax.parallel.mesh import to_local_mesh
from diga_jax.recipe import evaluation
from diga_jax.recipe.experiment import Run, class_names
from diga_jax.stages.kinds import is_chosen
from diga_jax.state import NETWORKS, TrainState
from diga_jax.types import PyTree

FILE = 'iou_curve.json'
NOTE = 'measured on its labels, for the curve alone'
REDO = 'the curve is begun anew'


class Curve(TypedDict):
  """What FILE holds.

  Attributes:
    ways: data set -> what its numbers depend on beside the network.
    points: the results of each step and data set, without the confusion matrix.
  """

  ways: dict[str, PyTree]
  points: list[PyTree]


def way(run: Run, key: str) -> dict[str, PyTree]:
  """How a data set is measured: points of one curve agree in this."""
  settings, size = run.config.evaluation, run.config.data.sets[key].evaluation_size
  found = evaluation.protocol_on(run, key) | {
    'network': settings.network,
    'scales': list(settings.scales),
    'flip': settings.flip,
    'size': list(size),
    'classes': list(class_names(run)),
  }
  return found | ({'programs': run.config.programs} if run.shape_plan(key, size) else {})


def read(directory: pathlib.Path) -> Curve:
  """The curve of a stage, complete or not; raises BadInput if its file is missing or damaged."""
  found = records.read(directory / FILE, REDO, 'ways', 'points')
  return {'ways': found['ways'], 'points': found['points']}


def check(run: Run, name: str) -> None:
  """Refuses to go on with a curve that was measured in another way; raises BadInput."""
  place = run.workdir / f'{name}.partial'
  if not run.config.evaluate_every or not (place / FILE).exists():
    return
  for key, old in begun(place)['ways'].items():
    now = way(run, key) if key in run.config.evaluation.sets else {}
    for field in sorted(old.keys() | now.keys()):
      if old.get(field, 'absent') != now.get(field, 'absent'):
        raise BadInput(
          f'{place / FILE}: {field} of {key!r} was {old.get(field, "absent")}, and is '
          f'{now.get(field, "absent")} now: set it back, or set config.evaluate_every=0, or remove '
          'this file to begin the curve anew'
        )


def begun(directory: pathlib.Path) -> Curve:
  """The curve so far; an empty one, with a warning, if its file is damaged."""
  if (directory / FILE).exists():
    try:
      return read(directory)
    except BadInput as error:
      logging.warning('%s', error)
  return {'ways': {}, 'points': []}


def measurer(
  run: Run, name: str, directory: pathlib.Path
) -> Callable[[TrainState, int, MetricWriter | None], list[str]] | None:
  """(state, step, writer) -> what was measured, a line for each set; None if nothing is to be.

  The point is written to the stage's folder and by the writer, if there is one. A step that the
  stage has already gives no lines. All processes must ask.
  """
  if not run.config.evaluate_every or not is_chosen(run.stage(name)):
    return None
  ways = {key: way(run, key) for key in run.config.evaluation.sets}
  first = begun(directory) if processes.is_main_process() else None
  curve: Curve = processes.exchange(first)[0] or {'ways': {}, 'points': []}

  def measure(state: TrainState, step: int, writer: MetricWriter | None) -> list[str]:
    known = {point['data'] for point in curve['points'] if point['step'] == step}
    if known.issuperset(ways):
      return []
    predictor = predictor_of(run, state)
    found = [point(run, predictor, key, step) for key in ways if key not in known]
    curve['points'] += found
    if processes.is_main_process():
      records.write(directory / FILE, {'ways': ways, 'points': curve['points']})
    if writer:
      write(run, predictor, found, step, writer)
    return [describe(each, name) for each in found]

  return measure


def predictor_of(run: Run, state: TrainState) -> Predictor:
  """The network of the protocol, student or teacher, as the state has it."""
  part = NETWORKS[run.config.evaluation.network]
  variables = {'params': getattr(state, part), 'batch_stats': state.batch_stats}
  return run.predictor_of(to_local_mesh(variables, run.local_mesh))


def point(run: Run, predictor: Predictor, key: str, step: int) -> dict[str, PyTree]:
  """The results of a network on a data set after `step` steps."""
  found = evaluation.scores_in_training(run, predictor, key)
  kept = ('mean_iou', 'mean_iou_subsets', 'pixel_accuracy', 'iou', 'images')
  return {'step': step, 'data': key, **{field: found[field] for field in kept}}


def write(
  run: Run, predictor: Predictor, found: list[dict[str, PyTree]], step: int, writer: MetricWriter
) -> None:
  """Writes points as scalars, and what the network makes of the fixed target images."""
  numbers: dict[str, float | None] = {}
  for each in found:
    key = each['data']
    numbers |= {f'mean_iou/{key}': each['mean_iou']}
    numbers |= {f'mean_iou/{key}/{name}': x for name, x in each['mean_iou_subsets'].items()}
    numbers |= {f'iou/{key}/{name}': x for name, x in each['iou'].items()}
  writer.write_scalars(step, {tag: x for tag, x in numbers.items() if x is not None})
  with tempfile.TemporaryDirectory() as folder:
    place, key = pathlib.Path(folder), evaluation.labelled_by_passes(run) or found[0]['data']
    evaluation.draw_set(run, predictor, key, place / evaluation.TARGET_PICTURES)
    evaluation.write_pictures(writer, step, place)
  writer.flush()


def describe(found: PyTree, name: str) -> str:
  """A point in a line."""
  mean = found['mean_iou']
  text = 'no labelled pixel' if mean is None else f'mIoU {100 * mean:.1f}'
  return f'{name}: step {found["step"]}, {text} on {found["data"]} ({NOTE})'
