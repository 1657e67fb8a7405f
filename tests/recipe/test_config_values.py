"""Every field of a config with values that nobody means: refused in one line, or a run works."""

import math
import pathlib
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict

from data_pipelines.errors import BadInput
from diga_jax import models
from diga_jax.__main__ import main
from diga_jax.config import FIELDS, check_fields, field_of, flatten
from tests.recipe.test_config_fields import CONFIGS, MODULES, numbers, options

HUGE = (10**6, 10**9, 2**31, 10**15, 2**63, 10**400, 1e6, 1e30, 1e300, -(10**9), -1e30)
SMALL = (0, 1, 2, 3, -1, 0.0, 0.5, 1.0, 1.5, -0.5, 1e-9, 1e-40, 1 - 1e-9, 5e-324, -0.0)
NOT_FINITE = (math.nan, math.inf, -math.inf)
TYPES = (
  None, True, False, '', ' ', 'x', '[', '(', 'a\nb', '\0', 'x' * 10**5, b'x', 1j, {}, {'a': 1}, {1},
  object(), range(2), np.float32(0.5), np.float64(0.5), np.float64('nan'), np.int64(1), np.int8(-1),
  np.bool_(True), np.array(1), np.array([1, 2]), np.str_('x'),
)  # fmt: skip
TUPLES = (
  (), (1,), (1, 1), (2, 1), (32, 48), [32, 48], (1, 1, 1), (1,) * 9, (0, 0), (-1, 1), (96, 192.5),
  (0.5,), (math.nan,), (1.0, math.inf), (10**5, 10**5), (10**15, 1), ('x',), ('x', 'x'),
  ('x', 'X '), ('',), ('[',), (('x', 1),), (('[', 1),), (('x', 0),), (('x', 10**9),), ((1, 2, 3),),
  ((0, 256),), ((1,), (1,)), (None,), (True,), (b'x',), ([],), ((),), (np.int64(1), np.int64(1)),
)  # fmt: skip
VALUES = (*HUGE, *SMALL, *NOT_FINITE, *TYPES, *TUPLES)


def configs_by_field() -> dict[str, tuple[str, str]]:
  """Field -> (the name of a config, the path of the field in it), the smallest configs first."""
  found: dict[str, tuple[str, str]] = {}
  names = [module.__name__ for module in MODULES]
  for name in sorted(CONFIGS, key=lambda name: name not in names):
    for path in flatten(CONFIGS[name]().to_dict()):
      found.setdefault(field_of(path), (name, path))
  for network in models.SEGMENTATION:
    for option in options(network):
      found.setdefault(f'model.options.{option}', (names[0], f'model.options.{option}'))
  return found


BY_FIELD = configs_by_field()


def accepted(field: str) -> list:
  """The values that the rule of a field lets through."""
  return [value for value in VALUES if FIELDS[field].accepts(value)]


def test_every_field_is_tried():
  assert BY_FIELD.keys() == FIELDS.keys()


@pytest.mark.parametrize('field', FIELDS)
def test_a_rule_answers_every_value_with_yes_or_no(field):
  answers = [FIELDS[field].accepts(value) for value in VALUES]
  assert {type(answer) for answer in answers} == {bool}
  assert not all(answers)
  assert all(math.isfinite(number) for value in accepted(field) for number in numbers(value))


@pytest.mark.parametrize('name', sorted({name for name, _ in BY_FIELD.values()}))
def test_a_refusal_is_a_line_that_names_the_field(name):
  values = flatten(CONFIGS[name]().to_dict())
  for field, path in (
    (field, path) for field, (config, path) in BY_FIELD.items() if config == name
  ):
    wrong = [value for value in VALUES if not FIELDS[field].accepts(value)]
    for value in wrong[:: len(wrong) // 5]:
      with pytest.raises(BadInput) as error:
        check_fields(values | {path: value})
      line = str(error.value)
      assert line.startswith(f'config.{path} is ') and 'may be' in line and '\n' not in line
      assert len(line) < 1500
  for field, (config, path) in BY_FIELD.items():
    wrong = [value for value in VALUES if not FIELDS[field].accepts(value)]
    for value in wrong[:: len(wrong) // 2] * (config == name):
      with pytest.raises(BadInput) as error:
        check_fields(values | {path: value})
      line = str(error.value)
      assert line.startswith((f'config.{path} is ', f'config.{path}.a: there is no such field'))
      assert '\n' not in line and len(line) < 1500


# What is accepted, carried out.

LONG = ('stages.*.steps', 'data.sets.*.count')

CHANGED: list[ConfigDict] = []  # the config that the file below gives
FILE = 'from tests.recipe import test_config_values as t\nget_config = lambda: t.CHANGED[-1]\n'


def prepared(name: str, place: pathlib.Path) -> ConfigDict:
  """The config of a module in two steps, with its files below `place`."""
  config = CONFIGS[name]()
  config.data.cache = str(place / 'cache')
  for stage in config.stages.values():
    if 'steps' in stage:
      stage.steps = 2
  return config


def run(config: ConfigDict, place: pathlib.Path, capsys, command: str, *more: str) -> None:
  """A command ends with status 0, or with 2 and one line."""
  CHANGED.append(config)
  (place / 'changed.py').write_text(FILE)
  capsys.readouterr()
  status = main([command, f'--config={place / "changed.py"}', f'--workdir={place / "run"}', *more])
  printed = capsys.readouterr().err
  lines = [line for line in printed.splitlines() if line.startswith('diga_jax: ')]
  assert (status, len(lines)) in ((0, 0), (2, 1)), printed
  assert 'has a file been changed' not in printed and 'Traceback' not in printed, printed


@pytest.fixture(scope='module')
def complete(tmp_path_factory):
  """Name of a config -> the folder of its files, with a run of all of its stages."""
  places: dict[str, pathlib.Path] = {}

  def of(name: str, capsys) -> pathlib.Path:
    if name not in places:
      place = tmp_path_factory.mktemp(name.rpartition('.')[2])
      run(prepared(name, place), place, capsys, 'run')
      places[name] = place
    return places[name]

  return of


@pytest.mark.exhaustive
@pytest.mark.parametrize('field', FIELDS)
def test_what_is_accepted_can_be_carried_out(field, complete, tmp_path, capsys):
  name, path = BY_FIELD[field]
  place = complete(name, capsys)
  # A million steps or scenes can be carried out, but not here.
  affordable = [v for v in accepted(field) if field not in LONG or v < 10**6]
  for value in affordable:
    config = prepared(name, place)
    stage = path.split('.')[1] if path.startswith('stages.') else ''
    with config.unlocked(), config.ignore_type():
      config.update_from_flattened_dict({path: value})
      if not stage and path.partition('.')[0] != 'translator' and field != 'recipe':
        config.recipe = ('warmup',)
        config.translator.kind = 'none'
        config.stages.warmup.start = ''
    shutil.rmtree(tmp_path / 'run', ignore_errors=True)
    if stage:
      shutil.copytree(place / 'run', tmp_path / 'run')
      shutil.rmtree(tmp_path / 'run' / stage)
    is_pass = bool(stage) and 'steps' not in config.stages[stage]
    command = ('label' if is_pass else 'train') if stage else 'run'
    run(config, tmp_path, capsys, command, *([f'--stage={stage}'] if stage else []))
