"""What is wrong with any part of a recipe is said before its first step, in one line."""

import collections
import pathlib
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict

from data_pipelines.errors import BadInput
from diga_jax import weights
from diga_jax.__main__ import main
from diga_jax.recipe import checks, graph
from diga_jax.recipe.experiment import Run
from diga_jax.storage import stage_folder
from tests.configs import tiny, tiny_hiast, tiny_semi
from tests.support import data_files

CONFIG = '--config=tests/configs/tiny.py'
FOLDER = {'kind': 'folder', 'images': 'images/{id}.png', 'labels': 'labels/{id}.png'}


@pytest.fixture(scope='module')
def cache(tmp_path_factory) -> pathlib.Path:
  return tmp_path_factory.mktemp('scenes')


@pytest.fixture
def make(cache, tmp_path):
  """make(changes by path) -> a run of the tiny recipe in a folder that is not there yet."""

  def experiment(changes=None, module=tiny) -> Run:
    config = module.get_config()
    config.data.cache, config.data.root = str(cache), str(tmp_path)
    with config.unlocked(), config.ignore_type():
      config.update_from_flattened_dict(changes or {})
    return Run(config, tmp_path / 'run')

  return experiment


def refused(run: Run, *words: str) -> None:
  """One line with these words, and nothing written."""
  with pytest.raises(BadInput) as error:
    checks.check_recipe(run)
  line = str(error.value)
  assert '\n' not in line
  assert [word for word in words if word not in line] == [], line
  assert not run.workdir.exists()


@pytest.mark.parametrize('module', [tiny, tiny_hiast, tiny_semi], ids=lambda m: m.__name__)
def test_a_sound_recipe_passes(make, module, capfd):
  run = make(module=module)
  facts = checks.check_recipe(run)
  assert not run.workdir.exists()
  assert {f'stage {name}' for name in graph.stages_of(run)} <= facts.keys()
  said = capfd.readouterr()
  assert not said.out and 'Traceback' not in said.err


NAMES = {
  'a measured stage that is not made': (
    {'recipe': ('translator', 'warmup'), 'evaluation.stages': ('self_training_1',)},
    "'self_training_1' is not complete",
    'run it first',
  ),
  'a measured set without labels': (
    {'data.sets.camera_test': ConfigDict({**FOLDER, 'labels': ''})},
    'config.data.sets.camera_test.labels is empty',
  ),
  'another order': (
    {'recipe': ('translator', 'warmup', 'self_training_1', 'label_1')},
    "config.stages.self_training_1.labels is 'label_1', which is not complete",
    'run it first',
  ),
  'another set than was labelled': (
    {'stages.label_2.target': 'camera_test'},
    "self_training_2 learns from 'target', but 'label_2' labels 'camera_test', which lacks",
  ),
  'a pattern of the last optimizer': (
    {'stages.self_training_2.optimizer.head_pattern': '^finale'},
    'config.stages.self_training_2.optimizer',
    '^finale',
  ),
  'a list': (
    {'data.sets.camera_test': ConfigDict(FOLDER | {'list': 'nowhere.txt'})},
    'data.sets.camera_test',
    'nowhere.txt',
  ),
  'files of a measured set': (
    {'data.sets.camera_test': ConfigDict(FOLDER)},
    'data.sets.camera_test',
    'no image fits this pattern',
  ),
  'weights of the second round': (
    {'stages.label_2.start': '', 'stages.label_2.weights': 'none.pth'},
    'none.pth',
    'no such',
  ),
  'weights of the translator': ({'translator.vgg': 'vgg.pth'}, 'vgg.pth', 'no such'),
  'weights that are no weights': ({'model.weights': __file__}, pathlib.Path(__file__).name),
}


@pytest.mark.parametrize('case', NAMES)
def test_names_of_nothing_are_refused(make, case):
  changes, *words = NAMES[case]
  sets = {key: value for key, value in changes.items() if isinstance(value, ConfigDict)}
  run = make({key: value for key, value in changes.items() if key not in sets})
  for key, value in sets.items():
    run.config.data.sets[key.rpartition('.')[2]] = tiny.datasets.dataset(**value)
  refused(run, *words)


SPARE = {'criteria.set': 'spare', 'criteria.record': ('agreement',)}


@pytest.mark.parametrize(
  'first, other', [(101, 'camera_test'), (3, 'target'), (50, '')], ids=['test', 'target', 'apart']
)
def test_held_out_images_are_held_out(make, first, other):
  run = make()
  spare = tiny.datasets.dataset(**run.config.data.sets.camera_test.to_dict() | {'first': first})
  run.config.data.sets.spare = spare
  run.config.update_from_flattened_dict(SPARE)
  if other:
    shared = 2 if other == 'camera_test' else 1
    refused(run, f"config.criteria.set: {shared} images of 'spare' are in '{other}' too, the first")
  else:
    assert 'data.sets.spare' in checks.check_recipe(run)


def write_set(root: pathlib.Path, label: int = 0) -> None:
  """Three images with labels; the first one's holds one id alone."""
  random = np.random.default_rng(0)
  for index in range(3):
    image = random.integers(0, 256, (48, 96, 3), np.uint8)
    data_files.write(root, f'{index}', image, np.full((48, 96), label, np.uint8))


@pytest.mark.parametrize('broken', ['images', 'labels'])
def test_the_first_file_of_what_is_measured_is_read(make, tmp_path, broken):
  write_set(tmp_path)
  path = tmp_path / broken / '0.png'
  path.write_bytes(path.read_bytes()[:-30])
  run = make()
  run.config.data.sets.camera_test = tiny.datasets.dataset(**FOLDER)
  refused(run, f'{broken}/0.png')


def test_the_label_table_of_what_is_measured_is_tried(make, tmp_path):
  write_set(tmp_path, label=77)
  run = make()
  run.config.data.sets.camera_test = tiny.datasets.dataset(**FOLDER)
  refused(run, 'data.sets.camera_test', '77')


def test_a_bad_first_file_may_be_skipped_where_one_learns(make, tmp_path):
  write_set(tmp_path)
  (tmp_path / 'images' / '0.png').write_bytes(b'')
  run = make({'data.on_bad_file': 'skip'})
  run.config.data.sets.source = tiny.datasets.dataset(low_size=(40, 80), **FOLDER)
  assert checks.check_recipe(run)['data.sets.source'] == '3 images with labels'


def test_weights_of_another_network_are_refused(make, tmp_path):
  file = str(tmp_path / 'other.safetensors')
  weights.save(file, {'conv.weight': np.zeros((3, 3), np.float32)})
  start = {'stages.self_training_2.start': '', 'stages.self_training_2.weights': file}
  refused(make(start), file)
  refused(make({'translator.dec_s2t': file}), file)


def test_a_disk_that_holds_no_checkpoint_is_refused(make, monkeypatch):
  usage = collections.namedtuple('usage', 'total used free')
  monkeypatch.setattr(shutil, 'disk_usage', lambda place: usage(9, 0, 9))
  refused(make(), 'checkpoints take', '9 bytes are free')


def test_a_working_directory_that_is_a_file_is_refused(make, tmp_path):
  run = make()
  run.workdir = tmp_path / 'file' / 'run'
  (tmp_path / 'file').touch()
  refused(run, f'{tmp_path / "file"}: is not a folder')


# Folders that are there.


def write_stages(run: Run, *names: str) -> None:
  """Complete stages by their records alone."""
  for name in names:
    record = {'identity': graph.identity(run, name), 'versions': {}, 'result': {'step': 5}}
    stage_folder.write_record(run.workdir / name, record)


def test_stages_of_other_settings_are_refused_before_those_before_them(make):
  run = make()
  made = graph.stages_of(run)
  write_stages(run, *made)
  assert 'complete' in checks.check_recipe(run)['stage warmup']
  for name in ('warmup', 'label_1'):  # it will be made again, just as it was
    shutil.rmtree(run.workdir / name)
  assert 'to do' in checks.check_recipe(run)['stage warmup']
  for field in ('stages.self_training_2.steps', 'stages.warmup.steps'):
    changed = make({field: 7})
    with pytest.raises(BadInput, match='made with other settings') as error:
      checks.check_recipe(changed)
    assert 'delete' not in str(error.value)


def test_measurements_by_another_protocol_are_refused(make):
  run = make()
  write_stages(run, *graph.stages_of(run))
  place = graph.place_of(run, 'self_training_2', 'camera_test')
  found = graph.dependencies(run, 'self_training_2', 'camera_test')
  stage_folder.write_record(place, {'identity': found, 'versions': {}, 'result': {}})
  checks.check_recipe(run)
  with pytest.raises(BadInput, match=r'evaluation\.scales.*config\.evaluation\.name') as error:
    checks.check_recipe(make({'evaluation.scales': (1.0,)}))
  assert 'workdir' not in str(error.value).replace(str(run.workdir), '')
  checks.check_recipe(make({'evaluation.scales': (1.0,), 'evaluation.name': 'one'}))


# Commands.


@pytest.mark.parametrize('command', ['run', 'study --seeds 0 1', 'evaluate'])
def test_commands_check_first(cache, tmp_path, capsys, monkeypatch, command):
  monkeypatch.setattr(graph, 'run_stage', lambda *_: pytest.fail('it has begun'))
  options = [CONFIG, f'--workdir={tmp_path / "run"}', f'--config.data.cache={cache}']
  wrong = '--config.data.sets.camera_test.kind=folder'
  assert main([*command.split(), *options, wrong]) == 2
  assert 'config.data.sets.camera_test.labels is empty' in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  ('command', 'words'),
  [
    ('run', ('self_training_2', 'to do', 'not known', '3 images with labels', 'disk')),
    ('study --seeds 3 1', ('seeds', '1, 3', '0 of 2 complete', 'stage warmup')),
    ('train --stage=translator', ('translator', 'to do', '5 images with labels')),
  ],
)
def test_a_dry_run_says_what_it_checked_and_makes_nothing(cache, tmp_path, capsys, command, words):
  options = [CONFIG, f'--workdir={tmp_path / "run"}', f'--config.data.cache={cache}', '--dry_run']
  assert main([*command.split(), *options]) == 0
  said = capsys.readouterr().out
  assert [word for word in words if word not in said] == []
  assert not (tmp_path / 'run').exists()


def test_nothing_to_measure_is_refused(cache, tmp_path, capsys):
  options = [CONFIG, f'--workdir={tmp_path / "run"}', '--config.evaluation.sets=()']
  assert main(['evaluate', *options, "--config.recipe=('warmup',)"]) == 2
  assert 'nothing to measure' in capsys.readouterr().err
