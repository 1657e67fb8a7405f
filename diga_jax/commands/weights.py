"""weights: shown, imported, exported and compared."""

import argparse
import pathlib

from ml_collections import ConfigDict

from data_pipelines import atomic
from data_pipelines.errors import BadInput
from data_pipelines.image_files import read_image
from diga_jax.commands.arguments import (
  PART,
  Commands,
  add_command,
  file_and_part,
  parse_folder,
  parse_number,
  parse_path,
)

WEIGHTS = (
  "a file of PyTorch's, .safetensors or .npz, a folder of the Hugging Face Hub, of a stage or of "
  'an import, or efficientnet_lite0; FILE#PART names a part of it'
)
OUTPUT = (
  'a file of weights with PyTorch names for layers (.pth, .safetensors or .npz), or where a '
  'program is written'
)
NETWORKS = ('student', 'teacher', 'enc_s', 'dec_s2t')
NETWORK = 'the last two: the encoder and the decoder of a translator stage'
FORMATS = ('weights', 'stablehlo', 'savedmodel')
PREFIX = "before every name, such as HIAST's seg_model."
SIZE = 'of the images, for a program'


def add_arguments(commands: Commands) -> None:
  """What is done to files of weights, an action each."""
  text = 'inspect, import, export and compare weights'
  command = add_command(commands, 'weights', text, config=False)
  actions = command.add_subparsers(dest='action', required=True, metavar='ACTION')

  text = "which layers of the config's network a file fills"
  show = add_command(actions, 'show', text, show_weights)
  show.add_argument('file', help=WEIGHTS)
  show.add_argument('--part', metavar='NAME', help=PART)

  text = "turns a file into a checkpoint of this package's"
  take = add_command(actions, 'import', text, import_weights, config=False)
  take.add_argument('file', help=WEIGHTS)
  take.add_argument('--part', metavar='NAME', help=PART)
  take.add_argument('--config', metavar='FILE', help='of the network, with all its options')
  take.add_argument('--model', metavar='NAME', help='instead: such as deeplab_resnet101')
  take.add_argument(
    '--classes', type=parse_number(1, 255), default=19, metavar='N', help='of this model'
  )
  take.add_argument('--output', required=True, type=parse_folder, metavar='DIR')

  text = 'a network of a stage or an import for other programs'
  give = add_command(actions, 'export', text, export_weights, config=False)
  give.add_argument('stage', type=parse_path, help='the folder of a stage or of an import')
  give.add_argument('--network', choices=NETWORKS, default='student', help=NETWORK)
  give.add_argument('--format', choices=FORMATS, default='weights')
  give.add_argument('--output', required=True, type=parse_path, metavar='PATH', help=OUTPUT)
  give.add_argument('--prefix', type=str, default='', metavar='TEXT', help=PREFIX)
  give.add_argument('--config', metavar='FILE', help='of the network, for a program')
  give.add_argument('--size', type=parse_number(1, 2**14), nargs=2, metavar=('H', 'W'), help=SIZE)

  text = 'two networks layer by layer: norms and largest differences'
  pair = add_command(actions, 'compare', text, compare_weights, config=False)
  pair.add_argument('first', help=WEIGHTS)
  pair.add_argument('second', help=WEIGHTS)
  pair.add_argument('--image', metavar='FILE', help="compare every layer's output for it as well")
  pair.add_argument('--config', metavar='FILE', help='of the network, for --image')


def show_weights(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Prints how a weights file and the config's network fit."""
  from diga_jax import weights
  from diga_jax.recipe import starts
  from diga_jax.recipe.experiment import Experiment

  experiment, file = Experiment(config), file_and_part(arguments.file, arguments.part)
  found = weights.find(file, weights.shapes_of(experiment.shapes))
  _, rows = weights.fill(experiment.shapes, found.arrays)
  print(weights.format_report(rows))
  loaded = starts.load_weights(experiment, file)  # refuses what a start from the file would
  print(f'{arguments.file}: {loaded.said}')


def import_weights(arguments: argparse.Namespace, config: ConfigDict | None) -> None:
  """Writes what a network takes of a file as a folder that model.weights and export take."""
  from diga_jax import models, weights
  from diga_jax.recipe import starts
  from diga_jax.recipe.experiment import Experiment
  from diga_jax.storage import checkpoint, stage_folder
  from diga_jax.weights import pretrained

  stage_folder.check_output(arguments.output.parent)
  if (config is None) == (arguments.model is None):
    raise BadInput('weights import: give the --config of the network, or else its --model')
  output = arguments.output
  if output.exists() and not (output / stage_folder.RECORD).is_file():
    raise BadInput(f'--output: {output} exists and is no import: give the name of a new folder')
  file = file_and_part(arguments.file, arguments.part)
  if config is None:
    shapes = models.shapes(models.build(arguments.model, classes=arguments.classes))
    network = {'model': arguments.model, 'classes': arguments.classes}
  else:
    experiment = Experiment(config)
    shapes = experiment.shapes
    network = {'model': config.model.to_dict(), 'classes': config.data.classes}
  found = weights.find(file, weights.shapes_of(shapes))
  print(f'{arguments.file} holds {pretrained.describe(found.arrays)}')
  if config is None:
    loaded = weights.load_weights_into(shapes, file, (weights.HEAD.pattern,))
  else:
    loaded = starts.load_weights(experiment, file)
  print(weights.format_report(loaded.rows))
  print(f'{arguments.file}: {loaded.said}')

  def build(directory: pathlib.Path) -> dict:
    tree = {'params': {}, 'batch_stats': {}, **weights.only_arrays(loaded.variables)}
    checkpoint.write_arrays(directory / 'checkpoints', 0, tree)
    return {'step': 0}

  identity = network | {'file': weights.file_digest(file)}
  stage_folder.produce(output, identity, build, 'give another --output')
  print(f'--config.model.weights={output}')


def export_weights(arguments: argparse.Namespace, config: ConfigDict | None) -> None:
  """Writes a stage's network as a PyTorch state dict, or with its scales and flip as a program."""
  from diga_jax import weights
  from diga_jax.inference import export
  from diga_jax.inference.forward import Predictor
  from diga_jax.recipe.experiment import Experiment
  from diga_jax.storage import stage_folder

  stage_folder.check_output(arguments.output)
  if not arguments.prefix.isprintable():
    raise BadInput(f'--prefix is {arguments.prefix!a}: give letters, such as seg_model.')
  found = weights.read_stage(arguments.stage, arguments.network)
  if arguments.format == 'weights':
    named = {arguments.prefix + name: value for name, value in found.items()}
    weights.save(arguments.output, named)
    print(f'{arguments.output}: {len(found)} entries')
    return
  if config is None or arguments.size is None:
    raise BadInput(f'--format={arguments.format}: give the --config of the network and a --size')
  experiment, settings = Experiment(config), config.evaluation
  variables, _ = weights.fit(experiment.shapes, found, arguments.stage)
  size = arguments.size[0], arguments.size[1]
  predictor = Predictor(experiment.model, variables, settings.scales, settings.flip)
  what = f'uint8 RGB [B, {size[0]}, {size[1]}, 3] -> classes'
  if arguments.format == 'savedmodel':
    export.write_saved_model(arguments.output, predictor, size)
    print(f'{arguments.output}: tf.saved_model.load(folder).predict(images), {what}')
    return
  with atomic.replacing(arguments.output) as temporary:
    temporary.write_bytes(export.stablehlo(predictor, size).serialize())
  print(f'{arguments.output}: jax.export.deserialize(data).call(images), {what}')


def compare_weights(arguments: argparse.Namespace, config: ConfigDict | None) -> None:
  """Prints the differences of two networks by layer, and of their outputs for an image."""
  import jax.numpy as jnp

  from diga_jax import pixels, weights
  from diga_jax.recipe.experiment import Experiment
  from diga_jax.weights import pretrained

  names = arguments.first, arguments.second
  experiment = None if config is None else Experiment(config)
  wanted = None if experiment is None else weights.shapes_of(experiment.shapes)
  pair = weights.find_pair(*names, wanted)
  for name, found in zip(names, pair, strict=True):
    if found.said:
      print(f'{name}: {found.said}')
  arrays = [found.arrays for found in pair]
  print(weights.format_comparison(weights.compare(*pretrained.under_one_names(*arrays))))
  if not arguments.image:
    return
  if experiment is None or config is None:
    raise BadInput('--image: give the --config of the network as well')
  image = pixels.normalise(
    jnp.asarray(read_image(arguments.image, max_pixels=config.data.max_pixels))[None]
  )
  shown = []
  for name, one in zip(names, arrays, strict=True):
    variables, _ = weights.fit(experiment.shapes, one, weights.path_of(name), may_differ=())
    shown.append(weights.activations(experiment.model, variables, image))
  print(weights.format_comparison(weights.compare(*shown)))
