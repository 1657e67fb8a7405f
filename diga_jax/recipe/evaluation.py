"""What is measured of networks and of pseudo-labels, and the pictures of it."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from data_pipelines import atomic, label_tables
from data_pipelines.folder import Folder
from diga_jax import metrics
from diga_jax.inference import evaluate, label_quality
from diga_jax.parallel import processes
from diga_jax.recipe.experiment import Experiment, class_names, labelled, palette
from diga_jax.recipe.labels import pseudo_labelled, read_centroids
from diga_jax.report import pictures
from diga_jax.storage import stage_folder


def class_subsets(experiment: Experiment) -> dict[str, tuple[int, ...]]:
  """The class sets that a mean is given for: of Cityscapes' 19 also 16 and 13, as published."""
  data = experiment.config.data
  if data.names == 'cityscapes19' and not data.class_names:
    return metrics.CLASS_SUBSETS
  classes = experiment.config.data.classes
  return {str(classes): tuple(range(classes))}


def protocol(experiment: Experiment, name: str, key: str) -> dict[str, Any]:
  """What a number needs beside its measurement: data, class set, weights, step, seed."""
  result = stage_folder.read_record(experiment.workdir / name)['result']
  return {
    'protocol': experiment.config.evaluation.name,
    'data': key,
    'class_set': experiment.config.data.names,
    'network': experiment.config.evaluation.network,
    'step': result.get('step'),
    'seed': experiment.config.seed,
    'chosen_by': result.get('chosen_by'),
  }


def evaluation(
  experiment: Experiment, name: str, key: str, directory: pathlib.Path
) -> dict[str, Any]:
  """Evaluates a stage's network on a labelled set: metrics.json and pictures/."""
  settings = experiment.config.evaluation
  size = tuple(experiment.config.data.sets[key].evaluation_size) or None
  found = evaluate.evaluate(
    experiment.model,
    experiment.trained(name, settings.network),
    experiment.images(key),
    classes=experiment.config.data.classes,
    names=class_names(experiment),
    scales=settings.scales,
    flip=settings.flip,
    batch_size=experiment.rows(settings.batch_size),
    image_size=size,
    label_size=size,
    subsets=class_subsets(experiment),
    protocol=protocol(experiment, name, key),
    pictures=directory / 'pictures',
    count=settings.pictures,
    palette=palette(experiment),
    put=experiment.put,
  )
  found = {'name': name, **found}
  if processes.is_main_process():
    stage_folder.write_metrics(directory / 'metrics.json', found)
  return found


def kept_labels(
  experiment: Experiment, name: str, key: str, directory: pathlib.Path
) -> dict[str, Any]:
  """How much of the pseudo-labels is kept, by the pass and then by consensus, and pictures of it.

  The consensus is asked where the pass has centroids. If the target has labels, also how right the
  kept and the rejected ones are: target labels are used for this measurement only, after the fact.
  """
  stage, made = experiment.stage(name), experiment.workdir / name
  images = experiment.images(key, labelled(experiment, key))
  pseudo = pseudo_labelled(images, made)
  select = None
  if stage.centroids_from != 'none':
    select = functools.partial(
      label_quality.consensus_labels,
      experiment.trained(stage.start, stage.network),
      centroids=read_centroids(made),
      model=experiment.model,
    )
  found = label_quality.measure(
    pseudo,
    experiment.config.data.classes,
    select=select,
    truth=images if images.labels else None,
    names=class_names(experiment),
    batch_size=experiment.rows(1),
    put=experiment.put,
  )
  by = ' + '.join(
    [stage.selector] * (stage.selector != 'none') + ['consensus'] * (select is not None)
  )
  found = {'name': name, 'selector': by or 'none', **found}
  found['protocol'] = protocol(experiment, name, key)
  if processes.is_main_process():
    draw_kept(experiment, select, images, pseudo, directory / 'pictures')
    stage_folder.write_metrics(directory / 'metrics.json', found)
  return found


def draw_kept(
  experiment: Experiment,
  select: Callable[..., jax.Array] | None,
  images: Folder,
  pseudo: Folder,
  directory: pathlib.Path,
) -> None:
  """Pictures of image, truth if there is one, pseudo-label and what the consensus keeps."""
  count = min(experiment.config.evaluation.pictures, len(images))
  for index in np.linspace(0, len(images) - 1, count).round().astype(int):
    (image, truth), (_, labels) = images.read(index), pseudo.read(index)
    kept = None
    if select is not None:
      kept = np.asarray(select(image[None], labels[None].astype(np.int32))[0])
    picture = pictures.comparison_panels(
      image,
      truth=truth,
      pseudo=labels,
      consensus=None if kept is None else kept != label_tables.IGNORE,
      palette=palette(experiment),
      names=class_names(experiment),
    )
    atomic.write_png(directory / f'{images.ids[index]}.png', picture)
