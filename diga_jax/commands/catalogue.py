"""list: what a config may name, with a line each, as the code itself says it."""

import argparse
import ast
import importlib
import inspect
import shutil
from collections.abc import Callable, Iterator

from ml_collections import ConfigDict

from diga_jax.commands.arguments import Commands, add_command

Entries = Iterator[tuple[str, str]]  # (name, a line on it)


def add_arguments(commands: Commands) -> None:
  """Which kind of things."""
  text = 'configs, networks, data sets, selectors and kinds of stages, with a line each'
  command = add_command(commands, 'list', text, show, config=False)
  command.add_argument('kind', nargs='?', choices=[*KINDS], help='one of them; default: all')


def show(arguments: argparse.Namespace, config: ConfigDict | None) -> None:
  """Prints a table of each kind, with the field or the option that names such a thing."""
  from diga_jax.report import tables

  for number, kind in enumerate([arguments.kind] if arguments.kind else KINDS):
    where, entries = KINDS[kind]
    table = tables.plain_table(kind, where)
    table.columns[1].justify = 'left'
    for name, text in entries():
      table.add_row(name, text)
    width = shutil.get_terminal_size().columns
    print('\n' * (number > 0) + tables.render_tables([table], width))


def first_line(documented: object) -> str:
  """The first line of a docstring."""
  return (inspect.getdoc(documented) or '').partition('\n')[0]


def configs() -> Entries:
  """The shipped configs; none of them is executed."""
  from diga_jax.config import shipped_configs

  for name, file in sorted(shipped_configs().items()):
    text = ast.get_docstring(ast.parse(file.read_text(encoding='utf-8'))) or ''
    yield name, text.partition('\n')[0]


def networks() -> Entries:
  """The segmentation networks."""
  from diga_jax import models

  for name, network in models.SEGMENTATION.items():
    yield name, first_line(getattr(network, 'func', network))


def data_sets() -> Entries:
  """The functions of configs/datasets.py, with what they must be given."""
  datasets = importlib.import_module('diga_jax.configs.datasets')
  for name, make in inspect.getmembers(datasets, inspect.isfunction):
    if make.__module__ == datasets.__name__:
      given = [p.name for p in inspect.signature(make).parameters.values() if is_needed(p)]
      yield f'{name}({", ".join(given)})', first_line(make)


def is_needed(parameter: inspect.Parameter) -> bool:
  """Whether a function must be given it."""
  named = parameter.kind is parameter.POSITIONAL_OR_KEYWORD
  return named and parameter.default is parameter.empty


def selectors() -> Entries:
  """The selectors of label passes, then those of self-training."""
  from diga_jax.inference import selectors
  from diga_jax.stages import consensus

  for name, selector in selectors.SELECTORS.items():
    yield name, selector.text
  for name, select in consensus.SELECTORS.items():
    if name not in selectors.SELECTORS:
      yield name, f'{first_line(select)} For self-training stages.'


def stages() -> Entries:
  """The kinds of stages, by the functions of configs/stages.py that make them."""
  from diga_jax.stages import kinds

  stages = importlib.import_module('diga_jax.configs.stages')
  for name in kinds.KINDS:
    yield name, first_line(getattr(stages, f'{name}_stage'))


KINDS: dict[str, tuple[str, Callable[[], Entries]]] = {
  'configs': ('--config=NAME', configs),
  'networks': ('config.model.name', networks),
  'datasets': ('config.data.sets.NAME = datasets....', data_sets),
  'selectors': ('config.stages.NAME.selector', selectors),
  'stages': ('config.stages.NAME.kind', stages),
}
