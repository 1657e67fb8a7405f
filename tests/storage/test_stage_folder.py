"""Stage folders: damaged files in them."""

import pathlib
import random

import pytest

from data_pipelines.errors import BadInput
from diga_jax.storage import stage_folder
from tests.support import damage

# Files that are read later.


def make(stage):
  """A complete folder with files of all kinds."""

  def build(partial):
    for name in ('labels/a/b.png', 'labels/c.png', 'index.npz', 'metrics.json', 'pictures/d.png'):
      (partial / name).parent.mkdir(parents=True, exist_ok=True)
      (partial / name).write_text(name)
    return {'images': 2}

  return stage_folder.produce(stage, {'seed': 0}, build)


def test_files_that_are_read_later_have_digests(tmp_path):
  make(tmp_path / 'stage')
  record = stage_folder.read_record(tmp_path / 'stage')
  assert sorted(record['files']) == ['index.npz', 'labels/a/b.png', 'labels/c.png', 'metrics.json']
  stage_folder.check_files(tmp_path / 'stage', 'labels/*')
  with pytest.raises(BadInput, match=r'centroids.npz: its stage made no such file'):
    stage_folder.check_files(tmp_path / 'stage', 'centroids.npz')


@pytest.mark.parametrize('name', ['labels/a/b.png', 'labels/c.png'])
def test_damaged_and_missing_files_are_named(tmp_path, name):
  make(tmp_path / 'stage')
  path = tmp_path / 'stage' / name
  damage.flip(path, random.Random(0))
  with pytest.raises(BadInput, match=f'{path}: is damaged'):
    stage_folder.check_files(tmp_path / 'stage', 'labels/*')
  path.unlink()
  with pytest.raises(BadInput, match=f'{path}: cannot be read'):
    stage_folder.check_files(tmp_path / 'stage', 'labels/*')
  stage_folder.check_files(tmp_path / 'stage', 'index.npz')


@pytest.mark.parametrize(
  ('name', 'stays'), [('checkpoints/5', True), ('networks/5', True), ('labels', False)]
)
def test_what_was_trained_stays_after_a_mistake(tmp_path, name, stays):
  def build(partial):
    (partial / name).mkdir(parents=True)
    raise BadInput('a mistake')

  with pytest.raises(BadInput, match='a mistake'):
    stage_folder.produce(tmp_path / 'stage', {'seed': 0}, build)
  assert (tmp_path / 'stage.partial' / name).exists() == stays


@pytest.mark.parametrize('text', ['[]', '{}', '{"identity": {}, "result": {}}', 'x'])
def test_a_damaged_record_is_one_line(tmp_path, text):
  make(tmp_path / 'stage')
  (tmp_path / 'stage' / 'stage.json').write_text(text)
  with pytest.raises(BadInput, match=r'stage.json: .*use another --workdir'):
    make(tmp_path / 'stage')


def test_a_partial_folder_that_was_renamed_is_not_complete(tmp_path):
  stage_folder.write_record(tmp_path / 'stage', {'identity': {'seed': 0}})
  with pytest.raises(BadInput, match=r'stage/stage.json: .* it has no result; restore it'):
    make(tmp_path / 'stage')


def told(directory: pathlib.Path) -> str:
  """What is said of a path that should be a stage; never to delete anything."""
  with pytest.raises(BadInput) as error:
    stage_folder.read_record(directory)
  line = str(error.value)
  assert line.startswith(str(directory)) and '\n' not in line
  assert 'delete' not in line and 'remove' not in line
  return line


def test_what_is_no_stage_is_told_what_it_is(tmp_path):
  work = tmp_path / 'run'
  for name in ('warmup', 'label_1', 'begun.partial'):
    stage_folder.write_record(work / name, {'identity': {}})
  assert f'no such stage; {work} has label_1, warmup' in told(work / 'self_training_1')
  assert 'a working directory: name one of its stages, label_1, warmup' in told(work)
  assert 'the stage is not complete: run it first' in told(work / 'begun')
  assert 'no such stage; name one in a working directory' in told(tmp_path / 'none' / 'warmup')
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine' / 'a.jpg').touch()
  assert 'not the folder of a stage' in told(tmp_path / 'mine')
  assert 'not the folder of a stage' in told(tmp_path / 'mine' / 'a.jpg')


def test_the_advice_on_other_settings_is_the_callers(tmp_path):
  stage_folder.write_record(tmp_path / 'a', {'identity': {'seed': 0}, 'result': None})
  for instead in ('use another --workdir', 'give another --output'):
    with pytest.raises(BadInput, match=f'0 there, 1 now: set them back, or {instead}') as error:
      stage_folder.produce(tmp_path / 'a', {'seed': 1}, lambda _: pytest.fail('made'), instead)
    assert 'delete' not in str(error.value)


def test_changed_files_of_a_data_set_are_said_to_be_changed(tmp_path):
  record = {'identity': {'images.target': 'ab12'}, 'result': None}
  stage_folder.write_record(tmp_path / 'a', record)
  with pytest.raises(BadInput, match=r'images\.target: files of this data set have changed since'):
    stage_folder.check_same(tmp_path / 'a', {'images.target': 'cd34'})
