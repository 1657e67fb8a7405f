"""report: a working directory as one page, or several beside each other."""

import argparse
import pathlib
import sys

from ml_collections import ConfigDict

from diga_jax.commands.arguments import Commands, add_command, parse_path


def add_arguments(commands: Commands) -> None:
  """The working directories, and where the page goes."""
  text = 'a page of a run, complete or not, or of several runs beside each other'
  command = add_command(commands, 'report', text, report, config=False)
  command.add_argument('workdirs', nargs='+', metavar='WORKDIR', type=parse_path)
  text = 'of the page; default: WORKDIR/report.html, or comparison.html here for several'
  command.add_argument('--output', type=parse_path, metavar='FILE', help=text)


def report(arguments: argparse.Namespace, config: ConfigDict | None) -> None:
  """Writes the page and says where it is; what could not be read goes to stderr."""
  from diga_jax.page import write
  from diga_jax.page.working_directory import PAGE

  first, *others = arguments.workdirs
  if others:
    place = arguments.output or pathlib.Path('comparison.html')
    problems = write.write_comparison(arguments.workdirs, place)
  else:
    place = arguments.output or first / PAGE
    problems = write.write_run(first, place)
  for line in problems:
    print(f'diga_jax: {line}', file=sys.stderr)
  print(f'page: {place}')
