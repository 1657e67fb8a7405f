"""Passports: found where people look for them, and damaged, foreign or old ones refused."""

import json
import shutil

import numpy as np
import pytest

from data_pipelines import records
from data_pipelines.errors import BadInput
from diga_jax.storage import passport, stage_folder

IDENTITY = {'scales': [1.0]}
CONTENT = {
  'kind': 'network',
  'name': 'warmup',
  'scores': {},
  'protocol': {},
  'made_from': {},
  'measurement': stage_folder.hash_of(IDENTITY),
}


@pytest.fixture
def workdir(tmp_path):
  """A working directory whose stage is measured once."""
  stage_folder.produce(tmp_path / 'warmup', {}, lambda place: {'step': 0})
  measure(tmp_path / 'evaluation' / 'published' / 'warmup' / 'test')
  return tmp_path


def measure(place, identity=IDENTITY) -> None:
  def build(folder):
    stage_folder.write_metrics(folder / 'metrics.json', {})
    np.savez(folder / 'images.npz', ids=np.array(['a']), intersection=[[1]], union=[[2]])

  stage_folder.produce(place, identity, build)
  passport.write(place, {**CONTENT, 'measurement': stage_folder.hash_of(identity)})


def test_it_is_found_by_stage_and_by_measurement(workdir):
  place = workdir / 'evaluation' / 'published' / 'warmup' / 'test'
  assert passport.find(workdir / 'warmup') == passport.find(place) == place / passport.NAME
  found = passport.read(place / passport.NAME)
  assert found == {'passport': 1, **CONTENT}
  counts = passport.counts(place / passport.NAME)
  assert counts is not None and counts['ids'].tolist() == ['a']


def test_a_copy_is_read_alone(workdir, tmp_path_factory):
  copied = tmp_path_factory.mktemp('mail') / 'theirs.json'
  shutil.copy(passport.find(workdir / 'warmup'), copied)
  assert passport.read(copied)['name'] == 'warmup'
  assert passport.counts(copied) is None


def test_a_folder_without_one_says_what_to_do(workdir):
  place = workdir / 'evaluation' / 'published' / 'warmup' / 'test'
  with pytest.raises(BadInput, match='this is a working directory: name one of its stages, warmup'):
    passport.find(workdir)
  with pytest.raises(BadInput, match='there is no such stage'):
    passport.find(workdir / 'nowhere')
  measure(place.parent / 'other', {'scales': [0.5]})
  with pytest.raises(BadInput, match=r'measured several times: name one of .*other, .*test'):
    passport.find(workdir / 'warmup')
  shutil.rmtree(place.parent / 'other')
  (place / passport.NAME).unlink()
  with pytest.raises(BadInput, match=r'has no passport\.json: run `evaluate` again'):
    passport.find(workdir / 'warmup')
  shutil.rmtree(workdir / 'evaluation')
  with pytest.raises(BadInput, match='the stage is not measured: run `evaluate`'):
    passport.find(workdir / 'warmup')


@pytest.mark.parametrize('damage', ['cut', 'edited', 'empty', 'bytes'])
def test_a_damaged_one_is_refused(workdir, damage):
  path = passport.find(workdir / 'warmup')
  text = path.read_bytes()
  changed = {'cut': text[:-9], 'edited': text.replace(b'warmup', b'warmap'), 'empty': b''}
  path.write_bytes(changed.get(damage, b'\xff\x00'))
  with pytest.raises(BadInput, match=r'passport.json: is damaged.*run `evaluate` again'):
    passport.read(path)


def test_another_version_and_another_record_are_refused(workdir):
  path = passport.find(workdir / 'warmup')
  records.write(path, {'passport': 2, **CONTENT})
  with pytest.raises(BadInput, match='is a passport of version 2, and this package reads 1'):
    passport.read(path)
  records.write(path, {'passport': 1, 'kind': 'network'})
  with pytest.raises(BadInput, match='it has no made_from'):
    passport.read(path)
  with pytest.raises(BadInput, match='the record of something else'):
    passport.read(path.parent / stage_folder.RECORD)


def test_one_of_another_measurement_is_refused(workdir):
  path = passport.find(workdir / 'warmup')
  measure(path.parents[1] / 'other', {'scales': [0.5]})
  shutil.copy(path.parents[1] / 'other' / passport.NAME, path)
  with pytest.raises(BadInput, match='is of another measurement than its folder'):
    passport.read(path)


def test_damaged_counts_are_refused(workdir):
  path = passport.find(workdir / 'warmup')
  counts = path.parent / 'images.npz'
  counts.write_bytes(counts.read_bytes()[:-1])
  with pytest.raises(BadInput, match=r'images.npz: is damaged'):
    passport.counts(path)


def test_keys_keep_their_order_and_the_file_is_small(workdir):
  path = passport.find(workdir / 'warmup')
  assert list(json.loads(path.read_text()))[:4] == ['passport', 'kind', 'name', 'scores']
