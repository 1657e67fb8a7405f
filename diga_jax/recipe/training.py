"""Training stages, from config to a trained network in a folder."""

import functools
import pathlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from ml_collections import ConfigDict

from data_pipelines.copy_paste import CopyPaste
from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder
from diga_jax import models, optimizer, state, train
from diga_jax.inference import evaluate
from diga_jax.parallel import processes
from diga_jax.parallel.mesh import replicate, to_local_mesh
from diga_jax.recipe.experiment import Experiment, class_names
from diga_jax.recipe.labels import read_centroids, read_index, with_pseudo_labels
from diga_jax.stages import translator
from diga_jax.stages.kinds import is_adversarial, train_step


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
    target = with_pseudo_labels(target, made)
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
    score=None if is_translator or config.checkpoint_choice == 'last' else oracle(experiment),
  )
  result = {'step': step, 'steps': stage.steps, 'chosen_by': config.checkpoint_choice}
  return result | skipped_files(experiment, name)


def skipped_files(experiment: Experiment, stage: str) -> dict[str, Any]:
  """What training went on without, if it was told to: for the stage's result, and said aloud."""
  if experiment.config.data.on_bad_file != 'skip':
    return {}
  skipped: dict[str, str] = {}
  for found in processes.exchange(experiment.skipped):
    skipped |= found
  for path, reason in sorted(skipped.items()):
    logging.warning('%s: %s was skipped: %s', stage, path, reason)
  logging.warning('%s: %d images were skipped', stage, len(skipped))
  return {'skipped': dict(sorted(skipped.items()))}


def schedule(settings: ConfigDict, steps: int) -> dict[str, Any]:
  """An optimizer's settings with the decay's length filled in."""
  settings = settings.to_dict()
  return settings | {'decay_steps': settings['decay_steps'] or steps}


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
  return model, tx, replicate(initial, experiment.mesh), frozen


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
  return model, tx, replicate(initial, experiment.mesh), frozen


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
  dataset = experiment.images(experiment.config.evaluation.sets[0])

  def score(current: state.TrainState) -> float:
    variables = {'params': current.params, 'batch_stats': current.batch_stats}
    predictor = experiment.predictor_of(to_local_mesh(variables, experiment.local_mesh))
    names = class_names(experiment)
    return float(evaluate.evaluate(predictor, dataset, names, progress=False)['mean_iou'])

  return score
