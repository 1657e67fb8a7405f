"""Training stages, from config to a trained network in a folder."""

import functools
import operator
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from data_pipelines import pipeline
from data_pipelines.copy_paste import CopyPaste
from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder
from diga_jax import class_watch, criteria, models, optimizer, train
from diga_jax.models import translator
from diga_jax.parallel import mesh, processes
from diga_jax.parallel.example_keys import root_key
from diga_jax.parallel.mesh import local_rows, replicate
from diga_jax.recipe import checkpoints, iou_curve, labels, starts
from diga_jax.recipe.experiment import Experiment, Run, class_names
from diga_jax.stages.kinds import criteria_of, inputs, kind_of
from diga_jax.stages.setup import schedule
from diga_jax.state import TrainState
from diga_jax.storage import checkpoint, run_record
from diga_jax.types import CheckpointTable, Metrics, Params, PyTree, StepConfig, Variables


def train_stage(run: Run, name: str, directory: pathlib.Path) -> dict[str, PyTree]:
  """Trains the network of a stage in a folder; returns the stage's result."""
  config, stage = run.config, run.stage(name)
  scored, kept = criteria_of(stage, config), checkpoint.networks_kept(directory)
  skipped: dict[str, str] | None = {} if config.data.on_bad_file == 'skip' else None
  if not kept:
    table = train_to_end(run, name, directory, skipped)
    # One listing for all: a network file system may show the other processes fewer yet.
    available = processes.exchange(checkpoint.steps_in(directory / checkpoint.FOLDER))[0]
    chosen = checkpoints.choose(run, name, table, available)
    if scored:
      checkpoints.write(directory, table, chosen)
    if config.keep_checkpoints == 'networks':
      checkpoint.keep_networks(directory, chosen.values())
  else:
    chosen = checkpoints.read(directory)['chosen'] if scored else {criteria.LAST: kept[-1]}
  step = chosen.get(config.checkpoint_choice, chosen.get(criteria.LAST))
  result = {'step': step, 'steps': stage.steps, 'chosen_by': config.checkpoint_choice}
  if (seen := class_watch.summary(directory)) is not None:
    result['class_balance'] = seen
  if config.criteria.record and scored:
    result['kept'] = chosen
  return result | ({} if skipped is None else report_skipped(name, skipped))


def train_to_end(
  run: Run, name: str, directory: pathlib.Path, skipped: dict[str, str] | None
) -> CheckpointTable:
  """The training itself; returns the scores of the checkpoints.

  Adds skipped files to `skipped`, unless None.
  """
  config, stage = run.config, run.stage(name)
  arrays = read_arrays(run, stage)
  step_fn, initial = start(run, name, arrays)
  options = train.Options(
    name=name,
    steps=stage.steps,
    directory=directory,
    mesh=run.mesh,
    parallel=config.parallel,
    learning_rate=functools.partial(
      optimizer.learning_rate, schedule(stage.optimizer, stage.steps)
    ),
    save_every=config.save_every,
    log_every=config.log_every,
    profile_steps=tuple(config.profile_steps),
    criteria=criteria_of(stage, config),
    score=checkpoints.scorer(run, name),
    classes=class_names(run) if kind_of(stage).trains == 'segmentation' else (),
    note_pace=functools.partial(run_record.note_pace, run.workdir, name),
    open_writer=functools.partial(run.writer, directory),
    evaluate_every=config.evaluate_every,
    evaluate=iou_curve.measurer(run, name, directory),
  )
  batches_from = functools.partial(batches, run, name, skipped=skipped, **target_of(run, stage))
  initial = replicate(initial, run.mesh)
  return train.train(step_fn, initial, arrays.frozen, batches_from, options)


def check_memory(experiment: Experiment, name: str) -> None:
  """Refuses a stage of which the largest arrays do not fit into a device's memory.

  They are the parameters of student, teacher and gradient, and at the size of the crop the images
  and the logits, or the translator's first layer, in float32. A step needs several times as much.

  Raises:
    BadInput: naming the fields that make it smaller.
  """
  config, stage = experiment.config, experiment.stage(name)
  if kind_of(stage).trains == 'translator':
    params, channels = translator.shapes(config.translator), config.translator.width
  else:
    params, channels = experiment.shapes['params'], config.data.classes
  rows = -(-(stage.batch.low_rows + stage.batch.full_rows) // experiment.mesh.size)
  pixels = rows * config.data.crop[0] * config.data.crop[1]
  numbers = 3 * sum(leaf.size for leaf in jax.tree.leaves(params)) + pixels * (3 + channels)
  remedy = f'lower data.crop, the rows of stages.{name}.batch, or the sizes of the network'
  mesh.check_memory(4 * numbers, f'config.stages.{name}', remedy)


# What a stage starts from.


class Arrays(NamedTuple):
  """What a stage starts from: arrays, or their shapes.

  Attributes:
    variables: of the network that it trains.
    centroids: [C, D], or () for a stage without.
    frozen: parameters of a network that its step reads: the translator's for a segmentation
      network, VGG-19's for the translator; None for none.
  """

  variables: Variables
  centroids: PyTree = ()
  frozen: Params | None = None


def start(
  experiment: Experiment, name: str, arrays: Arrays, make: Callable[..., PyTree] | None = None
) -> tuple[Callable[..., tuple[TrainState, Metrics]], TrainState]:
  """A stage's step, (state, batch, frozen) -> (state, metrics), and the state that it starts from.

  Args:
    experiment, name: the config, and the stage.
    arrays: what it starts from (`read_arrays`, `random_arrays`).
    make: (function, *arguments) -> its result, such as jax.eval_shape; None: calls the function.

  Raises:
    BadInput: the stage is not trained, or a pattern of its optimizer matches no parameter.
  """
  config, stage = experiment.config, experiment.stage(name)
  kind = kind_of(stage)
  settings = StepConfig(stage, config.translator, config.model.precision)
  if kind.train_step is None:
    raise BadInput(f'stage {name!r} is not trained')
  try:
    model, tx, create = kind.set_up(experiment.model, settings, arrays.variables)
  except BadInput:
    raise
  except ValueError as error:
    raise BadInput(f'config.stages.{name}.optimizer: {error}') from error
  create = functools.partial(create, root_key(config.seed, experiment.stream(name)))
  step = functools.partial(kind.train_step, model=model, tx=tx, config=settings)
  given = arrays.variables, arrays.centroids
  return step, make(create, *given) if make else create(*given)


def abstract_state(experiment: Experiment, name: str) -> TrainState:
  """The state that a training stage starts from, as jax.ShapeDtypeStruct; raises as `start`."""
  is_translator = kind_of(experiment.stage(name)).trains == 'translator'
  config = experiment.config
  shapes = {'params': translator.shapes(config.translator)} if is_translator else experiment.shapes
  return start(experiment, name, Arrays(shapes), jax.eval_shape)[1]


def read_arrays(run: Run, stage: ConfigDict) -> Arrays:
  """What a stage starts from in a working directory: complete stages, and files of weights.

  Raises:
    BadInput: a stage that it reads is not complete, or a file is missing, damaged or does not fit.
  """
  reads = inputs(stage, run.config)
  if kind_of(stage).trains == 'translator':
    params = starts.initial_translator(run, stage)
    return Arrays({'params': params}, (), starts.perceptual_parameters(run))
  return Arrays(
    variables=starts.variables_of(run, stage),
    centroids=labels.read_centroids(run.workdir / reads.labels)[0] if reads.centroids else (),
    frozen=run.translator(reads.translator) if reads.translator else None,
  )


def random_arrays(experiment: Experiment, stage: ConfigDict) -> Arrays:
  """What a stage starts from, at random; traceable, so that its shapes cost nothing."""
  config = experiment.config
  key, *others = jax.random.split(jax.random.key(0), 3)
  reads, settings = inputs(stage, config), config.translator
  if kind_of(stage).trains == 'translator':
    vgg = models.build('vgg19_features')
    frozen = vgg.init(others[0], jnp.zeros((1, 64, 64, 3)))['params'] if settings.vgg else None
    return Arrays({'params': translator.initial_params(key, settings, (64, 64))}, (), frozen)
  image = jnp.zeros((1, 65, 65, 3))
  variables, centroids, frozen = experiment.model.init(key, image), (), None
  if reads.centroids:
    depth = jax.eval_shape(experiment.model.apply, variables, image)['feature'].shape[-1]
    centroids = jax.random.normal(others[0], (config.data.classes, depth))
  if reads.translator:
    frozen = translator.initial_params(others[1], settings, (64, 64))['generators']
  return Arrays(variables, centroids, frozen)


# The batches of a stage.


def target_of(run: Run, stage: ConfigDict) -> dict[str, PyTree]:
  """The target set of a stage, its pseudo-labels and the copy-paste sampler, where it has them.

  Raises:
    BadInput: the index is damaged or of other images, or no image holds a hard class.
  """
  reads = inputs(stage, run.config)
  if not reads.target:
    return {'target': None}
  target = run.images(reads.target, labelled=False)
  if not reads.labels:
    return {'target': target}
  made = run.workdir / reads.labels
  target = labels.with_pseudo_labels(target, made)
  if not reads.copy_paste:
    return {'target': target}
  index = labels.read_arrays(made / 'index.npz', 'ids', 'counts', 'confidence')
  if list(index['ids']) != list(target.ids):
    raise BadInput(
      f'{made / "index.npz"}: its images are not those of config.data.sets.{reads.target}: '
      'label again'
    )
  pasted = CopyPaste(index['counts'], index['confidence'], **stage.copy_paste.to_dict())
  return {'target': target, 'pasted': pasted}


def batches(
  experiment: Experiment,
  name: str,
  start: int,
  *,
  target: Folder | None,
  pasted: CopyPaste | None = None,
  skipped: dict[str, str] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
  """This process's rows of a stage's batches from step `start` on; see `pipeline.batches`."""
  settings, stream = experiment.stage(name).batch, experiment.stream(name)
  rows = local_rows(settings.low_rows + settings.full_rows, experiment.mesh)
  of = views(experiment, name, target, pasted)
  seed = experiment.config.seed
  return pipeline.batches(of, seed=seed, stream=stream, start=start, rows=rows, skipped=skipped)


def views(
  experiment: Experiment, name: str, target: Folder | None, pasted: CopyPaste | None = None
) -> dict[str, pipeline.View]:
  """What each domain contributes to a stage's batches."""
  config, stage = experiment.config, experiment.stage(name)
  data, settings, reads = config.data, stage.batch, inputs(stage, config)

  def view(images: Folder, name: str, cut: str, **options: PyTree) -> pipeline.View:
    return pipeline.View(
      images,
      low_rows=settings.low_rows,
      full_rows=settings.full_rows,
      low_size=tuple(data.sets[name].low_size) or None,
      full_size=tuple(data.sets[name].full_size) or None,
      crop=tuple(data.crop),
      cut=cut,
      heights=tuple(data.sets[name].zoom_heights),
      **options,
    )

  found = {}
  if reads.source:
    source = experiment.images(reads.source)
    found['source'] = view(source, reads.source, settings.source_crop, redraw=settings.redraw)
  if target is not None:
    found['target'] = view(target, reads.target, settings.target_crop, copy_paste=pasted)
  return found


def sizes_before_crops(experiment: Experiment) -> dict[str, set[tuple[int, int] | None]]:
  """By data set, the sizes that the recipe resizes images to before it crops them; None: its own.

  Windows of the crop 'zoom' are left out: they are never larger than the image.
  """
  config, found = experiment.config, {}
  for stage in map(experiment.stage, config.recipe):
    reads = inputs(stage, config)
    if 'batch' not in stage:
      continue
    for name, cut in (
      (reads.source, stage.batch.source_crop),
      (reads.target, stage.batch.target_crop),
    ):
      for kind in ('low', 'full') if name and cut != 'zoom' else ():
        if stage.batch[f'{kind}_rows']:
          found.setdefault(name, set()).add(tuple(config.data.sets[name][f'{kind}_size']) or None)
  return found


def report_skipped(stage: str, skipped: Mapping[str, str]) -> dict[str, PyTree]:
  """Warns of the files that training skipped, in any process; for the stage's result."""
  everywhere = functools.reduce(operator.or_, processes.exchange(dict(skipped)))
  for path, reason in sorted(everywhere.items()):
    logging.warning('%s: %s was skipped: %s', stage, path, reason)
  logging.warning('%s: %d images were skipped', stage, len(everywhere))
  return {'skipped': dict(sorted(everywhere.items()))}
