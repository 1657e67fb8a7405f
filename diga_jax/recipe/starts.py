"""What a stage starts from: another stage's network, a file of weights, or random numbers."""

import jax
import jax.numpy as jnp
from absl import logging
from ml_collections import ConfigDict

from data_pipelines.errors import BadInput
from diga_jax import models, optimizer, weights
from diga_jax.models import translator
from diga_jax.parallel.example_keys import initial_key
from diga_jax.parallel.mesh import replicate, to_local_mesh
from diga_jax.recipe.experiment import Experiment, Run, check_finite, say
from diga_jax.stages.kinds import inputs, kind_of
from diga_jax.types import Params, Variables


def variables_of(run: Run, stage: ConfigDict) -> Variables:
  """The variables that a stage starts from: another stage's, those of a file, or random ones.

  Raises:
    BadInput: as `Run.network` and `initial_variables`.
  """
  start, is_pass = inputs(stage, run.config).start, kind_of(stage).train_step is None
  if start:
    return run.network(start, stage.get('network', 'student'))
  return initial_variables(run, file_of(run, stage), whole=is_pass)


def local_variables_of(run: Run, stage: ConfigDict) -> Variables:
  """As `variables_of`, on this process's devices: for the passes over images."""
  reads = inputs(stage, run.config)
  found = to_local_mesh(variables_of(run, stage), run.local_mesh)
  return check_finite(found, reads.start or reads.weights or run.config.model.weights)


def local_variables_in(experiment: Experiment, file: str) -> tuple[Variables, str]:
  """The variables in a file of weights that holds all of them, on this process's devices.

  Returns what of the file they are, in words, as well.

  Raises:
    BadInput: if the file is missing, damaged or of another network.
  """
  loaded = load_weights(experiment, file, whole=True)
  found = to_local_mesh(replicate(loaded.variables, experiment.mesh), experiment.local_mesh)
  return check_finite(found, file), loaded.said


def initial_variables(experiment: Experiment, file: str = '', whole: bool = False) -> Variables:
  """The network's variables before any training, and a line that says where they are from.

  Args:
    file: as the fields `weights` name it; '': that of `model.weights`, where '' is random too.
    whole: whether the file must hold the head as well, and no other layer may be missing.

  Raises:
    BadInput: if the file is missing, damaged or of another network.
  """
  key = initial_key(experiment.config.seed, 'network')
  variables = jax.jit(experiment.model.init)(key, jnp.zeros((1, 65, 65, 3)))
  file = file or experiment.config.model.weights
  if file in ('', weights.RANDOM):
    say(f"weights: all of the network's {len(jax.tree.leaves(variables))} entries are random")
  else:
    variables, _, said = load_weights(experiment, file, variables, whole)
    say(f'weights: {weights.path_of(file)}: {said}')
  return replicate(variables, experiment.mesh)


def load_weights(
  experiment: Experiment, file: str, variables: Variables | None = None, whole: bool = False
) -> weights.Loaded:
  """`weights.load_weights_into` the network (None: its shapes) as a start from the file does.

  Args:
    file: as the fields `weights` name it.
    variables: what stays where the file, without `whole`, lacks the head.
    whole: whether nothing may be missing.

  Raises:
    BadInput: if the file is missing, damaged or of another network.
  """
  also = () if whole else (weights.HEAD.pattern, *experiment.config.model.partial_weights)
  return weights.load_weights_into(variables or experiment.shapes, file, also)


def file_of(experiment: Experiment, stage: ConfigDict) -> str:
  """The file that a stage without `start` begins with, or weights.RANDOM.

  Raises:
    BadInput: there is none, and the network is published with one or keeps its first norms.
  """
  file = inputs(stage, experiment.config).weights or experiment.config.model.weights
  if file:
    return file
  if body := getattr(experiment.model, 'body', ''):
    why = f'{experiment.config.model.name} starts from the published weights of {body}'
  elif optimizer.freezes_norms(stage.get('optimizer', {}), experiment.shapes['params']):
    why = 'optimizer.frozen keeps norms at what they start from'
  else:
    return weights.RANDOM
  raise BadInput(
    f"config.model.weights is '': {why} (docs/weights.md); give their file, or 'random' to start "
    'at random on purpose'
  )


def check(experiment: Experiment, stage: ConfigDict) -> dict[str, str]:
  """Reads the files that a stage starts from; field and file -> how many entries fit.

  Raises:
    BadInput: if one is missing, damaged or of another network.
  """
  kind, settings = kind_of(stage), experiment.config.translator
  if kind.trains == 'translator':
    generators = translator.shapes(settings)['generators']
    vgg = models.shapes(models.build('vgg19_features'))['params']
    check_trained(stage, settings)
    given = {
      field: params for field, params in (generators | {'vgg': vgg}).items() if settings.get(field)
    }
    said = [_load_part(experiment, field, params)[1] for field, params in given.items()]
    return dict(line.rsplit(': ', 1) for line in said)
  if inputs(stage, experiment.config).start:
    return {}
  if (file := file_of(experiment, stage)) == weights.RANDOM:
    return {}
  loaded = load_weights(experiment, file, whole=kind.train_step is None)
  return {f'weights {file}': loaded.said}


def initial_translator(experiment: Experiment, stage: ConfigDict) -> Params:
  """The translator's networks before any training: random, but those that are given by files.

  Raises:
    BadInput: if a file is missing, damaged or of another network, or the stage has no steps to
      train what has none.
  """
  settings = experiment.config.translator
  key = initial_key(experiment.config.seed, 'translator')
  params = jax.jit(lambda key: translator.initial_params(key, settings, (64, 64)))(key)
  for name in ('enc_s', 'dec_s2t'):
    if settings[name]:
      params['generators'][name], said = _load_part(experiment, name, params['generators'][name])
      say(said)
  check_trained(stage, settings)
  others = 'other ' * bool(settings.enc_s or settings.dec_s2t)
  say(f'translator: all of its {others}networks are random')
  return params


def perceptual_parameters(experiment: Experiment) -> Params | None:
  """VGG-19's parameters for the translator's perceptual term; None without a file of them."""
  if not experiment.config.translator.vgg:
    logging.warning('translator.vgg is empty: training without the perceptual term')
    return None
  shapes = models.shapes(models.build('vgg19_features'))
  params, said = _load_part(experiment, 'vgg', shapes['params'])
  say(said)
  return replicate(params, experiment.mesh)


def _load_part(experiment: Experiment, field: str, params: Params) -> tuple[Params, str]:
  """A network of the translator's with the weights of its file, and a line about them."""
  file = experiment.config.translator[field]
  beside = () if field == 'vgg' else None  # its classifier and last layers are not used
  variables, _, said = weights.load_weights_into({'params': params}, file, beside)
  return variables['params'], f'translator.{field}: {file}: {said}'


def check_trained(stage: ConfigDict, settings: ConfigDict) -> None:
  """Refuses a translator stage that would end with random networks; raises BadInput."""
  if stage.steps == 0 and not (settings.enc_s and settings.dec_s2t):
    raise BadInput(
      'a translator stage of 0 steps leaves the translator at random: give the files of '
      'config.translator.enc_s and config.translator.dec_s2t, or steps'
    )
