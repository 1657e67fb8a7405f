"""predict: labels for images and videos of any size."""

import argparse
import sys

from ml_collections import ConfigDict

from data_pipelines import sets
from data_pipelines.errors import BadInput
from diga_jax.commands.arguments import (
  Commands,
  add_command,
  add_network,
  parse_folder,
  parse_number,
  parse_path,
  say_taken,
  weights_of,
)

IMAGES = "images, videos, folders of images, or patterns such as 'frames/**/*.jpg'"
FORMAT = (
  'of the files of train ids: 8-bit grey PNG (the default), PNG that viewers show in colours, '
  'TIFF, or a NumPy array'
)
FORMATS = ('png', 'palette', 'tiff', 'npy')
PROGRAMS = (
  'the most shapes that images are padded to, a program being compiled for each (4); 0: every size '
  'has its own, as in the evaluation'
)
WINDOW = 'side of the overlapping windows for images of more than 4 N x N pixels (1024)'


def add_arguments(commands: Commands) -> None:
  """Images labelled by the network of a stage, or of a file of weights."""
  text = 'label images and videos with a trained network'
  command = add_network(add_command(commands, 'predict', text, predict))
  command.add_argument('--output', required=True, type=parse_folder, metavar='DIR')
  command.add_argument('--recursive', action='store_true', help='search folders in folders too')
  command.add_argument('--format', choices=FORMATS, default='png', help=FORMAT)
  command.add_argument('--colour', action='store_true', help="write the classes' colours too")
  text = 'write the colours over the image too'
  command.add_argument('--overlay', action='store_true', help=text)
  text = 'write the probabilities of all classes too, float16 [h, w, classes] in .npz files'
  command.add_argument('--probabilities', action='store_true', help=text)
  text = 'replace labels that another network, or another image, has left in the folder'
  command.add_argument('--overwrite', action='store_true', help=text)
  side, count = parse_number(64, 2**14), parse_number(0, 2**20)
  command.add_argument('--programs', type=count, default=4, metavar='N', help=PROGRAMS)
  command.add_argument('--window', type=side, default=1024, metavar='N', help=WINDOW)
  command.add_argument('images', nargs='+', type=parse_path, help=IMAGES)


def predict(arguments: argparse.Namespace, config: ConfigDict) -> int:
  """Labels images; status 1 if some of them cannot be read."""
  from diga_jax.inference.predict import predict_images
  from diga_jax.inference.prediction_files import Outputs
  from diga_jax.parallel import processes
  from diga_jax.recipe import networks
  from diga_jax.storage import stage_folder

  file = weights_of(arguments)
  if (arguments.workdir is None) != (arguments.stage is None):
    raise BadInput('give --workdir with --stage, or --weights alone')
  stage_folder.check_output(arguments.output)
  for name, settings in config.data.sets.items():
    sets.check_pictures(settings, name, config.data.root, str(arguments.output))
  if arguments.stage is None:
    network = networks.of_file(config, file)
    say_taken(file, network.taken)
  else:
    network = networks.of_stage(config, arguments.workdir, arguments.stage)
  what = {key: getattr(arguments, key) for key in ('format', 'colour', 'overlay', 'probabilities')}
  how = {key: getattr(arguments, key) for key in ('recursive', 'overwrite', 'programs', 'window')}
  outputs = Outputs(arguments.output, network.palette, **what)
  pixels = config.data.max_pixels
  found = predict_images(network.predictor, arguments.images, outputs, max_pixels=pixels, **how)
  if not processes.is_main_process():
    return int(bool(found.failures))
  for reason in found.failures.values():
    print(f'left out: {reason}', file=sys.stderr)
  count = len(found.files)
  parts = [f'{count} file{"s" * (count > 1)} labelled']
  parts += [f'{found.kept} of them before'] * bool(found.kept)
  parts += [f'{len(found.failures)} left out'] * bool(found.failures)
  parts += [f'{found.others} others, made otherwise, remain'] * bool(found.others)
  print(f'{arguments.output}: {", ".join(parts)}')
  return int(bool(found.failures))
