"""What a stage makes, from config to files: trained networks, labels, measurements."""

import functools
import pathlib
import zipfile
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from data_pipelines import labels as label_tables
from data_pipelines.copy_paste import CopyPaste
from data_pipelines.errors import BadInput
from data_pipelines.sources import Folder
from diga_jax import (
  artifact,
  files,
  hosts,
  label,
  metrics,
  mixing,
  models,
  optimizer,
  quality,
  report,
  sharding,
  state,
  train,
)
from diga_jax import evaluate as evaluation_pass
from diga_jax.experiment import Experiment
from diga_jax.stages import adversarial, hiast, self_training, translator, warmup

LABEL_SHARDS = 'shards'  # of a label stage's labels, beside labels/

STEPS = {
  'translator': translator.train_step,
  'warmup': warmup.train_step,
  'self_training': self_training.train_step,
  'hiast': hiast.train_step,
}


def train_step(stage: ConfigDict) -> Callable[..., Any]:
  """The step of a training stage."""
  return adversarial.train_step if is_adversarial(stage) else STEPS[stage.kind]


def is_adversarial(stage: ConfigDict) -> bool:
  return stage.kind == 'warmup' and stage.method == 'adversarial'


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
  target = pasted = None
  if experiment.uses_target(stage):
    target = experiment.images(stage.batch.target, labelled=False)
  if experiment.uses_labels(stage):
    made = experiment.workdir / stage.labels
    target = pseudo_labelled(target, made)
    if stage.target_mixing == 'copy_paste':
      pasted = copy_paste(stage, made, target)
  settings = SimpleNamespace(stage=stage, translator=config.translator)
  experiment.skipped.clear()  # of the stage before
  step = train.train(
    functools.partial(train_step(stage), model=model, tx=tx, config=settings),
    initial,
    frozen,
    experiment.batches(stage, target, pasted),
    name=name,
    steps=stage.steps,
    directory=directory,
    mesh=experiment.mesh,
    parallel=config.parallel,
    learning_rate=functools.partial(
      optimizer.learning_rate, schedule(stage.optimizer, stage.steps)
    ),
    save_every=config.save_every,
    log_every=config.log_every,
    profile_steps=tuple(config.profile_steps),
    score=None if is_translator or config.choose == 'last' else oracle(experiment),
  )
  result = {'step': step, 'steps': stage.steps, 'chosen_by': config.choose}
  return result | skipped_files(experiment, name)


def pseudo_labelled(target: Folder, made: pathlib.Path) -> Folder:
  """The target with the labels of a complete label stage, from shards where they were packed."""
  found = target.with_labels(str(made / 'labels' / '{id}.png'))
  if not (made / LABEL_SHARDS).exists():
    return found
  from data_pipelines import shards  # TensorFlow Datasets takes seconds to import

  return shards.packed(found, shards.Pack(made / LABEL_SHARDS))


def skipped_files(experiment: Experiment, stage: str) -> dict[str, Any]:
  """What training went on without, if it was told to: for the stage's result, and said aloud."""
  if experiment.config.data.on_bad_file != 'skip':
    return {}
  skipped: dict[str, str] = {}
  for found in hosts.exchange(experiment.skipped):
    skipped |= found
  for path, reason in sorted(skipped.items()):
    logging.warning('%s: %s was skipped: %s', stage, path, reason)
  logging.warning('%s: %d images were skipped', stage, len(skipped))
  return {'skipped': dict(sorted(skipped.items()))}


def schedule(settings: ConfigDict, steps: int) -> dict[str, Any]:
  """An optimizer's settings with the decay's length filled in."""
  settings = settings.to_dict()
  return settings | {'total': settings['total'] or steps}


def translator_start(
  experiment: Experiment, stage: ConfigDict
) -> tuple[dict[str, Any], Any, state.TrainState, Any]:
  """(networks, optimizer, state at step 0, VGG-19's parameters or None)."""
  settings = experiment.config.translator
  vgg, frozen = experiment.perceptual_network()
  if frozen is None:
    logging.warning('translator.vgg is empty: training without the perceptual term')
  root = jax.random.key(experiment.config.seed)
  params = experiment.initial_translator()
  decay = schedule(stage.optimizer, stage.steps)
  tx = {half: optimizer.build(decay, tree) for half, tree in params.items()}
  initial = translator.create_state(root, params, tx)
  model = {'vgg': vgg} | translator.networks(settings)
  return model, tx, sharding.replicate(initial, experiment.mesh), frozen


def network_start(
  experiment: Experiment, stage: ConfigDict
) -> tuple[Any, Any, state.TrainState, Any]:
  """(network, optimizer, state at step 0, the translator's parameters or None)."""
  variables = experiment.network(stage.start) if stage.start else experiment.initial_variables()
  centroids = ()
  if experiment.uses_centroids(stage):
    centroids = read_centroids(experiment.workdir / stage.labels)
  model, tx, create = segmentation(experiment, stage, variables['params'])
  initial = create(variables, centroids)
  frozen = None
  if experiment.config.translator.kind == 'network' and experiment.uses_translation(stage):
    frozen = experiment.translator(stage.translator)
  return model, tx, sharding.replicate(initial, experiment.mesh), frozen


def segmentation(
  experiment: Experiment, stage: ConfigDict, params: Any
) -> tuple[Any, Any, Callable[..., state.TrainState]]:
  """What trains a segmentation network, from its parameters or their shapes.

  Returns:
    The network and its optimizer (for the adversarial warm-up a dict of two of each), and
    (variables, centroids) -> the state at step 0.
  """
  model = experiment.model
  tx = optimizer.build(schedule(stage.optimizer, stage.steps), params)
  judge = None
  if is_adversarial(stage):
    judge = models.build(
      'output_discriminator',
      classes=experiment.config.data.classes,
      width=stage.adversarial.width,
      dtype=experiment.config.model.dtype,
    )
    settings = schedule(stage.adversarial.optimizer, stage.steps)
    judge_tx = optimizer.build(settings, models.shapes(judge)['params'])
    model, tx = (
      {'network': ours, 'discriminator': its} for ours, its in ((model, judge), (tx, judge_tx))
    )

  def create(variables: Any, centroids: Any) -> state.TrainState:
    root = jax.random.key(experiment.config.seed)
    discriminator = ()
    if judge is not None:
      image = jnp.zeros((1, 64, 64, experiment.config.data.classes))
      its_params = judge.init(jax.random.fold_in(root, 3), image)['params']
      discriminator = {'params': its_params, 'opt_state': judge_tx.init(its_params)}
    return state.create(
      root,
      variables['params'],
      tx if judge is None else tx['network'],
      batch_stats=variables['batch_stats'],
      centroids=centroids,
      discriminator=discriminator,
    )

  return model, tx, create


def copy_paste(stage: ConfigDict, made: pathlib.Path, target: Folder) -> CopyPaste:
  """Who lends hard classes to whom, by the index of a complete label stage.

  Raises:
    BadInput: the index is damaged or of other images, or no image holds a hard class.
  """
  index = read_index(made)
  if list(index['ids']) != list(target.ids):
    raise BadInput(
      f'{made / "index.npz"}: its images are not those of config.data.sets.{stage.batch.target}: '
      'label again'
    )
  settings = stage.copy_paste.to_dict()
  return CopyPaste(index['counts'], index['confidence'], **settings)


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
  """The label pass in a folder: labels/ID.png for every target image, index.npz, centroids.npz."""
  stage, names = experiment.stage(name), class_names(experiment)
  target = experiment.images(stage.target, labelled=False)
  variables = experiment.trained(stage.start, stage.network)
  seeds = np.random.SeedSequence([experiment.config.seed, 0])
  found = label.pseudo_labels(
    experiment.model,
    variables,
    target,
    directory / 'labels',
    classes=experiment.config.data.classes,
    selector=label.Selector(
      stage.selector,
      threshold=stage.threshold,
      share=stage.share,
      alpha=stage.alpha,
      beta=stage.beta,
      gamma=stage.gamma,
      batch=stage.batch,
    ),
    order=np.random.Generator(np.random.PCG64(seeds)).permutation(len(target)).tolist(),
    scales=stage.scales,
    image_size=tuple(stage.image_size) or None,
    batch_size=experiment.rows(1),
    put=experiment.put,
  )
  save_arrays(directory / 'index.npz', ids=np.array(target.ids), **found._asdict())
  warn_of(name, 'pseudo-label', found.counts.sum(0), names)
  if stage.centroids_from != 'none':
    means, images = label_centroids(experiment, stage, variables)
    save_arrays(directory / 'centroids.npz', centroids=means, counts=images)
    warn_of(name, 'centroid', images, names)
  return {'images': len(target), 'pixels': found.counts.sum(0).tolist()}


def save_arrays(path: pathlib.Path, **arrays: Any) -> None:
  """Writes an .npz file, whole or not at all, by one process."""
  if hosts.is_first():
    with files.replacing(path) as temporary, open(temporary, 'wb') as file:
      np.savez(file, **arrays)


def warn_of(stage: str, what: str, counts: Any, names: tuple[str, ...]) -> None:
  """Warns of the classes that nothing was found for; training goes on without them."""
  absent = [names[i] for i in np.flatnonzero(np.asarray(counts) == 0)]
  if absent:
    logging.warning('%s: no %s for %s: no image shows it', stage, what, ', '.join(absent))


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
  from_target = stage.centroids_from == 'target'
  images = experiment.images(name, labelled=not from_target)
  if from_target:
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
  return _read_arrays(directory / 'centroids.npz', 'centroids')['centroids']


def read_index(directory: pathlib.Path) -> dict[str, np.ndarray]:
  """What a complete label stage's labels hold: ids [N], counts [N, C], confidence [C]."""
  return _read_arrays(directory / 'index.npz', 'ids', 'counts', 'confidence')


def _read_arrays(path: pathlib.Path, *names: str) -> dict[str, np.ndarray]:
  try:
    with path.open('rb') as file, np.load(file) as found:
      return {name: found[name] for name in names}
  except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
    raise BadInput(f'{path}: missing or damaged; delete {path.parent} to label again') from error


# Measurements.


def class_names(experiment: Experiment) -> tuple[str, ...]:
  data = experiment.config.data
  return tuple(data.class_names) or label_tables.NAMES[data.names]


def class_subsets(experiment: Experiment) -> dict[str, tuple[int, ...]]:
  """The class sets that a mean is given for: of Cityscapes' 19 also 16 and 13, as published."""
  data = experiment.config.data
  if data.names == 'cityscapes19' and not data.class_names:
    return metrics.CLASS_SUBSETS
  classes = experiment.config.data.classes
  return {str(classes): tuple(range(classes))}


def palette(experiment: Experiment) -> np.ndarray:
  data = experiment.config.data
  return np.array(data.palette, np.uint8) if data.palette else label_tables.PALETTE[data.names]


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
      quality.consensus_labels,
      experiment.trained(stage.start, stage.network),
      centroids=read_centroids(made),
      model=experiment.model,
    )
  found = quality.measure(
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
  if hosts.is_first():
    draw_kept(experiment, select, images, pseudo, directory / 'pictures')
    report.write_metrics(directory / 'metrics.json', found)
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
    picture = report.strip(
      image,
      truth=truth,
      pseudo=labels,
      consensus=None if kept is None else kept != label_tables.IGNORE,
      palette=palette(experiment),
      names=class_names(experiment),
    )
    files.write_png(directory / f'{images.ids[index]}.png', picture)
