"""Every fenced block and every command of the pages, each by what it is.

Commands of this package are read by its own parser and config, those that cost nothing are carried
out; scripts and modules exist; Python compiles, and what it imports, calls and sets exists; TOML
and YAML can be read. The blocks of docs/extending are carried out by test_extending.py, those of
docs/api.md compared by tests/packaging.
"""

import ast
import configparser
import importlib
import importlib.util
import inspect
import pathlib
import re
import sys
import textwrap
import tomllib

import pytest
import yaml

from data_pipelines.errors import BadInput
from diga_jax.__main__ import main, parser
from diga_jax.config import FIELDS, config_of, field_of, read_config
from diga_jax.recipe.variants import variants
from diga_jax.report import typed_row
from tests.support import pages
from tests.support.pages import ROOT, Block, commands

ELSEWHERE = ('docs/extending/', 'docs/api.md')
BLOCKS = [block for path in pages.PAGES for block in pages.blocks(path)]
OWN = [block for block in BLOCKS if not block.page.startswith(ELSEWHERE)]
KINDS = ('bash', 'diff', 'python', 'text', 'toml', 'yaml')
CHEAP = ('config', 'list')  # commands that are carried out
# What pages call the user's own config, and what stands for any config.
OWN_CONFIGS, ANY_CONFIG = (
  ('my.py', 'own_data.py'),
  re.compile(r'--config=(FILE|NAME|\.\.\.)(?= |$)'),
)
ARRAY = {'SLURM_ARRAY_TASK_ID': '0', 'SLURM_ARRAY_TASK_MIN': '0', 'SLURM_ARRAY_TASK_COUNT': '8'}
CONFIG = """
from diga_jax.configs import datasets, my_data
def get_config():
  config = my_data.get_config()
  config.data.sets.held_out = datasets.cityscapes('test', labelled=False)
  config.criteria.set = 'held_out'
  return config
"""
# Programs that pages name, of others: their options are not ours to know.
FOREIGN = (
  'cd', 'docker', 'envsubst', 'git', 'hf', 'kubectl', 'ls', 'mkdir', 'pre-commit', 'sha256sum',
  'source', 'tensorboard',
)  # fmt: skip
FOREIGN_OPTIONS = (
  'check', 'gpu-bind', 'gpus-per-node', 'gpus-per-task', 'logdir', 'no-sandbox', 'ntasks-per-node',
  'strict',
)  # fmt: skip
OURS = ('diga_jax', 'data_pipelines')
WRAPPERS = ('launch/gpus.sh', 'launch/slurm.sbatch', 'launch/tpu_pod.sh')  # of our commands
by_page = pytest.mark.parametrize('page', pages.PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def of_kind(kind: str) -> pytest.MarkDecorator:
  chosen = [block for block in OWN if block.kind == kind]
  return pytest.mark.parametrize('block', chosen, ids=lambda block: block.place)


@pytest.fixture
def desk(tmp_path, monkeypatch) -> pathlib.Path:
  """A folder with what commands of the pages read: the configs, and the user's own."""
  monkeypatch.chdir(tmp_path)
  for name in ('configs', 'benchmarks', 'docs', 'launch', 'tests', '.ci'):
    (tmp_path / name).symlink_to(ROOT / name)
  for name in OWN_CONFIGS:
    (tmp_path / name).write_text(CONFIG)
  for name, value in ARRAY.items():
    monkeypatch.setenv(name, value)
  return tmp_path


def read(words: list[str]) -> None:
  """Reads a command of this package as the program does, as far as its config and stages."""
  arguments, overrides = parser().parse_known_args(words)
  config = config_of(arguments, overrides)
  if config is None:
    return
  if vary := getattr(arguments, 'vary', None):
    variants(arguments.config, overrides, config, vary)
  stage = getattr(arguments, 'stage', None)
  if isinstance(stage, str) and stage.partition('@')[0] not in config.stages:
    raise BadInput(f'--stage={stage}: the config has no such stage')
  for name in getattr(arguments, 'sets', None) or ():
    if name not in config.data.sets:
      raise BadInput(f'--sets {name}: the config has no such data set')


def check_ours(words: list[str]) -> None:
  """Reads a command; carries it out if that costs nothing."""
  read(words)
  if words[0] in CHEAP:
    assert main(words) == 0


def check_python(words: list[str]) -> None:
  """A module or file that exists; a command if the module is this package."""
  if words[0] != '-m':
    assert pathlib.Path(words[0]).is_file(), words[0]
  elif words[1] == 'diga_jax':
    check_ours(words[2:])
  elif words[1] != 'mkdocs':
    assert importlib.util.find_spec(words[1]), words[1]


def check_script(words: list[str]) -> None:
  """A script of this repository, with a command or extras where it takes them."""
  script, *rest = words
  assert pathlib.Path(script).is_file(), script
  if script in WRAPPERS:
    check_ours(rest)
  elif script == 'launch/setup.sh':
    check_extras(rest[0])
  elif script == 'launch/quickstart.sh':
    check_ours(['run', '--config=configs/quickstart.py', '--workdir=runs/quickstart', *rest])


def check_extras(names: str) -> None:
  setup = configparser.ConfigParser()
  setup.read(ROOT / 'setup.cfg')
  unknown = set(names.split(',')) - set(setup['options.extras_require'])
  assert not unknown, unknown


def check_install(words: list[str]) -> None:
  """pip install of this folder: with extras that exist."""
  for extras in re.findall(r'(?:^|\s)\.\[(.+?)\]', ' '.join(words)):
    check_extras(extras)


PROGRAMS = {
  'bash': check_script,
  'diga-jax': check_ours,
  'pip': check_install,
  'python': check_python,
  'sbatch': lambda words: check_script(words[words.index('launch/slurm.sbatch') :]),
}


def check_command(words: list[str]) -> None:
  """A simple command: of a program that is known here, with what it is given."""
  while words and (setting := re.fullmatch(r'[A-Z_]+=(.*)', words[0], re.S)):
    if words.pop(0).startswith('COMMAND='):
      check_ours(setting[1].split())
  if words:
    program = words[0].removeprefix('.venv/bin/')
    assert program in (*PROGRAMS, *FOREIGN), f'{program}: not known to this test'
    if program in PROGRAMS:
      PROGRAMS[program](words[1:])


def check_commands(script: str, place: str, capsys: pytest.CaptureFixture[str]) -> None:
  """Fails with what a command's parser or config says against it."""
  for words in commands(script):
    try:
      check_command(words)
    except SystemExit as error:
      if error.code != 0:  # --help and --version
        pytest.fail(f'{place}: {capsys.readouterr().err}')
    except BadInput as error:
      pytest.fail(f'{place}: {error}')


@pytest.mark.parametrize('block', BLOCKS, ids=lambda block: block.place)
def test_a_block_says_what_it_is(block: Block):
  assert block.kind in KINDS, f'{block.place}: {block.kind!r} is none of {", ".join(KINDS)}'
  assert block.text.strip(), f'{block.place}: is empty'


@of_kind('bash')
def test_commands_are_understood(block: Block, desk, capsys):
  check_commands(block.text, block.place, capsys)


@of_kind('text')
def test_text_is_no_command(block: Block):
  assert not re.match(r'(\$ |python |bash |pip )', block.text), f'{block.place}: mark it bash'


@of_kind('toml')
def test_toml_is_a_typed_row(block: Block, tmp_path):
  (tmp_path / 'row.toml').write_text(block.text)
  assert tomllib.loads(block.text)
  assert typed_row.read(tmp_path / 'row.toml')


@of_kind('yaml')
def test_yaml_is_a_job_of_a_command(block: Block, desk):
  found = yaml.safe_load(block.text)
  for container in found['spec']['template']['spec']['containers']:
    assert container['command'][-2:] == ['-m', 'diga_jax']
    read(container['args'])


# Fields and groups of fields: 'stages', 'stages.*', 'stages.*.view', 'stages.*.view.jitter', ...
KNOWN = {field[: end.start()] for field in FIELDS for end in re.finditer(r'\.|$', field)}

GROUPS = '|'.join(sorted({field.partition('.')[0] for field in KNOWN if '.' in field}))
# A field within a line: 'config.seed', or 'evaluation.scales' without that.
NAMED = re.compile(rf'(?<![\w./-])(?:config\.|(?=(?:{GROUPS})\.))([\w.*]*[\w*])(?![\w/(])')


def check_field(path: str) -> None:
  """A field of the config, or a group of fields, exists."""
  assert field_of(f'{path}.')[:-1] in KNOWN, f'config.{path}: there is no such field'


def chain(node: ast.expr) -> list[str]:
  """['a', 'b', 'c'] of a.b.c; [] of anything else."""
  if isinstance(node, ast.Attribute):
    return [*before, node.attr] if (before := chain(node.value)) else []
  return [node.id] if isinstance(node, ast.Name) else []


def imported(tree: ast.Module) -> dict[str, object]:
  """What the imports of a module bind; an import that does not work raises."""
  scope: dict[str, object] = {'datasets': importlib.import_module('diga_jax.configs.datasets')}
  for node in ast.walk(tree):
    if isinstance(node, ast.Import | ast.ImportFrom):
      exec(compile(ast.Module([node], []), 'page', 'exec'), scope)
  return scope


@of_kind('python')
def test_python_compiles_and_names_what_exists(block: Block, monkeypatch):
  if 'import network' in block.text:  # network.py of a model card
    pytest.importorskip('torch')
    monkeypatch.setitem(sys.modules, 'network', importlib.import_module('diga_jax.card.network'))
  tree = ast.parse(block.text)
  scope = imported(tree)
  for node in ast.walk(tree):
    if isinstance(node, ast.Attribute) and (names := chain(node)):
      if names[0] == 'config':
        check_field('.'.join(names[1:]))
      elif names[0] in scope:
        find(scope, names)
    if isinstance(node, ast.Call) and (names := chain(node.func)) and names[0] in scope:
      called = find(scope, names)
      if callable(called) and (getattr(called, '__module__', None) or '').startswith(OURS):
        inspect.signature(called).bind(*node.args, **{k.arg: 0 for k in node.keywords if k.arg})


@of_kind('python')
def test_python_that_sets_fields_makes_a_config(block: Block, desk):
  if not all(isinstance(node, ast.Assign) for node in ast.parse(block.text).body):
    return
  lines = ['config = quickstart.get_config()', *block.text.split('\n'), 'return config']
  head = 'from diga_jax.configs import datasets, quickstart\ndef get_config():\n'
  (desk / 'block.py').write_text(head + textwrap.indent('\n'.join(lines), '  '))
  config = read_config(['--config=block.py'])
  assert variants('block.py', [], config, [])


def find(scope: dict[str, object], names: list[str]) -> object:
  found = scope[names[0]]
  for name in names[1:]:
    found = getattr(found, name)
  return found


def options() -> set[str]:
  """The long options of all commands."""
  found, waiting = set(), [parser()]
  while waiting:
    for action in waiting.pop()._actions:
      found |= {option[2:] for option in action.option_strings if option.startswith('--')}
      if isinstance(action.choices, dict):
        waiting += action.choices.values()
  return found


@by_page
def test_commands_within_lines_are_understood(page, desk, capsys):
  for code in pages.inline_code(page):
    if re.match(r'python -m diga_jax .*(^| )-', code):  # the name alone: test_links.py
      check_commands(ANY_CONFIG.sub('--config=quickstart', code), code, capsys)


@by_page
def test_options_and_fields_within_lines_exist(page):
  if page.name == 'CHANGELOG.md':
    return  # of earlier versions
  known = options() | set(FOREIGN_OPTIONS)
  for code in pages.inline_code(page):
    for option in re.findall(r'(?<!\S)--([a-z][\w-]*)(?![\w.-])', code):
      assert option in known, f'--{option}: no command has it'
    for path in NAMED.findall(code):
      if not re.search(r'FIELD$|^(py|json)$|(safetensors|onnx)$', path):
        check_field(path)
