"""What is measured of networks and of pseudo-labels, and the pictures of it."""

import contextlib
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from clu.metric_writers import MetricWriter
from PIL import Image

from data_pipelines import atomic, label_tables
from data_pipelines.folder import Folder
from diga_jax import metrics
from diga_jax.inference import evaluate, label_quality
from diga_jax.inference.forward import Predictor
from diga_jax.parallel import processes
from diga_jax.recipe import starts
from diga_jax.recipe.experiment import (
  Experiment,
  Run,
  class_names,
  has_labels,
  palette,
)
from diga_jax.recipe.labels import read_centroids, save_arrays, with_pseudo_labels
from diga_jax.report import pictures
from diga_jax.stages.kinds import NO_CENTROIDS, kind_of
from diga_jax.storage import stage_folder
from diga_jax.types import LabelRow, NetworkRow, NetworkScores, PyTree

TARGET_PICTURES = 'target_pictures'  # in the folder of a measurement of a network


def class_means(experiment: Experiment) -> metrics.Means:
  """The means that are reported of the config's classes."""
  data, way = experiment.config.data, experiment.config.evaluation.class_means
  return metrics.class_means(class_set(experiment), data.classes, way)


def class_set(experiment: Experiment) -> str:
  """What results call the config's classes; see `label_tables.class_set`."""
  return label_tables.class_set(experiment.config.data.names, experiment.config.data.class_names)


def protocol(experiment: Run, name: str, key: str) -> dict[str, PyTree]:
  """What a number needs beside its measurement: data, class set, weights, step, seed."""
  directory, step, chosen_by = stage_folder.network_of(experiment.workdir / name)
  record = stage_folder.read_record(directory)
  return protocol_on(experiment, key) | {
    'network': experiment.config.evaluation.network,
    'step': step,
    'seed': record['identity'].get('seed', experiment.config.seed),  # that it was trained with
    'chosen_by': chosen_by,
  }


def protocol_on(experiment: Experiment, key: str) -> dict[str, PyTree]:
  """The part of `protocol` that does not depend on who is measured."""
  return {
    'protocol': experiment.config.evaluation.name,
    'data': key,
    'class_set': class_set(experiment),
    'class_means': experiment.config.evaluation.class_means,
    'dtype': experiment.config.model.dtype,
    'precision': experiment.config.model.precision,
  }


def evaluate_network(experiment: Run, name: str, key: str, directory: pathlib.Path) -> NetworkRow:
  """Evaluates a stage's network on a labelled set; writes as `measure_network`.

  Beside that it writes curves for TensorBoard, and of the first set target_pictures/.
  """
  predictor = experiment.predictor(name, experiment.config.evaluation.network)
  found = measure_network(experiment, predictor, key, protocol(experiment, name, key), directory)
  if processes.is_main_process():
    if key == experiment.config.evaluation.sets[0]:
      draw_target(experiment, predictor, directory / TARGET_PICTURES)
    write_curves(experiment, directory, found)
  return {'name': name, **found}


def measure_network(
  experiment: Experiment,
  predictor: Predictor,
  key: str,
  protocol: Mapping[str, PyTree],
  directory: pathlib.Path,
) -> NetworkScores:
  """Evaluates a network on a labelled set: pictures/, and images.npz with each image's counts."""
  settings, images = experiment.config.evaluation, experiment.images(key)
  own: dict[str, np.ndarray] = {}
  size = tuple(experiment.config.data.sets[key].evaluation_size)
  planned = experiment.shape_plan(key, size)
  found = evaluate.evaluate(
    predictor,
    images,
    class_names(experiment),
    means=class_means(experiment),
    protocol={**protocol, **({'programs': experiment.config.programs} if planned else {})},
    size=size or None,
    planned=planned,
    pictures=evaluate.Pictures(directory / 'pictures', palette(experiment), settings.pictures),
    each=own.__setitem__,
  )
  save_counts(directory / 'images.npz', images.ids, own)
  return found


def scores_in_training(run: Run, predictor: Predictor, key: str) -> NetworkScores:
  """A network's results on a data set in the config's way, without a bar of its own or pictures."""
  size = tuple(run.config.data.sets[key].evaluation_size)
  return evaluate.evaluate(
    predictor,
    run.images(key),
    class_names(run),
    means=class_means(run),
    size=size or None,
    planned=run.shape_plan(key, size),
    progress=False,
  )


def draw_target(experiment: Run, predictor: Predictor, directory: pathlib.Path) -> None:
  """Pictures of a network's predictions on the images of which label passes are drawn.

  They are compared with the pseudo-labels; nothing is measured there.
  """
  target = labelled_by_passes(experiment)
  if target and target not in experiment.config.evaluation.sets:
    draw_set(experiment, predictor, target, directory)


def labelled_by_passes(experiment: Experiment) -> str:
  """The data set of the recipe's first label pass; '' without one."""
  stages = map(experiment.stage, experiment.config.recipe)
  return next((stage.target for stage in stages if kind_of(stage).train_step is None), '')


def draw_set(experiment: Run, predictor: Predictor, target: str, directory: pathlib.Path) -> None:
  """Pictures of a network's predictions on some images of a data set; by one process."""
  config = experiment.config
  images = experiment.images(target, has_labels(experiment, target))
  drawn = evaluate.Pictures(directory, palette(experiment), config.evaluation.pictures)
  evaluate.draw(predictor, images, class_names(experiment), drawn)


def write_curves(experiment: Run, directory: pathlib.Path, found: NetworkScores) -> None:
  """IoUs and pictures of a measurement for the trackers, at the step of its network."""
  step = found['protocol']['step'] or 0
  numbers = {f'iou/{name}': value for name, value in found['iou'].items() if value is not None}
  numbers |= {
    f'mean_iou/{name}': value
    for name, value in found['mean_iou_subsets'].items()
    if value is not None
  }
  with contextlib.closing(experiment.writer(directory, step)) as writer:
    writer.write_scalars(step, numbers)
    write_pictures(writer, step, directory)


def write_pictures(writer: MetricWriter, step: int, directory: pathlib.Path) -> None:
  """Writes the pictures in a folder for the trackers, each under its name there."""
  for folder in ('pictures', TARGET_PICTURES):
    for path in sorted((directory / folder).rglob('*.png')):
      name = path.relative_to(directory).with_suffix('').as_posix()
      with Image.open(path) as picture:
        writer.write_images(step, {name: np.asarray(picture.convert('RGB'))})


def save_counts(path: pathlib.Path, ids: Sequence[str], own: Mapping[str, np.ndarray]) -> None:
  """Writes pixels of intersection and union, int64 [images, C], with the ids that they are of.

  Args:
    path: the .npz file.
    ids: of all images.
    own: id -> confusion matrix [C, C], of this process's images.
  """
  everyones = dict(pair for found in processes.exchange(own) for pair in found.items())
  confusion = np.stack([everyones[name] for name in ids])
  hit = np.diagonal(confusion, axis1=1, axis2=2)
  union = confusion.sum(1) + confusion.sum(2) - hit
  save_arrays(path, ids=np.array(ids), intersection=hit, union=union)


def measure_labels(experiment: Run, name: str, key: str, directory: pathlib.Path) -> LabelRow:
  """How many pseudo-labels are kept, by the pass and then by consensus, and pictures of it.

  The consensus is asked where the pass has centroids. If the target has labels, also how right the
  kept and the rejected ones are: target labels are used for this measurement only, after the fact.
  """
  stage, made = experiment.stage(name), experiment.workdir / name
  images = experiment.images(key, has_labels(experiment, key))
  pseudo = with_pseudo_labels(images, made)
  select, selectors = None, [stage.selector] * (stage.selector != 'none')
  if stage.centroids_from != NO_CENTROIDS:
    selectors.append('consensus')
    select = functools.partial(
      label_quality.consensus_labels,
      starts.local_variables_of(experiment, stage),
      centroids=read_centroids(made)[0],
      model=experiment.model,
    )
  found = label_quality.measure(
    pseudo,
    class_names(experiment),
    select=select,
    truth=images if images.labels else None,
    batch_size=experiment.rows(1),
    place=experiment.put,
  )
  if processes.is_main_process():
    draw_labels(experiment, select, images, pseudo, directory / 'pictures')
  facts = protocol(experiment, name, key)
  return {'name': name, 'selector': ' + '.join(selectors) or 'none', **found, 'protocol': facts}


def draw_labels(
  experiment: Run,
  select: Callable[[np.ndarray, np.ndarray], jax.Array] | None,
  images: Folder,
  pseudo: Folder,
  directory: pathlib.Path,
) -> None:
  """Pictures of image, truth if there is one, pseudo-label and what the consensus keeps."""
  draw = functools.partial(
    pictures.comparison_panels, palette=palette(experiment), names=class_names(experiment)
  )
  for index in evaluate.evenly_spread(experiment.config.evaluation.pictures, len(images)):
    (image, truth), (_, labels) = images.read(index), pseudo.read(index)
    consensus = None
    if select is not None and labels is not None:
      selected = np.asarray(select(image[None], labels[None].astype(np.int32))[0])
      consensus = selected != label_tables.IGNORE
    picture = draw(image, truth=truth, pseudo=labels, consensus=consensus)
    atomic.write_png(directory / f'{images.ids[index]}.png', picture)
