"""weights: shown, imported, exported and compared."""

import argparse
import pathlib

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from data_pipelines.errors import BadInput
from data_pipelines.image_files import read_image
from diga_jax import models, pixels, weights
from diga_jax.inference import export
from diga_jax.recipe.experiment import Experiment
from diga_jax.storage import checkpoint, stage_folder
from diga_jax.weights import pretrained


def execute(arguments: argparse.Namespace, config: ConfigDict | None) -> None:
  """Looks at, imports, exports or compares weights."""
  action = {
    'show': show_weights,
    'import': import_weights,
    'export': export_weights,
    'compare': compare_weights,
  }[arguments.action]
  action(arguments, config)


def show_weights(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Prints how a weights file and the config's network fit."""
  experiment = Experiment(config)
  _, rows = weights.load_weights_into(experiment.shapes, arguments.file, arguments.partial)
  print(weights.format_report(rows))


def import_weights(arguments: argparse.Namespace, config: None) -> None:
  """Writes the network of a file as a folder that model.weights and the other actions take."""
  found = weights.read(weights.weights_file(arguments.file))
  print(f'{arguments.file} holds {pretrained.describe(found)}')
  model = models.build(arguments.model, classes=arguments.classes)
  variables = models.shapes(model)
  if arguments.partial:  # what the file lacks starts at random
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
  variables, rows = weights.load_weights_into(variables, arguments.file, arguments.partial)
  print(weights.format_report(rows))
  identity = {
    'model': arguments.model,
    'classes': arguments.classes,
    'file': weights.file_digest(arguments.file),
    'partial': arguments.partial,
  }

  def build(directory: pathlib.Path) -> dict:
    tree = {'params': variables['params'], 'batch_stats': variables.get('batch_stats', {})}
    checkpoint.write_arrays(directory / 'checkpoints', 0, tree)
    return {'step': 0}

  stage_folder.produce(arguments.output, identity, build)
  print(f'--config.model.weights={arguments.output}')


def export_weights(arguments: argparse.Namespace, config: ConfigDict | None) -> None:
  """Writes a stage's network as a PyTorch state dict, or with its scales as a program."""
  found = weights.read_stage(arguments.stage, arguments.network)
  if arguments.format == 'weights':
    named = {arguments.prefix + name: value for name, value in found.items()}
    weights.save(arguments.output, named)
    print(f'{arguments.output}: {len(found)} entries')
    return
  if config is None or arguments.size is None:
    raise BadInput(f'--format={arguments.format}: give the --config of the network and a --size')
  model = Experiment(config).model
  variables, _ = weights.initialise(models.shapes(model), found)
  size, scales = tuple(arguments.size), tuple(config.evaluation.scales)
  what = f'uint8 RGB [B, {size[0]}, {size[1]}, 3] -> classes'
  if arguments.format == 'savedmodel':
    export.write_saved_model(arguments.output, model, variables, size, scales=scales)
    print(f'{arguments.output}: tf.saved_model.load(folder).predict(images), {what}')
    return
  program = export.stablehlo(model, variables, size, scales=scales)
  export.write(arguments.output, program)
  print(f'{arguments.output}: jax.export.deserialize(data).call(images), {what}')


def compare_weights(arguments: argparse.Namespace, config: ConfigDict | None) -> None:
  """Prints two networks layer by layer, and what their layers make of an image."""
  pair = [weights.read(weights.weights_file(name)) for name in (arguments.first, arguments.second)]
  print(weights.format_comparison(weights.compare(*map(pretrained.bare, pair))))
  if not arguments.image:
    return
  if config is None:
    raise BadInput('--image: give the --config of the network as well')
  model = Experiment(config).model
  image = pixels.normalise(jnp.asarray(read_image(arguments.image))[None])
  shown = [
    weights.activations(model, weights.initialise(models.shapes(model), one)[0], image)
    for one in pair
  ]
  print(weights.format_comparison(weights.compare(*shown)))
