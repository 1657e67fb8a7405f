"""What a stage makes, from config to files: trained networks, labels, measurements."""

import functools
import pathlib
import zipfile
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from data_pipelines import labels as label_tables
from data_pipelines.errors import BadInput
from data_pipelines.sources import Folder
from diga_jax import (
  artifact,
  files,
  hosts,
  label,
  metrics,
  mixing,
  optimizer,
  report,
  sharding,
  state,
  train,
)
from diga_jax import evaluate as evaluation_pass
from diga_jax.experiment import Experiment
from diga_jax.stages import self_training, translator, warmup

STEPS = {
  'translator': translator.train_step,
  'warmup': warmup.train_step,
  'self_training': self_training.train_step,
}


def network(experiment: Experiment, name: str, directory: pathlib.Path) -> dict[str, Any]:
  """Trains a translator or a segmentation network in a folder."""
  config, stage = experiment.config, experiment.stage(name)
  is_translator = stage.kind == 'translator'
  start = translator_start if is_translator else network_start
  try:
    model, tx, initial, frozen = start(experiment, stage)
  except BadInput:
    raise
  except ValueError as error:  # a pattern of the optimizer that fits no parameter
    raise BadInput(f'config.stages.{name}.optimizer: {error}') from error
  target = None
  if stage.kind == 'self_training':
    pseudo = experiment.workdir / stage.labels / 'labels' / '{id}.png'
    target = experiment.images(stage.batch.target, labelled=False).with_labels(str(pseudo))
  elif experiment.uses_target(stage):
    target = experiment.images(stage.batch.target, labelled=False)
  settings = SimpleNamespace(stage=stage, translator=config.translator)
  step = train.train(
    functools.partial(STEPS[stage.kind], model=model, tx=tx, config=settings),
    initial,
    frozen,
    experiment.batches(stage, target),
    name=name,
    steps=stage.steps,
    directory=directory,
    mesh=experiment.mesh,
    parallel=config.parallel,
    learning_rate=functools.partial(optimizer.learning_rate, schedule(stage)),
    save_every=config.save_every,
    log_every=config.log_every,
    profile_steps=tuple(config.profile_steps),
    score=None if is_translator or config.choose == 'last' else oracle(experiment),
  )
  return {'step': step, 'steps': stage.steps, 'chosen_by': config.choose}


def schedule(stage: ConfigDict) -> dict[str, Any]:
  """The optimizer's settings with the decay's length filled in."""
  settings = stage.optimizer.to_dict()
  return settings | {'total': settings['total'] or stage.steps}


def translator_start(
  experiment: Experiment, stage: ConfigDict
) -> tuple[dict[str, Any], Any, state.TrainState, Any]:
  """(networks, optimizer, state at step 0, VGG-19's parameters or None)."""
  settings = experiment.config.translator
  vgg, frozen = experiment.perceptual_network()
  if frozen is None:
    logging.warning('translator.vgg is empty: training without the perceptual term')
  root = jax.random.key(experiment.config.seed)
  params = jax.jit(lambda key: translator.initial_params(key, settings, (64, 64)))(
    jax.random.fold_in(root, 1)
  )
  tx = {half: optimizer.build(schedule(stage), tree) for half, tree in params.items()}
  initial = translator.create_state(root, params, tx)
  model = {'vgg': vgg} | translator.networks(settings)
  return model, tx, sharding.replicate(initial, experiment.mesh), frozen


def network_start(
  experiment: Experiment, stage: ConfigDict
) -> tuple[Any, Any, state.TrainState, Any]:
  """(network, optimizer, state at step 0, the translator's parameters or None)."""
  network = experiment.network(stage.start) if stage.start else experiment.initial_variables()
  centroids = ()
  if stage.kind == 'self_training':
    centroids = read_centroids(experiment.workdir / stage.labels)
  tx = optimizer.build(schedule(stage), network['params'])
  initial = state.create(
    jax.random.key(experiment.config.seed),
    network['params'],
    tx,
    batch_stats=network['batch_stats'],
    centroids=centroids,
  )
  frozen = None
  if experiment.config.translator.kind == 'network' and experiment.uses_translation(stage):
    frozen = experiment.translator(stage.translator)
  return experiment.model, tx, sharding.replicate(initial, experiment.mesh), frozen


def oracle(experiment: Experiment) -> Callable[[state.TrainState], float]:
  """state -> mIoU on the first evaluation set: the published choice, which uses its labels."""
  settings = experiment.config.evaluation
  source = experiment.images(settings.sets[0])

  def score(current: state.TrainState) -> float:
    variables = {'params': current.params, 'batch_stats': current.batch_stats}
    found = evaluation_pass.evaluate(
      experiment.model,
      sharding.onto(variables, experiment.own_mesh),
      source,
      classes=experiment.config.data.classes,
      scales=settings.scales,
      flip=settings.flip,
      batch_size=experiment.rows(settings.batch),
      progress=False,
      put=experiment.put,
    )
    return float(found['mean_iou'])

  return score


def labels(experiment: Experiment, name: str, directory: pathlib.Path) -> dict[str, Any]:
  """The label pass in a folder: labels/ID.png for every target image, and centroids.npz."""
  stage, classes = experiment.stage(name), experiment.config.data.classes
  target = experiment.images(stage.target, labelled=False)
  variables = experiment.trained(stage.start)
  counts = label.pseudo_labels(
    experiment.model,
    variables,
    target,
    directory / 'labels',
    classes=classes,
    scales=stage.scales,
    batch_size=experiment.rows(1),
    put=experiment.put,
  )
  means, images = label_centroids(experiment, stage, variables)
  if hosts.is_first():
    with files.replacing(directory / 'centroids.npz') as temporary, open(temporary, 'wb') as file:
      np.savez(file, centroids=means, counts=images)
  absent = [class_names(experiment)[i] for i in np.flatnonzero(np.asarray(images) == 0)]
  if absent:
    logging.warning('%s: no centroid for %s: no image shows it', name, ', '.join(absent))
  return {'images': len(target), 'pixels': counts.tolist()}


def label_centroids(
  experiment: Experiment, stage: ConfigDict, variables: Any
) -> tuple[jax.Array, jax.Array]:
  """(centroids [C, D], counts [C]) from target or from source images."""
  config = experiment.config
  name = stage.target if stage.centroids_from == 'target' else stage.source
  options = {
    'size': tuple(config.data.sets[name].low_size) or None,
    'passes': stage.passes,
    'cap': stage.cap,
    'batch_size': experiment.rows(1),
    'put': experiment.put,
  }
  images = experiment.images(name, labelled=name == stage.source)
  if stage.centroids_from == 'target':
    return label.centroids(experiment.model, variables, images, **options)
  view = None
  if config.translator.kind == 'network':
    params = sharding.onto(experiment.translator(stage.translator), experiment.own_mesh)
    view = source_mixture(experiment, params)
  return label.centroids_from_source(experiment.model, variables, images, view=view, **options)


def source_mixture(experiment: Experiment, params: Any) -> label.View:
  """Mixes source images with their translation, classes drawn by the image's position."""
  root = jax.random.fold_in(jax.random.key(experiment.config.seed), 2)

  @jax.jit
  def view(images: jax.Array, truth: jax.Array, indices: jax.Array) -> jax.Array:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(root, indices)
    translated = translator.translate(params, images, experiment.config.translator)
    return mixing.paste(mixing.class_mask(keys, truth), images, translated)

  return view


def read_centroids(directory: pathlib.Path) -> np.ndarray:
  """The centroids [C, D] of a complete label stage; raises BadInput if the file is damaged."""
  path = directory / 'centroids.npz'
  try:
    with np.load(path) as found:
      return found['centroids']
  except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
    raise BadInput(f'{path}: missing or damaged; delete {directory} to label again') from error


# Measurements.


def class_names(experiment: Experiment) -> tuple[str, ...]:
  return label_tables.NAMES[experiment.config.data.names]


def class_subsets(experiment: Experiment) -> dict[str, tuple[int, ...]]:
  """The class sets that a mean is given for: of Cityscapes' 19 also 16 and 13, as published."""
  if experiment.config.data.names == 'cityscapes19':
    return metrics.CLASS_SUBSETS
  classes = experiment.config.data.classes
  return {str(classes): tuple(range(classes))}


def palette(experiment: Experiment) -> np.ndarray:
  return label_tables.PALETTE[experiment.config.data.names]


def labelled(experiment: Experiment, key: str) -> bool:
  """Whether a data set has labels by its settings."""
  settings = experiment.config.data.sets[key]
  return settings.kind == 'scenes' or bool(settings.labels)


def protocol(experiment: Experiment, name: str, key: str) -> dict[str, Any]:
  """What a number needs beside its measurement: data, class set, weights, step, seed."""
  result = artifact.read_record(experiment.workdir / name)['result']
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
  found = evaluation_pass.evaluate(
    experiment.model,
    experiment.trained(name, settings.network),
    experiment.images(key),
    classes=experiment.config.data.classes,
    names=class_names(experiment),
    scales=settings.scales,
    flip=settings.flip,
    batch_size=experiment.rows(settings.batch),
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
  if hosts.is_first():
    report.write_metrics(directory / 'metrics.json', found)
  return found


def consensus(
  experiment: Experiment, name: str, key: str, directory: pathlib.Path
) -> dict[str, Any]:
  """How much of the pseudo-labels the consensus keeps, and pictures of it.

  If the target has labels, also how right the kept and the rejected ones are: target labels are
  used for this measurement only, after the fact.
  """
  stage, made = experiment.stage(name), experiment.workdir / name
  images = experiment.images(key, labelled(experiment, key))
  pseudo = images.with_labels(str(made / 'labels' / '{id}.png'))
  variables, means = experiment.trained(stage.start), read_centroids(made)
  found = label.consensus(
    experiment.model,
    variables,
    means,
    pseudo,
    truth=images if images.labels else None,
    names=class_names(experiment),
    batch_size=experiment.rows(1),
    put=experiment.put,
  )
  if hosts.is_first():
    draw_consensus(experiment, variables, means, images, pseudo, directory / 'pictures')
  found = {'name': name, **found, 'protocol': protocol(experiment, name, key)}
  if hosts.is_first():
    report.write_metrics(directory / 'metrics.json', found)
  return found


def draw_consensus(
  experiment: Experiment,
  variables: Any,
  means: np.ndarray,
  images: Folder,
  pseudo: Folder,
  directory: pathlib.Path,
) -> None:
  """Pictures of image, truth if there is one, pseudo-label and what the consensus keeps."""
  count = min(experiment.config.evaluation.pictures, len(images))
  for index in np.linspace(0, len(images) - 1, count).round().astype(int):
    (image, truth), (_, labels) = images.read(index), pseudo.read(index)
    kept = label.consensus_labels(
      variables, image[None], labels[None].astype(np.int32), means, model=experiment.model
    )
    picture = report.strip(
      image,
      truth=truth,
      pseudo=labels,
      consensus=np.asarray(kept[0]) != label_tables.IGNORE,
      palette=palette(experiment),
      names=class_names(experiment),
    )
    files.write_png(directory / f'{images.ids[index]}.png', picture)
