"""What a number and a stage depend on: nothing of it changes without a word."""

import os
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from data_pipelines import digests
from data_pipelines.errors import BadInput
from diga_jax.configs import datasets
from diga_jax.parallel import processes
from diga_jax.recipe import evaluation, graph
from diga_jax.recipe.experiment import Run
from diga_jax.storage import stage_folder
from tests.configs import tiny
from tests.support import data_files

IDENTITY = {'seed': 3}


def config_of(root: pathlib.Path, **changes):
  """tests/configs/tiny.py with a complete warm-up, measured on a folder of images."""
  config = tiny.get_config()
  config.data.root, config.data.cache = str(root), str(root / 'cache')
  config.data.sets.test = datasets.dataset(images='images/{id}.png', labels='labels/{id}.png')
  config.evaluation.stages, config.evaluation.sets = ('warmup',), ('test',)
  with config.ignore_type():
    config.update_from_flattened_dict(changes)
  return config


@pytest.fixture
def root(tmp_path, monkeypatch) -> pathlib.Path:
  """A measured working directory; what would be measured counts the calls."""
  data_files.numbered(tmp_path, 3)
  calls = []

  def count(run, name, key, directory):
    calls.append(name)
    row = {'kind': 'network', 'name': name, 'mean_iou': 0.25, 'confusion': [[1]], 'images': 3}
    return row | {'calls': len(calls), 'protocol': {'seed': 3, 'step': 0}}

  monkeypatch.setattr(evaluation, 'evaluate_network', count)
  monkeypatch.setattr(digests, 'SETTLED', 0)
  record = {'identity': IDENTITY, 'result': {'step': 0}}
  stage_folder.write_record(tmp_path / 'run/warmup', record)
  assert measured(tmp_path) == 1
  return tmp_path


def measured(root: pathlib.Path, **changes) -> int:
  (row,) = graph.evaluate(Run(config_of(root, **changes), root / 'run'))
  return row['calls']


def test_programs_matter_where_images_have_more_sizes(root):
  """The measurements of sets of few sizes are those of before, whatever the programs."""
  for programs in (0, 1, 5):
    assert measured(root, programs=programs) == 1
  data_files.write(root, '002', np.full((28, 32, 3), 2, np.uint8), np.zeros((28, 32), np.uint8))
  names = {0: 'own', 1: 'one', 2: 'two'}
  calls = [measured(root, programs=p, **{'evaluation.name': names[p]}) for p in names]
  assert calls == [2, 3, 4]
  assert measured(root, programs=2, **{'evaluation.name': 'own'}) == 2  # each size has its own
  with pytest.raises(BadInput, match=r'padding.*give the changed protocol'):
    measured(root, programs=1, **{'evaluation.name': 'own'})


def test_the_same_measurement_is_made_once(root):
  assert measured(root) == 1
  assert measured(root, **{'data.on_bad_file': 'skip', 'evaluation.name': 'published'}) == 1
  assert measured(root, **{'evaluation.name': 'other'}) == 2


@pytest.mark.parametrize(
  'changes',
  [
    {'data.sets.test.table': 'train_ids'},
    {'data.sets.test.table': tuple((i, 0) for i in range(256))},
    {'data.sets.test.evaluation_size': (12, 16)},
    {'data.sets.test.list': 'it.txt'},
    {'data.class_names': tuple(f'class {i}' for i in range(19))},
    {'data.names': 'synthia16'},
    {'evaluation.scales': (1.0,)},
    {'evaluation.class_means': 'hiast'},
    {'model.dtype': 'bfloat16'},
    {'model.precision': 'highest'},
  ],
  ids=lambda changes: next(iter(changes)),
)
def test_another_measurement_is_not_taken_for_it(root, changes):
  (root / 'it.txt').write_text('001\n000\n002\n')
  if changes.get('data.names'):
    changes = changes | {'data.names': 'camvid11', 'data.classes': 11}
  with pytest.raises(BadInput, match='was made with other settings'):
    measured(root, **changes)


@pytest.mark.parametrize('part', ['images', 'labels'])
@pytest.mark.parametrize('examined', [False, True])
def test_files_that_changed_in_place_are_seen(root, part, examined):
  path = root / part / '001.png'
  before = path.stat()
  data = bytearray(path.read_bytes())
  data[-5] ^= 1
  path.write_bytes(data)
  os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
  with pytest.raises(BadInput, match=r'was made with other settings: images.test: '):
    measured(root)


@pytest.mark.parametrize('same', [True, False])
def test_processes_with_disks_of_their_own_compare_what_is_on_them(root, monkeypatch, same):
  run = Run(config_of(root), root / 'run')
  alone = run.fingerprint('test')

  def exchange(own):  # the other process's files have other dates, and other content unless same
    if isinstance(own, str):
      return [own, 'seen at another time']
    return [own, own if same else own._replace(fingerprint='of other files')]

  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(processes, 'exchange', exchange)
  if same:
    assert run.fingerprint('test') == alone
  else:
    with pytest.raises(BadInput, match=r'data\.sets\.test: its files are others in process 1'):
      run.fingerprint('test')


def test_labels_are_hashed_whatever_is_remembered(root, monkeypatch):
  hashed, real = [], digests.of_file
  monkeypatch.setattr(digests, 'of_file', lambda path: hashed.append(path) or real(path))
  measured(root)
  assert sorted(pathlib.Path(path).name for path in hashed if '/labels/' in str(path)) == [
    '000.png', '001.png', '002.png'
  ]  # fmt: skip
  assert not [path for path in hashed if '/images/' in str(path)]


def test_measurements_have_passports_of_files_and_lists(root):
  run = Run(config_of(root), root / 'run')
  [found] = graph.passports_of([run])
  assert found['scores'] == {'mean_iou': 0.25, 'calls': 1}
  assert found['protocol']['images'] == 3 and found['made_from']['seed'] == 3
  path = graph.place_of(run, 'warmup', 'test') / 'passport.json'
  path.unlink()
  with pytest.raises(BadInput, match=r'passport\.json: cannot be read'):
    graph.passports_of([run])
  assert measured(root) == 1 and graph.passports_of([run]) == [found]
  (root / 'it.txt').write_text('001\n000\n002\n')
  changes = {'evaluation.name': 'b', 'data.sets.test.list': 'it.txt'}
  assert measured(root, **changes) == 2
  other = Run(config_of(root, **changes), run.workdir)
  [listed] = graph.passports_of([other])
  assert listed['protocol']['list_sha256'] != found['protocol']['list_sha256']
  assert listed['measurement'] != found['measurement']


def test_the_seed_of_a_number_is_that_of_the_training(root):
  run = Run(config_of(root, seed=7), root / 'run')
  assert evaluation.protocol(run, 'warmup', 'test')['seed'] == 3


def test_a_choice_by_the_oracle_depends_on_its_set(root):
  def identity(choice: str = 'oracle', **changes) -> dict:
    config = config_of(root, checkpoint_choice=choice, **changes)
    config.stages.warmup.method = 'source_only'
    return graph.identity(Run(config, root), 'warmup')

  first = identity()
  assert first == identity(**{'evaluation.pictures': 1, 'evaluation.batch_size': 2})
  for field, value in {
    'evaluation.scales': (1.0,),
    'evaluation.mean': '19',
    'data.sets.test.evaluation_size': (12, 16),
  }.items():
    assert identity(**{field: value}) != first
  label = np.array(Image.open(root / 'labels/001.png'))
  data_files.save(root / 'labels/001.png', Image.fromarray(label[::-1]))
  assert identity() != first
  assert not [key for key in identity('last') if 'oracle' in key]


def test_criteria_belong_to_what_a_stage_depends_on(root):
  sets = tiny.get_config().data.sets

  def identity(record=(), choice='last', stage='warmup', **changes) -> dict:
    config = config_of(root, checkpoint_choice=choice)
    config.stages.warmup.method = 'source_only'
    config.data.sets.held_out = datasets.dataset(**sets.camera_test.to_dict() | {'first': 500})
    config.criteria.record, config.criteria.set = record, 'held_out'
    with config.ignore_type():
      config.update_from_flattened_dict(changes)
    return graph.identity(Run(config, root), stage, lambda name: name)

  plain, both = identity(), identity(('density', 'agreement'))
  assert not [key for key in plain if 'criteria' in key or 'held_out' in key]
  assert both['criteria.record'] == ['agreement', 'density'] and 'images.held_out' in both
  assert identity(('agreement', 'density')) == both  # whatever their order
  assert identity(('agreement', 'density'), **{'data.sets.held_out.first': 501}) != both
  assert identity(('agreement', 'density'), save_every=7) != both
  alone = identity(choice='agreement')
  assert alone['checkpoint_choice'] == ['agreement', 2] and 'images.held_out' in alone
  truth = identity(('oracle',))
  assert 'oracle.scales' in truth and 'images.held_out' not in truth
  assert identity(('agreement',), stage='label_1') == identity(stage='label_1')


def test_stages_are_not_written_among_images(root):
  config = config_of(root, **{'data.sets.test.images': '{id}.png', 'data.sets.test.labels': ''})
  with pytest.raises(BadInput, match=r'data.sets.test.images: .* also means the pictures'):
    Run(config, root / 'run').images('test', labelled=False)
