"""The command line: what is added how, what is imported when, and what help says."""

import argparse
import re
import subprocess
import sys
import types

import pytest

from diga_jax import __main__ as command_line
from diga_jax import weights
from diga_jax.commands.arguments import add_command, parse_folder

NAMES = (
  'run', 'train', 'label', 'evaluate', 'study', 'predict', 'compare', 'report', 'plan', 'init',
  'doctor', 'prepare', 'weights', 'export-card', 'config', 'list',
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


def test_arguments_are_written_out(capsys):
  with pytest.raises(SystemExit):
    command_line.main(['run', '--config=configs/default.py', '--work=x'])
  assert '--workdir' in capsys.readouterr().err


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


@pytest.mark.parametrize('command', ['config --config=quickstart', 'list', 'weights show none.pth'])
def test_tensorflow_is_for_commands_that_make_batches(command, tmp_path):
  script = (
    'import sys; from diga_jax.__main__ import main; status = main(sys.argv[1:]); '
    'print(*{"tensorflow", "tensorboard", "scipy.stats"} & set(sys.modules), file=sys.stderr)'
  )
  more = ['--config=quickstart'] * command.startswith('weights')
  argv = [sys.executable, '-c', script, *command.split(), *more]
  found = subprocess.run(argv, capture_output=True, text=True, check=True)
  assert found.stderr.splitlines()[-1] == ''


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


WRONG = {
  'run': ((), ('--workdir=',), ('--workdir={file}',), ('--workdir=a\nb',)),
  'train': (('--workdir=w',), ('--workdir=w', '--stage='), ('--workdir=w', '--stage', ' ')),
  'study': tuple(
    ('--workdir=w', '--seeds', *seeds)
    for seeds in ((), ('x',), ('-1',), ('1.5',), ('0', '9' * 30), ('1', ''), ('nan',))
  )
  + tuple(
    ('--workdir=w', '--seeds', '0', *more)
    for more in (
      ('--share=3/2',),
      ('--share', '1'),
      ('--vary=',),
      ('--against=',),
      ('--upper', ' '),
    )
  ),
  'predict': tuple(
    ('--workdir=w', '--stage=s', *more)
    for more in (
      ('--output={file}', 'i'),
      ('--output=', 'i'),
      ('--output=o',),
      ('--output=o', ''),
      ('--output=o', 'i', '--weights=f'),
      ('--output=o', 'i', '--window=0'),
      ('--output=o', 'i', '--programs=-1'),
      ('--output=o', 'i', '--format=jpg'),
    )
  )
  + (('--output=o', 'i'), ('--output=o', 'i', '--stage=s'), ('--output=o', 'i', '--weights=')),
  'plan': ((), ('--topology',), ('--topology', '')),
  'doctor': (('--jobs=0',), ('--jobs=-1',), ('--jobs=x',), ('--jobs', '1e3'), ('--sets', '')),
  'prepare': (('--images=bmp',), ('--output={file}',), ('--jobs=99999',), ('--stage=',)),
  'evaluate': tuple(
    ('--workdir=w', f'--distributed={where}')
    for where in ('', 'x', 'x:1', 'x:0,2,0', 'x:1,2,2', 'x:1,0,0', 'x:1,-1,0', 'x:y,2,0', ':1,2,0')
  ),
}
WEIGHTS = (
  (), ('show', ''), ('import', 'f', '--model=m'), ('import', 'f', '--model=', '--output=o'),
  ('import', 'f', '--model=m', '--output=o', '--classes=0'),
  ('import', 'f', '--model=m', '--output=o', '--classes=256'),
  ('export', '', '--output=o'), ('export', 's', '--output='), ('export', 's'),
  ('export', 's', '--output=o', '--size', '0', '5'), ('export', 's', '--output=o', '--size', '5'),
  ('export', 's', '--output=o', '--network=x'), ('export', 's', '--output=o', '--format=x'),
  ('compare', 'a'), ('compare', 'a', ''), ('compare', 'a', 'b', '--image='),
)  # fmt: skip


def refused(argv: list[str], capsys) -> str:
  """The one line with which the command line ends with status 2."""
  try:
    status = command_line.main(argv)
  except SystemExit as error:
    status = error.code
  line = re.sub('^devices: .*\n', '', capsys.readouterr().err)  # of commands that compute
  assert status == 2 and line.startswith('diga_jax: ') and line.count('\n') == 1, line
  return line


@pytest.mark.parametrize('command', WRONG)
def test_a_wrong_argument_is_one_line(command, tmp_path, capsys):
  (tmp_path / 'file').write_text('')
  assert '--config' in refused([command], capsys)
  assert '--config' in refused([command, '--config='], capsys)
  for arguments in WRONG[command]:
    filled = [argument.format(file=tmp_path / 'file') for argument in arguments]
    refused([command, '--config=tests/configs/tiny.py', *filled], capsys)


@pytest.mark.parametrize('arguments', WEIGHTS, ids=' '.join)
def test_a_wrong_argument_of_an_action_is_one_line(arguments, capsys):
  refused(['weights', *arguments], capsys)


@pytest.mark.parametrize('topology', ['cpu:0', 'v5e:0x4', 'cpu:-1', 'cpu:9999', 'v5e:', 'cpu:x'])
def test_a_wrong_topology_is_found_before_a_right_one_is_compiled(topology, capsys):
  argv = ['plan', '--config=tests/configs/tiny.py', '--topology', 'cpu', topology]
  assert f'--topology={topology}' in refused(argv, capsys)


def test_a_tilde_is_the_home(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  assert parse_folder('~/runs') == tmp_path / 'runs'
  assert weights.path_of('~/a.pth') == tmp_path / 'a.pth'


def test_a_cache_that_cannot_be_made_is_refused(tmp_path, capsys):
  (tmp_path / 'file').write_text('')
  cache = f'--config.compilation_cache={tmp_path / "file"}'
  argv = ['run', '--config=tests/configs/tiny.py', f'--workdir={tmp_path / "run"}', cache]
  assert f'config.compilation_cache: {tmp_path / "file"}' in refused(argv, capsys)


def test_a_seed_is_run_once(tmp_path, capsys):
  argv = ['study', '--config=tests/configs/tiny.py', f'--workdir={tmp_path}', '--seeds', '0', '0']
  assert '--seeds' in refused(argv, capsys)


@pytest.mark.parametrize(
  'override, words',
  [
    ('recipe=warmup,label_1', "names 'warmup,label_1'"),
    ('recipe=warm', "names 'warm', but config.stages has only label_1, "),
    ('evaluation.sets=a', "names 'a', but config.data.sets has only camera_test, "),
    ('data.class_names=a,b', 'has 1 entries for 19 classes'),
    ('model.dtype=bf16', 'it may be float32, bfloat16'),
    ('data.crop=(96,192.5)', 'is (96, 192.5): it may be'),
    ('data.crop=96', 'is (96,): it may be'),
    ('stages.warmup.optimizer.frozen=[', "is ('[',): it may be"),
    ('stages.warmup.optimizer.head_pattern=(', "is '(': it may be"),
    ('evaluation.scales=(', "is ('(',): it may be"),
    ('evaluation.scales=' + '(' * 5000, 'config'),
    ('seed=' + '9' * 5000, 'seed'),
    ('data.crop=(96, 192', 'crop'),
    ('seed=', "config.seed is '': it may be a whole number"),
    ('seed', 'write --config.seed=VALUE'),
    ('remat', 'write --config.remat=VALUE'),
    ('recipe[9]=warmup', 'config.recipe[9]: there is no such field'),
    ('evaluation.scales[0]=1', 'config.evaluation.scales[0]: there is no such field'),
    ('seed=1.5', 'seed'),
    ('remat=2', 'remat'),
    ('remat=yes please', 'remat'),
    ('save_every=nan', 'save_every'),
    ('evaluation.scales=(nan,)', 'scales'),
    ('stages.warmup.optimizer.momentum=inf', 'is inf: it may be'),
    ('stages.warmup=5', 'warmup'),
    ('data.sets.mine.images=x', 'config.data.sets.mine.images: there is no such field in this'),
    ('stages.warmup.ema_decay=0.5', 'config.stages.warmup.ema_decay: there is no such field'),
  ],
)
def test_a_wrong_value_given_as_text_is_one_line(override, words, tmp_path, capsys):
  argv = ['run', '--config=tests/configs/tiny.py', f'--workdir={tmp_path / "run"}']
  assert words in refused([*argv, f'--config.{override}'], capsys)
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  'argument', ['--undefok=x', '--flagfile={file}', 'config.seed=1', '--seed=1']
)
def test_what_is_no_field_of_the_config_is_refused(argument, tmp_path, capsys):
  (tmp_path / 'flags').write_text('--config.seed=1')
  given = argument.format(file=tmp_path / 'flags')
  line = refused(['config', '--config=tests/configs/tiny.py', given], capsys)
  assert f'not understood: {given}' in line


def test_all_unknown_fields_of_the_command_line_are_named(capsys):
  argv = ['config', '--config=tests/configs/tiny.py', '--config.sead=1', '--config.data.corp=2']
  line = refused(argv, capsys)
  assert 'config.sead: ' in line and 'nearest are seed' in line and 'config.data.corp: ' in line
