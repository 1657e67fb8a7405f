"""export-card: a trained network as a folder for the Hugging Face Hub."""

import argparse
import re

from ml_collections import ConfigDict

from diga_jax.commands.arguments import (
  Commands,
  add_command,
  parse_folder,
  parse_name,
  parse_number,
  parse_path,
)

STAGE = 'whose network it is, STAGE or STAGE@CHOICE; default: the last trained one of the recipe'
LICENCE = (
  "of the weights, in the Hub's words, such as apache-2.0, cc-by-nc-4.0 or other; default: "
  'unknown, to be chosen before the folder is published'
)
ONNX = 'write model.onnx too, for images of this size (extra `onnx`)'
OVERWRITE = 'replace the card that is in the folder; other files there are kept'
CONFIG = 'of the network; default: that which the stage was made with'


def add_arguments(commands: Commands) -> None:
  """The network, and what the folder holds."""
  text = 'write a network as a folder for the Hugging Face Hub: weights, model card, PyTorch code'
  command = add_command(commands, 'export-card', text, export_card, config=False)
  command.add_argument('workdir', type=parse_path, metavar='WORKDIR')
  command.add_argument('--output', required=True, type=parse_folder, metavar='DIR')
  command.add_argument('--stage', help=STAGE)
  text = "default: that of the config's evaluation"
  command.add_argument('--network', choices=('student', 'teacher'), help=text)
  command.add_argument('--config', metavar='FILE', help=CONFIG)
  command.add_argument('--license', type=parse_licence, metavar='ID', help=LICENCE)
  side = parse_number(1, 2**14)
  command.add_argument('--onnx', type=side, nargs=2, metavar=('H', 'W'), help=ONNX)
  text = 'without images of the evaluation, which may not be yours to publish'
  command.add_argument('--no_picture', action='store_true', help=text)
  command.add_argument('--overwrite', action='store_true', help=OVERWRITE)


def parse_licence(text: str) -> str:
  """An identifier of the Hub's list of licences, by its form; raises ArgumentTypeError."""
  if not re.fullmatch('[a-z0-9][a-z0-9.+-]{0,59}', parse_name(text)):
    raise argparse.ArgumentTypeError(
      f"{text!r} is no licence of the Hub's: give its identifier, such as apache-2.0, or other"
    )
  return text


def export_card(arguments: argparse.Namespace, config: ConfigDict | None) -> None:
  """Writes the folder and says what is in it."""
  from diga_jax.card import readme, write

  options = write.Options(
    network=arguments.network,
    licence=arguments.license or readme.UNKNOWN,
    onnx=None if arguments.onnx is None else tuple(arguments.onnx),
    picture=not arguments.no_picture,
    overwrite=arguments.overwrite,
  )
  write.write(arguments.workdir, arguments.output, arguments.stage, config, options)
