"""The command line: python -m diga_jax COMMAND --config=FILE --workdir=DIR [--config.x.y=VALUE]."""

import argparse
import gc
import logging
import os
import pathlib
import sys
from collections.abc import Callable

from ml_collections import ConfigDict

from data_pipelines.errors import BadInput
from diga_jax.config import config_of

DISTRIBUTED = (
  "for several processes that each run this command: 'auto' (TPU pods, SLURM, Open MPI) or "
  'HOST:PORT,PROCESSES,INDEX'
)
WEIGHTS = '.pth, .safetensors or .npz, the folder of a stage or import, or efficientnet_lite0'
OUTPUT = '.pth, .safetensors or .npz, as PyTorch names layers; or where a program goes'
IMAGES = 'pixels (fast, large) or the files as they are; default: pixels, but JPEG files are kept'
OVERRIDES = 'Any field of the config is changed by --config.FIELD=VALUE (see configs/default.py).'


def parser() -> argparse.ArgumentParser:
  """The commands and their options, without the config's fields."""
  top = argparse.ArgumentParser(
    prog='python -m diga_jax', description=__doc__.splitlines()[0], epilog=OVERRIDES
  )
  commands = top.add_subparsers(dest='command', required=True, metavar='COMMAND')

  def command(name: str, text: str, config: bool = True) -> argparse.ArgumentParser:
    sub = commands.add_parser(name, help=text, description=text, epilog=OVERRIDES * config)
    if config:
      sub.add_argument('--config', required=True, metavar='FILE', help='a file of configs/')
      sub.add_argument('--workdir', required=True, type=pathlib.Path, metavar='DIR')
      sub.add_argument('--distributed', metavar='WHERE', help=DISTRIBUTED)
    return sub

  command('run', 'the whole recipe and its evaluation; continues where it was stopped')
  study = command('study', 'the recipe with several seeds; mean and spread of every row')
  study.add_argument('--seeds', type=int, nargs='+', required=True, metavar='N')
  command('train', 'one training stage').add_argument('--stage', required=True)
  command('label', 'one label pass').add_argument('--stage', required=True)
  command('evaluate', "the recipe's networks under the config's protocol")
  predict = command('predict', 'label images with a trained network')
  predict.add_argument('--stage', required=True, help='whose network')
  predict.add_argument('--output', required=True, type=pathlib.Path, metavar='DIR')
  predict.add_argument('images', nargs='+', type=pathlib.Path, help='image files or folders')
  plan = command('plan', 'memory, arithmetic and time on devices that are not there', config=False)
  plan.add_argument('--config', required=True, metavar='FILE', help='a file of configs/')
  plan.add_argument(
    '--topology', nargs='+', required=True, help='v5e:4x4, v5e-8, cpu, cpu:4: one or more'
  )
  _add_data(command)
  _add_weights(command)
  return top


def _add_data(command: Callable[..., argparse.ArgumentParser]) -> None:
  """What is done to data sets."""
  doctor = command('doctor', 'look at every file of the data sets', config=False)
  doctor.add_argument('--config', required=True, metavar='FILE', help='a file of configs/')
  doctor.add_argument('--sets', nargs='+', metavar='NAME', help='of data.sets; default: all')
  doctor.add_argument(
    '--jobs', type=int, default=os.cpu_count(), metavar='N', help='processes that look at files'
  )
  prepare = command('prepare', 'pack data sets into shards for fast reading', config=False)
  prepare.add_argument('--config', required=True, metavar='FILE', help='a file of configs/')
  prepare.add_argument('--sets', nargs='+', metavar='NAME', help='of data.sets; default: all')
  prepare.add_argument('--output', type=pathlib.Path, metavar='DIR', help='where the shards go')
  prepare.add_argument('--images', choices=('raw', 'png', 'jpeg'), default='', help=IMAGES)
  prepare.add_argument('--stage', metavar='NAME', help="pack this label stage's labels instead")
  prepare.add_argument('--workdir', type=pathlib.Path, metavar='DIR', help='of that stage')
  prepare.add_argument('--jobs', type=int, default=os.cpu_count(), metavar='N', help='processes')


def _add_weights(command: Callable[..., argparse.ArgumentParser]) -> None:
  """What is done to files of weights."""
  weights = command('weights', 'look at, import, export and compare weights', config=False)
  actions = weights.add_subparsers(dest='action', required=True, metavar='ACTION')

  def action(name: str, text: str) -> argparse.ArgumentParser:
    return actions.add_parser(name, help=text, description=text)

  show = action('show', "which layers of the config's network a file fills")
  show.add_argument('file', help=WEIGHTS)
  show.add_argument('--partial', action='store_true', help='accept a partial match')
  show.add_argument('--config', required=True, metavar='FILE', help='a file of configs/')
  taken = action('import', "turns a file into a checkpoint of this package's")
  taken.add_argument('file', help=WEIGHTS)
  taken.add_argument('--model', required=True, metavar='NAME', help='such as deeplab_resnet101')
  taken.add_argument('--classes', type=int, default=19, metavar='N')
  taken.add_argument('--output', required=True, type=pathlib.Path, metavar='DIR')
  taken.add_argument('--partial', action='store_true', help='accept a body without its head')
  given = action('export', 'a network of a stage or an import for other programs')
  given.add_argument('stage', type=pathlib.Path, help='the folder of a stage or of an import')
  given.add_argument(
    '--network',
    choices=('student', 'teacher', 'enc_s', 'dec_s2t'),
    default='student',
    help='the last two: the encoder and the decoder of a translator stage',
  )
  given.add_argument('--format', choices=('weights', 'stablehlo', 'savedmodel'), default='weights')
  given.add_argument('--output', required=True, type=pathlib.Path, metavar='PATH', help=OUTPUT)
  given.add_argument(
    '--prefix', default='', metavar='TEXT', help="before every name, such as HIAST's seg_model."
  )
  given.add_argument('--config', metavar='FILE', help='of the network, for a program')
  given.add_argument(
    '--size', type=int, nargs=2, metavar=('H', 'W'), help='of the images, for a program'
  )
  both = action('compare', 'two networks layer by layer: norms and largest differences')
  both.add_argument('first', help=WEIGHTS)
  both.add_argument('second', help=WEIGHTS)
  both.add_argument('--image', metavar='FILE', help='compare what every layer makes of it as well')
  both.add_argument('--config', metavar='FILE', help='of the network, for --image')


def execute(arguments: argparse.Namespace, config: ConfigDict | None) -> int:
  """Carries out a command. Heavy imports wait until the command line is known to be right."""
  from diga_jax.commands import data, plan, predict, run, study, weights
  from diga_jax.parallel import preemption

  # Tracing makes many objects and hardly any garbage: looking for it took a sixth of every start.
  gc.freeze()
  gc.set_threshold(50_000)
  preemption.listen()
  try:
    if config is not None:
      run.set_up(arguments, config)
    command = {
      'run': run.run,
      'train': run.train,
      'label': run.label,
      'evaluate': run.evaluate,
      'study': study.study,
      'predict': predict.predict,
      'plan': plan.plan,
      'doctor': data.doctor,
      'prepare': data.prepare,
      'weights': weights.execute,
    }[arguments.command]
    return command(arguments, config) or 0
  except preemption.Preempted as stopped:
    print(f'diga_jax: {stopped}', file=sys.stderr)
    return preemption.EXIT_STATUS


def main(argv: list[str]) -> int:
  """Exit status: 0 done, 2 wrong use or wrong input, 75 stopped by SIGTERM (one line on stderr).

  `doctor` ends with 1 when it has found something.
  """
  logging.getLogger('absl').setLevel(logging.WARNING)
  arguments, overrides = parser().parse_known_args(argv)
  try:
    return execute(arguments, config_of(arguments, overrides))
  except BadInput as error:
    print(f'diga_jax: {error}', file=sys.stderr)
  except OSError as error:  # a full disk, a folder without permission: the message names the file
    print(f'diga_jax: {error}; fix this and run again', file=sys.stderr)
  return 2


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
