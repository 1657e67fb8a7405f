"""What each field of a config may be: every field has one rule, and every rule refuses by name."""

import functools
import inspect
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict, config_dict

from data_pipelines.errors import BadInput
from diga_jax import models
from diga_jax.config import FIELDS, check, check_fields, field_of, flatten, read_config
from tests.configs import tiny, tiny_generalization, tiny_hiast, tiny_semi
from tests.support import frozen

MODULES = (tiny, tiny_generalization, tiny_hiast, tiny_semi)
CONFIGS = frozen.CONFIGS | {module.__name__: module.get_config for module in MODULES}
# Not from model.options.
GIVEN = {'classes', 'dtype', 'precision', 'remat', 'axis_name', 'parent', 'name'}


def options(network: str) -> dict:
  """The options of a network with their defaults."""
  known = inspect.signature(models.SEGMENTATION[network]).parameters.items()
  return {name: parameter.default for name, parameter in known if name not in GIVEN}


def numbers(value: object) -> list:
  """The numbers of a field, in whatever depth of tuples; booleans are none."""
  if isinstance(value, tuple | list):
    return [number for part in value for number in numbers(part)]
  return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


TINY = flatten(tiny.get_config().to_dict())
NUMERIC = sorted(path for path, value in TINY.items() if numbers(value))
SEVERAL = sorted(path for path in NUMERIC if isinstance(TINY[path], tuple))


def changed(path: str, value: object) -> ConfigDict:
  """The tiny config with one field changed, whatever its type."""
  config = tiny.get_config()
  with config.unlocked(), config.ignore_type():
    config.update_from_flattened_dict({path: value})
  return config


def refused(config: ConfigDict | dict, *words: str) -> None:
  """Asserts that a config, or its fields by path, is refused in one line with these words."""
  with pytest.raises(BadInput) as error:
    check(config) if isinstance(config, ConfigDict) else check_fields(config)
  line = str(error.value)
  assert '\n' not in line
  assert [word for word in words if word not in line] == [], line


@pytest.mark.parametrize('name', CONFIGS)
def test_every_field_of_a_config_has_a_rule_and_passes_it(name):
  config = CONFIGS[name]()
  for path, value in flatten(config.to_dict()).items():
    assert field_of(path) in FIELDS, path
    assert FIELDS[field_of(path)].accepts(value), path
  check(config)


@pytest.mark.parametrize('network', models.SEGMENTATION)
def test_every_option_of_a_network_has_a_rule_and_passes_it(network):
  for name, value in options(network).items():
    assert FIELDS[f'model.options.{name}'].accepts(value), name


def test_every_rule_is_that_of_a_field():
  found = {field_of(path) for make in CONFIGS.values() for path in flatten(make().to_dict())}
  found |= {f'model.options.{name}' for network in models.SEGMENTATION for name in options(network)}
  assert found == FIELDS.keys()


NO_NUMBERS = (math.nan, math.inf, -math.inf, -1, -0.5, 1e300, 10**400, True, None, 'a', {'a', 1})
NOTHINGS = (None, b'', {1}, 1j, ((),), [['']], object())


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(NUMERIC), st.sampled_from(NO_NUMBERS))
def test_a_number_that_no_run_could_use_is_refused(path, wrong):
  value = TINY[path]
  wrong = (*value[:-1], wrong) if isinstance(value, tuple) else wrong
  refused(TINY | {path: wrong}, f'config.{path} is', 'it may be')


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SEVERAL), st.sampled_from(['longer', 'shorter', 'deeper', 'flat', 'text']))
def test_another_length_or_depth_is_refused(path, how):
  value = TINY[path]
  free = field_of(path).endswith(('scales', 'repeats', 'blocks'))  # of any length
  wrong = {
    'longer': (*value, 'a') if free else (*value, value[-1]),
    'shorter': ('a', *value[1:]) if free else value[:-1],
    'deeper': tuple((part,) for part in value),
    'flat': 3,
    'text': str(value),
  }[how]
  refused(TINY | {path: wrong}, f'config.{path} is', 'it may be')


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(sorted(TINY)), st.sampled_from(NOTHINGS))
def test_another_type_is_refused(path, wrong):
  refused(TINY | {path: wrong}, f'config.{path} is', 'it may be')


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(NUMERIC), st.sampled_from([math.nan, math.inf, -1.0]))
def test_a_whole_config_is_refused_like_its_fields(path, wrong):
  wrong = (wrong,) * len(TINY[path]) if isinstance(TINY[path], tuple) else wrong
  refused(changed(path, wrong), f'config.{path} is', 'it may be')


@pytest.mark.parametrize(
  'path, value, words',
  [
    ('stages.warmup.loss', 'focal', "is 'focal': it may be cross_entropy, labelled_cross_entropy"),
    ('stages.warmup.optimizer.kind', 'adagrad', 'it may be sgd, adam, adamw'),
    ('stages.warmup.optimizer.head_pattern', '(final', 'it may be a regular expression'),
    ('stages.warmup.optimizer.frozen', ('[',), 'each a regular expression'),
    ('stages.warmup.optimizer.momentum', 1.0, 'it may be a number between 0 and 1, but not 1'),
    ('stages.warmup.optimizer.decay', 'step', 'it may be poly, cosine'),
    ('stages.warmup.view.blur', 1.5, 'it may be a number between 0 and 1'),
    ('evaluation.scales', (), 'it may be a tuple of 1 or more, each a number between 0 and 16'),
    ('evaluation.scales', (0.0,), 'but not 0'),
    ('evaluation.scales', (1e-40,), 'but not 0'),
    ('model.options.dropout', 1 - 1e-9, 'but not 1'),
    ('stages.warmup.optimizer.learning_rate', 0.0, 'but not 0'),
    ('stages.warmup.ema_decay_max', 2, 'it may be a number between 0 and 1'),
    ('evaluation.batch_size', 0, 'it may be a whole number from 1 to 1,024'),
    ('seed', -1, 'it may be a whole number, at least 0 and below 2**63'),
    ('seed', 1.0, 'a whole number'),
    ('save_every', 0, 'at least 1'),
    ('data.classes', 256, 'it may be a whole number from 1 to 255'),
    ('data.crop', (32,), 'it may be a tuple of 2, each a whole number'),
    ('data.sets.source.low_size', (32,), 'it may be a tuple of 0 or 2, each a whole number'),
    ('data.sets.source.table', 'citiscapes', 'cityscapes'),
    ('data.sets.source.table', ((0, 256),), 'or pairs of an id, or a colour, and a train id'),
    ('data.sets.source.look', 'winter', 'it may be game, camera, dusk, fog'),
    ('model.name', 'vgg19_features', 'it may be deeplab_resnet101, '),
    ('model.dtype', 'float8', 'it may be float32, bfloat16'),
    ('model.options.output_stride', 4, 'it may be 8, 16'),
    ('remat', 1, 'it may be True, False'),
    ('profile_steps', (3,), 'it may be a tuple of 0 or 2'),
    ('profile_steps', (5, 1), 'the smaller one first'),
    ('data.sets.source.zoom_heights', (9, 8), 'the smaller one first'),
    ('data.crop', (100_000, 100_000), 'each a whole number from 32 to 16,384'),
    ('stages.warmup.batch.low_rows', 100_000, 'it may be a whole number from 0 to 65,536'),
    ('data.sets.source.count', 10**15, 'it may be a whole number from 0 to 1,000,000'),
    ('model.options.blocks', (1,) * 6, 'it may be a tuple of 1 or 2 or 3 or 4'),
    ('recipe', (), 'a tuple of 1 or more, each a name, no two alike'),
    ('recipe', ('warmup', 'warmup'), 'no two alike'),
    ('evaluation.name', ' ', 'it may be a name'),
    ('data.root', 'a\0b', 'it may be text on one line'),
  ],
)
def test_the_message_says_what_a_field_may_be(path, value, words):
  refused(changed(path, value), f'config.{path} is ', words)


@pytest.mark.parametrize(
  'path, near',
  [
    ('data.corp', 'data.crop'),
    ('sead', 'seed'),
    ('stages.warmup.foo', 'stages.warmup.loss'),
    ('stages.warmup.optimizer.lerning_rate', 'stages.warmup.optimizer.learning_rate'),
    ('data.sets.target.lables', 'data.sets.target.labels'),
    ('stages.warmup.batch.rows', 'stages.warmup.batch.'),
    ('model.options.droput', 'model.options.dropout'),
    ('extra', 'no such field'),
    ('data.sets.mean', 'no such field'),
  ],
)
def test_a_misspelt_field_is_refused_with_the_nearest(path, near):
  refused(changed(path, 1), f'config.{path}: there is no such field', near)


def test_a_value_where_there_are_fields_and_fields_where_there_is_a_value():
  refused(changed('stages.warmup', 3), 'config.stages.warmup: there is no such field')
  refused(changed('seed', ConfigDict({'a': 1})), 'config.seed.a: there is no such field')
  refused(changed('seed', ConfigDict()), 'config.seed is missing')
  refused(changed('stages.new', ConfigDict()), 'config.stages.new.kind is missing')


WRITTEN = {
  'set': 'config.data.corp = 1\n  config.extra = 2\n  config.stages.warmup.foo = 3',
  'update': "config.update({'data': {'corp': 1}, 'extra': 2, 'stages': {'warmup': {'foo': 3}}})",
  'dicts': "config.data['corp'] = 1\n  config['extra'] = 2\n  config.stages['warmup']['foo'] = 3",
  'copied': (
    'config = config.copy_and_resolve_references()\n'
    '  config.data.corp, config.extra, config.stages.warmup.foo = 1, 2, 3'
  ),
  'groups': "config.data.corp = {'a': 1}\n  config.extra = {}\n  config.stages.warmup.foo = {}",
  'unlocked': (
    'config.lock()\n  with config.unlocked():\n'
    '    config.data.corp, config.extra, config.stages.warmup.foo = 1, 2, 3'
  ),
  'rebuilt': (
    "values = config.to_dict()\n  values['data']['corp'], values['extra'] = 1, 2\n"
    "  values['stages']['warmup']['foo'] = 3\n  config = type(config)(values)"
  ),
}  # fmt: skip


@pytest.mark.parametrize('how', WRITTEN)
@pytest.mark.parametrize('start', ['tests.configs import tiny', 'diga_jax.configs import default'])
def test_unknown_fields_are_named_together_however_they_are_written(how, start, tmp_path):
  path, module = tmp_path / 'mine.py', start.split()[-1]
  begin = f'from {start}\ndef get_config():\n  config = {module}.get_config()\n  '
  path.write_text(f'{begin}{WRITTEN[how]}\n  return config\n')
  with pytest.raises(BadInput) as error:
    read_config([f'--config={path}'])
  line = str(error.value)
  for field in ('data.corp', 'extra', 'stages.warmup.foo'):
    assert f'config.{field}' in line
  assert line.count('there is no such field') == 3 and '\n' not in line


@pytest.mark.parametrize(
  'line, near',
  [
    ("datasets.dataset(imagess='a')", 'images'),
    ('stages.warmup_stage(stepz=1)', 'steps'),
    ('stages.photometric_view(blurr=1)', 'blur'),
    ('fields.change(config.stages.warmup, stepz=1)', 'steps'),
    ("fields.change(config.stages.warmup, batch={'low_row': 1})", 'low_rows'),
    ('fields.follow(config.stages.label_1, scale=(1.0,))', 'scales'),
    ('networks.deeplab(droput=0.5)', 'dropout'),
  ],
)
def test_the_functions_of_configs_refuse_unknown_fields_with_the_nearest(line, near, tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text(
    'from diga_jax.configs import datasets, fields, networks, stages\n'
    f'from tests.configs import tiny\ndef get_config():\n  config = tiny.get_config()\n  {line}\n'
    '  return config\n'
  )
  with pytest.raises(BadInput, match=rf'nearest are .*\b{near}\b') as error:
    read_config([f'--config={path}'])
  assert '\n' not in str(error.value)


def test_a_field_of_another_kind_of_stage_is_unknown_and_one_of_its_own_is_missed():
  refused(
    changed('stages.warmup.ema_decay', 0.5),
    'config.stages.warmup.ema_decay: there is no such field; the nearest are',
    'stages.warmup.ema_decay_max',
  )
  for path in ('stages.label_1.selector', 'stages.warmup.batch.redraw', 'data.sets.source.table'):
    config = tiny.get_config()
    group, _, field = path.rpartition('.')
    del functools.reduce(lambda found, part: found[part], group.split('.'), config)[field]
    refused(config, f'config.{path} is missing: it may be')


def test_classes_have_one_name_each():
  config = changed('data.classes', 4)
  refused(config, "config.data.names is 'cityscapes19', which has 19 classes", 'is 4')
  config.data.class_names = ('a', 'b', 'c', 'd')
  check(config)
  for names in (('a', 'a', 'b', 'c'), ('a', 'A ', 'b', 'c'), ('a', '', 'b', 'c'), ('a', ' ', 'b')):
    config.data.class_names = names
    refused(config, 'config.data.class_names is', 'each a name, no two alike')
  config.data.classes, config.data.class_names = 20, tuple(f'c{i}' for i in range(20))
  refused(
    config, "config.data.names is 'cityscapes19', which has 19 classes", 'config.data.palette'
  )


def test_stages_are_named_that_can_be_used():
  refused(changed('stages.warmup.start', 'label_1'), "start is 'label_1': name a stage that trains")
  refused(changed('stages.warmup.start', 'none'), "start is 'none': name a stage that trains")
  refused(changed('stages.warmup.translator', 'label_1'), "translator is 'label_1': name a stage")
  refused(changed('recipe', ('warmup', 'labels')), "config.recipe names 'labels'")
  refused(changed('evaluation.stages', ('labels',)), "config.evaluation.stages names 'labels'")
  refused(changed('translator.discriminator_layers', 5), 'the discriminators halve crops')
  refused(changed('stages.warmup.batch.source', 'x'), "config.stages.warmup names 'x', but")
  refused(changed('data.sets.source.count', 0), 'config.data.sets.source.count is 0: give')


def test_a_config_file_is_checked_when_it_is_read(tmp_path):
  path = tmp_path / 'mine.py'
  lines = 'from tests.configs import tiny\ndef get_config():\n  config = tiny.get_config()\n  {}\n'
  for change, words in {
    'config.data.corp = (32, 32)': 'config.data.corp: .* the nearest are data.crop',
    'del config.data.root': 'config.data.root is missing',
    'del config.stages.label_1.selector': 'config.stages.label_1.selector is missing',
  }.items():
    path.write_text(lines.format(change) + '  return config\n')
    with pytest.raises(BadInput, match=words) as error:
      read_config([f'--config={path}'])
    assert '\n' not in str(error.value)


def test_a_batch_without_rows_is_refused():
  config = changed('stages.warmup.batch.low_rows', 0)
  check(config)
  config.stages.warmup.batch.full_rows = 0
  refused(config, 'config.stages.warmup.batch has no rows')


@pytest.mark.parametrize('field, value', [('checkpoint_choice', 'oracle'), ('record', ('oracle',))])
def test_the_oracle_needs_a_set(field, value):
  config = changed('evaluation.sets', ())
  check(config)
  (config if field == 'checkpoint_choice' else config.criteria)[field] = value
  refused(config, 'config.evaluation.sets')


CRITERIA = {
  'no held-out set': ({'checkpoint_choice': 'agreement'}, "config.criteria.set is ''", 'agreement'),
  'no held-out set to record on': ({'criteria.record': ('density',)}, "config.criteria.set is ''"),
  'a set that is not there': ({'criteria.set': 'nowhere'}, "config.criteria.set names 'nowhere'"),
  'a set that is measured': ({'criteria.set': 'camera_test'}, 'config.evaluation.sets names too'),
  'a set that is learnt from': ({'criteria.set': 'target'}, 'config.stages.translator names too'),
  'consensus without centroids': (
    {'checkpoint_choice': 'consensus', 'criteria.set': 'spare'},
    "config.stages.warmup has no centroids for the criterion 'consensus'",
  ),
  'consensus in no stage': (
    {
      'criteria.record': ('consensus',),
      'criteria.set': 'spare',
      'recipe': ('translator', 'warmup'),
    },
    'config.stages.warmup has no centroids',
  ),
  'an unknown criterion': ({'criteria.record': ('entropy',)}, 'each agreement, consensus'),
  'one twice': ({'criteria.record': ('oracle', 'oracle')}, 'no two alike'),
  'a choice that is not kept': (
    {'evaluation.checkpoints': ('last', 'oracle')},
    "config.evaluation.checkpoints names 'oracle', which is not kept: name it in",
  ),
}


@pytest.mark.parametrize('case', CRITERIA)
def test_criteria_that_cannot_be_had_are_refused(case):
  changes, *words = CRITERIA[case]
  config = changed('seed', 0)
  config.data.sets.spare = config.data.sets.camera_test.copy_and_resolve_references()
  with config.ignore_type():
    config.update_from_flattened_dict(changes)
  refused(config, *words)


def test_criteria_that_can_be_had_pass():
  config = changed('criteria.record', ('agreement', 'consensus', 'density', 'oracle'))
  config.data.sets.spare = config.data.sets.camera_test.copy_and_resolve_references()
  config.criteria.set = 'spare'
  config.evaluation.checkpoints = ('last', 'consensus', 'oracle')
  check(config)
  config.criteria.record, config.evaluation.checkpoints = (), ('last',)
  check(config)


@pytest.mark.parametrize(
  'path, value',
  [
    ('seed', 2**63 - 1),
    ('stages.warmup.steps', 0),
    ('stages.warmup.ema_decay_max', 1.0),
    ('stages.warmup.optimizer.frozen', []),
    ('stages.warmup.optimizer.repeats', [['^layer', 2]]),
    ('data.crop', [32, 48]),
    ('data.sets.source.table', (((0, 0, 0), 255), (1, 0))),
    ('profile_steps', [3, 5]),
    ('evaluation.pictures', 0),
    ('evaluation.scales', (1,)),
    ('model.options.dropout', 0),
  ],
)
def test_what_works_is_let_through(path, value):
  check(changed(path, value))


def test_references_stand_for_their_values():
  config = tiny.get_config()
  config.log_every = config.get_ref('save_every')
  config.data.crop = (32, 48)
  check(config)
  with config.ignore_type():
    config.save_every = 0
  refused(config, 'config.log_every is 0')
  with config.ignore_type():
    config.save_every = 2
    config.seed = config_dict.placeholder(int)
  refused(config, 'config.seed is None')
  config = tiny.get_config()
  del config.seed
  config.seed = config_dict.required_placeholder(int)
  refused(config, 'placeholder')


@pytest.mark.parametrize(
  'changes, words',
  [
    ({'stages.label_1.start': ''}, 'config.stages.label_1: it has no network that labels'),
    ({'stages.label_1.weights': 'a.pth'}, "start is 'warmup' and weights 'a.pth'"),
    ({'stages.warmup.weights': 'a.pth', 'stages.warmup.start': 'b'}, "start is 'b' and weights"),
    (
      {'stages.label_1.start': '', 'model.weights': 'a.pth', 'stages.label_1.network': 'teacher'},
      "network is 'teacher'",
    ),
  ],
)
def test_what_a_stage_starts_from_is_one_thing(changes, words):
  config = tiny.get_config()
  config.update_from_flattened_dict(changes)
  refused(config, words)
  files = {'stages.label_1.start': '', 'stages.label_1.weights': 'a.pth'}
  config = tiny.get_config()
  config.update_from_flattened_dict(files)
  check(config)


NO_FOLDERS = (
  '', '.', '..', '../x', '../../x', '/x', 'a/b', 'a\\b', 'a\0', 'a b', '-a', '.a', '~', 'v1.5',
  'a\n', '\x1b[2J', 'a' * 61, 'a.partial',
)  # fmt: skip


@pytest.mark.parametrize('name', NO_FOLDERS)
def test_what_names_a_folder_stays_in_its_place(name):
  refused(changed('evaluation.name', name), 'config.evaluation.name is ', 'letters, digits')
  for group in ('stages', 'sets'):
    config = tiny.get_config()
    known = config.stages if group == 'stages' else config.data.sets
    if '.' in name or not name:  # ml_collections refuses it; it makes fields without a name
      continue
    known[name] = known['warmup' if group == 'stages' else 'source'].copy_and_resolve_references()
    refused(config, f'{group} has {name!r}: it may be a name of up to 60 letters, digits')


def test_a_stage_has_no_folder_of_the_measurements():
  config = tiny.get_config()
  config.stages.evaluation = config.stages.warmup.copy_and_resolve_references()
  refused(config, "config.stages has 'evaluation', the folder of what is measured: rename it")


@pytest.mark.parametrize('known', ['identity', ((0, 0), (1, 1))])
@pytest.mark.parametrize(
  'given, table',
  [
    ('masks', 'masks'),
    ('((0,0),(255,1))', ((0, 0), (255, 1))),
    ('[(0, 0), (255, 1)]', ((0, 0), (255, 1))),
    ('{0: 0, 255: 1}', None),
    ('(((0,0,0),255),((1,2,3),1))', (((0, 0, 0), 255), ((1, 2, 3), 1))),
    ('((0,0)', None), ('((0,300),)', None), ('nope', None), ('', None), ('5', None),
    ("__import__('os')", None),
  ],
)  # fmt: skip
def test_a_label_table_is_a_name_or_pairs_on_the_command_line(tmp_path, known, given, table):
  (tmp_path / 'own.py').write_text(
    'from tests.configs import tiny\n\ndef get_config():\n'
    '  config = tiny.get_config()\n  source = config.data.sets.source\n'
    f'  with source.ignore_type():\n    source.table = {known!r}\n  return config\n'
  )
  argv = [f'--config={tmp_path}/own.py', f'--config.data.sets.source.table={given}']
  if table:
    assert read_config(argv).data.sets.source.table == table
    return
  with pytest.raises(BadInput, match=r'data.sets.source.table is .* it may be identity, masks'):
    read_config(argv)
