"""The command config: the fields of a config beside the defaults. And the page about the fields."""

import pytest

from diga_jax.__main__ import main
from tests.support import config_page


def printed(capsys, *options: str) -> dict[str, str]:
  """What `config` prints: field -> 'value', or 'value  # remark'."""
  assert main(['config', *options]) == 0
  return dict(line.split(' = ', 1) for line in capsys.readouterr().out.splitlines())


def test_the_default_differs_in_nothing(capsys):
  assert printed(capsys, '--config=configs/default.py', '--diff') == {}
  fields = printed(capsys, '--config=configs/default.py')
  assert fields['stages.self_training_2.optimizer.power'] == '0.9'
  assert not [line for line in fields.values() if '# default' in line]


def test_overrides_and_what_the_file_changes_are_marked(capsys):
  options = ('--config=configs/gta5_to_cityscapes.py', '--config.stages.self_training_1.steps=100')
  changed = {
    'checkpoint_choice': "'oracle'  # default: 'last'",
    'stages.self_training_1.steps': '100  # default: 80000',
    'stages.self_training_2.steps': '100  # default: 80000',  # which follows the first round
  }
  assert printed(capsys, *options, '--diff') == changed
  fields = printed(capsys, *options)
  assert changed.items() <= fields.items() and fields['seed'] == '0'


def test_fields_that_the_default_lacks_are_marked(capsys):
  fields = printed(capsys, '--config=configs/hiast_gta5.py', '--diff')
  assert fields['stages.hiast_3.smoothing'] == '0.1  # not in the default'
  assert 'stages.hiast_3.kind' in fields and 'seed' not in fields


BROKEN = {
  'config = default.get_config()\n  config.modle.name = 1': (4, 'AttributeError', 'modle'),
  'raise KeyError("a\\nb")': (3, 'KeyError: a b'),
  'x = {}["sets"]': (3, 'KeyError: sets'),
  'x = 1 +': (3, 'SyntaxError'),
  'return unknown': (3, 'NameError', 'unknown'),
  'import no_such_module': (3, 'ModuleNotFoundError', 'no_such_module'),
  'default.recipes.datasets(1)': (3, 'AttributeError'),
  'zip(1)': (3, 'TypeError'),
  'default.recipes.change(default.get_config(), sead=1)': (3, 'sead'),
  'open("/no/such/file")': (3, 'FileNotFoundError', '/no/such/file'),
  'def f(): return f()\n  f()': (3, 'RecursionError'),
  'assert False, "mine"': (3, 'AssertionError: mine'),
  'raise SystemExit(0)': (3, 'SystemExit: 0'),
  'raise GeneratorExit': (3, 'GeneratorExit'),
  'class E(Exception): __str__ = None\n  raise E': (4, 'E: E'),
  '1 / 0': (3, 'ZeroDivisionError'),
  'pass': (0, 'returns NoneType, not a config'),
  'return {}': (0, 'returns dict, not a config'),
}


@pytest.mark.parametrize('text', BROKEN)
def test_what_goes_wrong_in_a_config_file_is_said_with_its_line(tmp_path, capsys, text):
  line, *words = BROKEN[text]
  path = tmp_path / 'mine.py'
  path.write_text(f'from diga_jax.configs import default\ndef get_config():\n  {text}\n')
  assert main(['config', f'--config={path}']) == 2
  said = capsys.readouterr().err
  assert said.startswith(f'diga_jax: --config: {path}') and said.count('\n') == 1
  assert [word for word in words if word not in said] == []
  assert not line or f', line {line}: ' in said


@pytest.mark.parametrize('group', ['stages', 'data.sets', 'data', 'model', 'evaluation'])
def test_a_missing_group_is_named(group, tmp_path, capsys):
  text = f'  config = default.get_config()\n  del config.{group}\n  return config\n'
  path = tmp_path / 'mine.py'
  path.write_text(f'from diga_jax.configs import default\ndef get_config():\n{text}')
  assert main(['config', f'--config={path}']) == 2
  said = capsys.readouterr().err
  assert said.startswith(f'diga_jax: config.{group}') and 'is missing' in said


def test_a_file_that_is_no_config_is_refused(tmp_path, capsys):
  for content, words in {
    b'x = 1': 'no function get_config',
    b'\xff\xfe\x00': '',
    b'\0': '',
  }.items():
    (tmp_path / 'mine.py').write_bytes(content)
    assert main(['config', f'--config={tmp_path / "mine.py"}']) == 2
    said = capsys.readouterr().err
    assert str(tmp_path / 'mine.py') in said and words in said and said.count('\n') == 1


@pytest.mark.parametrize(
  ('field', 'hint'),
  [('sead', 'seed'), ('stages.warmup.stepz', 'stages.warmup.steps'), ('stages.warmdown.steps', '')],
)
def test_an_unknown_field_is_refused(capsys, field, hint):
  assert main(['config', '--config=configs/default.py', f'--config.{field}=1']) == 2
  message = capsys.readouterr().err
  assert message.startswith(f'diga_jax: config.{field}: there is no such field')
  assert message.count('\n') == 1 and hint in message


def test_the_page_about_the_fields_is_fresh():
  assert config_page.PAGE.read_text() == config_page.page(), (
    'the comments of configs/ have changed: python -m tests.support.config_page'
  )


@pytest.mark.parametrize('group', config_page.all_groups(), ids=lambda group: group[0])
def test_every_field_has_its_comment(group):
  _, about, rows = group
  assert about and rows
  assert not [field for field, _, text in rows if not text]


def test_every_field_is_on_the_page():
  documented = {field for _, _, rows in config_page.all_groups() for field, _, _ in rows}
  groups = {name.rpartition('.')[2] for name, _, _ in config_page.all_groups()}
  stages = config_page.default.get_config().stages
  assert {field for stage in stages.values() for field in stage} <= documented | groups
