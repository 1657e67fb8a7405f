"""The command line: what is added how, what is imported when, and what help says."""

import argparse
import subprocess
import sys
import types

import pytest

from diga_jax import __main__ as command_line
from diga_jax.commands.arguments import add_command

NAMES = (
  'run', 'train', 'label', 'evaluate', 'study', 'predict', 'plan', 'doctor', 'prepare', 'weights',
  'config',
)  # fmt: skip


def test_a_command_is_a_module_with_arguments(monkeypatch, capsys):
  def add_arguments(commands):
    command = add_command(commands, 'count', 'count the stages', count)
    command.add_argument('--more', type=int, default=0)

  def count(arguments, config):
    print(len(config.stages) + arguments.more)
    return 3

  module = types.SimpleNamespace(add_arguments=add_arguments)
  monkeypatch.setattr(command_line, 'COMMANDS', (*command_line.COMMANDS, module))
  assert command_line.main(['count', '--config=configs/default.py', '--more=10']) == 3
  assert capsys.readouterr().out == '16\n'
  with pytest.raises(SystemExit):
    command_line.main(['--help'])
  assert 'count the stages' in capsys.readouterr().out


@pytest.mark.parametrize('name', NAMES)
def test_every_command_has_help(name, capsys):
  with pytest.raises(SystemExit) as error:
    command_line.main([name, '--help'])
  assert error.value.code == 0
  assert f'python -m diga_jax {name}' in capsys.readouterr().out


def test_every_command_can_be_carried_out():
  [commands] = [
    action
    for action in command_line.parser()._actions
    if isinstance(action, argparse._SubParsersAction)
  ]
  assert tuple(commands.choices) == NAMES
  del commands.choices['weights']  # it has actions
  assert all(callable(command.get_default('execute')) for command in commands.choices.values())


@pytest.mark.parametrize('action', ['show', 'import', 'export', 'compare'])
def test_every_action_has_help(action, capsys):
  with pytest.raises(SystemExit) as error:
    command_line.main(['weights', action, '--help'])
  assert error.value.code == 0 and action in capsys.readouterr().out


def test_help_waits_for_nothing_heavy():
  script = (
    'import sys, diga_jax.__main__ as line; line.parser(); '
    'print(*{"jax", "tensorflow", "orbax", "matplotlib"} & set(sys.modules))'
  )
  found = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, check=True)
  assert found.stdout == '\n'


def test_a_full_disk_is_one_line(monkeypatch, capsys):
  def fail(arguments, config):
    raise OSError(28, 'No space left on device', 'runs/a')

  module = types.SimpleNamespace(
    add_arguments=lambda commands: add_command(commands, 'fill', 'fills it', fail, config=False)
  )
  monkeypatch.setattr(command_line, 'COMMANDS', (module,))
  assert command_line.main(['fill']) == 2
  assert capsys.readouterr().err == (
    "diga_jax: [Errno 28] No space left on device: 'runs/a'; fix this and run again\n"
  )
