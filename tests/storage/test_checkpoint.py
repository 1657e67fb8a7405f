"""Checkpoints: no damage is read, and a stage keeps its networks whenever it is killed."""

import os
import pathlib
import random
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.errors import BadInput
from diga_jax.storage import checkpoint
from tests.support import damage

STATE = {
  'params': {'layer': {'kernel': jnp.arange(600.0).reshape(20, 30)}},
  'batch_stats': {'layer': {'mean': jnp.ones(5)}},
  'teacher': {'layer': {'kernel': -jnp.arange(600.0).reshape(20, 30)}},
  'opt_state': {'momentum': jnp.ones((20, 30))},
  'centroids': (),
}


def save(stage: pathlib.Path, *steps: int) -> pathlib.Path:
  table = []
  with checkpoint.open_manager(stage / 'checkpoints', criteria=['oracle']) as manager:
    for step in steps:
      table.append({'step': step, 'oracle': -float(step)})
      checkpoint.save(manager, STATE, step, table)
    checkpoint.finish(manager)
  return stage / 'checkpoints'


@pytest.fixture(scope='module')
def saved(tmp_path_factory) -> pathlib.Path:
  """A stage with the checkpoints 1, the best, and 3 and 4."""
  stage = tmp_path_factory.mktemp('saved') / 'stage'
  assert {path.name for path in save(stage, 1, 2, 3, 4).iterdir()} == {'1', '3', '4'}
  return stage


@pytest.fixture
def stage(saved, tmp_path) -> pathlib.Path:
  return shutil.copytree(saved, tmp_path / 'stage')


def files_of(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(path for path in folder.rglob('*') if path.is_file())


def test_every_file_has_a_digest_that_sha256sum_reads(stage):
  folder = stage / 'checkpoints' / '4'
  lines = (folder / 'SHA256SUMS').read_text().splitlines()
  assert len(lines) == len(files_of(folder)) - 1 > 5
  if shutil.which('sha256sum'):
    command = ['sha256sum', '--check', '--quiet', '--strict', 'SHA256SUMS']
    subprocess.run(command, cwd=folder, check=True)


def test_a_flipped_bit_in_any_file_is_refused_by_name(stage):
  draw, place = random.Random(0), stage / 'checkpoints'
  for path in files_of(place / '4'):
    whole = path.read_bytes()
    for _ in range(3):
      damage.flip(path, draw)
      with pytest.raises(BadInput, match=r'checkpoints/4/.*(damaged|cannot be read|not written)'):
        checkpoint.read_arrays(place, 4)
      path.write_bytes(whole)
  assert checkpoint.read_arrays(place, 4)['params']['layer']['kernel'][1, 1] == 31


@pytest.mark.parametrize('kind', ['cut', 'empty', 'longer', 'missing', 'extra', 'all'])
def test_other_damage_is_refused_by_name(stage, kind):
  place = stage / 'checkpoints'
  path = max(files_of(place / '4'), key=lambda path: path.stat().st_size)
  data = path.read_bytes()
  match kind:
    case 'missing':
      path.unlink()
    case 'extra':
      path = path.with_name('more')
      path.write_bytes(data)
    case 'all':
      shutil.rmtree(place / '4')
      path = place / '4' / 'SHA256SUMS'
    case _:
      path.write_bytes({'cut': data[:-1], 'empty': b'', 'longer': data + b'\0'}[kind])
  with pytest.raises(BadInput, match=f'{path}: ') as refusal:
    checkpoint.read_arrays(place, 4)
  assert '\n' not in str(refusal.value)


def test_damaged_checkpoints_of_a_stage_in_training_are_set_aside(stage, caplog):
  place = stage / 'checkpoints'
  (place / '4' / 'SHA256SUMS').unlink()  # never used silently
  damage.flip(place / '1' / 'metrics' / 'metrics', random.Random(1))
  with checkpoint.open_manager(place, criteria=['oracle']) as manager:
    assert manager.all_steps() == [3] and checkpoint.restore(manager, STATE)
  assert 'Set aside as 4.damaged. Going on from step 3' in caplog.text
  assert {path.name for path in place.iterdir()} == {'1.damaged', '3', '4.damaged'}


def test_a_stage_whose_checkpoints_are_all_damaged_is_refused(stage):
  place = stage / 'checkpoints'
  for path in place.glob('*/SHA256SUMS'):
    path.write_text('')
  with pytest.raises(BadInput, match='4/SHA256SUMS: is damaged'), checkpoint.open_manager(place):
    pass
  assert {path.name for path in place.iterdir()} == {'1', '3', '4'}


def test_the_newest_checkpoint_holds_the_scores_of_all(stage):
  with checkpoint.open_manager(stage / 'checkpoints', criteria=['oracle']) as manager:
    table = checkpoint.read_table(manager)
    assert table == [{'step': step, 'oracle': -float(step)} for step in (1, 2, 3, 4)]
    checkpoint.save(manager, STATE, 5, table)  # a signal's, which is no candidate
    checkpoint.save(manager, STATE, 6, [*table, {'step': 6, 'oracle': -1.0}])
    checkpoint.finish(manager)
    assert checkpoint.read_table(manager)[-1] == {'step': 6, 'oracle': -1.0}
  assert checkpoint.steps_in(stage / 'checkpoints') == [5, 6]  # of equals the newest


def test_the_best_by_each_criterion_is_kept(tmp_path):
  scores = {1: (9, 0), 2: (0, 9), 3: (5, 5), 4: (4, 4), 5: (3, 3)}
  table = [{'step': step, 'agreement': a, 'density': b} for step, (a, b) in scores.items()]
  place = tmp_path / 'checkpoints'
  with checkpoint.open_manager(place, criteria=['agreement', 'density']) as manager:
    assert checkpoint.read_table(manager) == []
    for step in scores:
      checkpoint.save(manager, STATE, step, table[:step])
    checkpoint.finish(manager)
  assert checkpoint.steps_in(place) == [1, 2, 4, 5]


def test_checkpoints_of_an_earlier_version_are_not_chosen_among(tmp_path):
  with checkpoint.open_manager(tmp_path) as manager:
    checkpoint.save(manager, STATE, 1)
    checkpoint.finish(manager)
  with (
    checkpoint.open_manager(tmp_path, criteria=['oracle']) as manager,
    pytest.raises(BadInput, match=r'1: was saved by an earlier version .* without the scores'),
  ):
    checkpoint.read_table(manager)


LATE = """
import diga_jax.storage.checkpoint

class Late:
  def __init__(self, text): self.text = text
  def __del__(self): raise RuntimeError(self.text)

Late('Event loop is closed')
Late('something else')
"""


def test_calls_of_a_loop_that_has_ended_are_not_shown():
  """TensorStore makes them after a write has failed; other errors that nobody catches are shown."""
  done = subprocess.run([sys.executable, '-c', LATE], capture_output=True, text=True, check=True)
  assert 'Event loop' not in done.stderr and 'something else' in done.stderr


def test_a_path_too_long_is_refused_before_anything_is_written(tmp_path):
  place = tmp_path.joinpath(*(20 * [200 * 'a']))
  with pytest.raises(BadInput, match='too long for checkpoints'), checkpoint.open_manager(place):
    pass
  assert not list(tmp_path.iterdir())


# What a trained stage keeps.


def check_networks(stage: pathlib.Path) -> None:
  assert checkpoint.networks_kept(stage) == [3]
  assert {path.name for path in stage.iterdir()} == {'checkpoints'}
  assert {path.name for path in (stage / 'checkpoints').iterdir()} == {'3', 'NETWORKS_ONLY'}
  found = checkpoint.read_arrays(stage / 'checkpoints', 3)
  assert found.keys() == {'params', 'batch_stats', 'teacher'}
  for part in found:
    for name, value in found[part]['layer'].items():
      np.testing.assert_array_equal(value, STATE[part]['layer'][name])


def test_the_networks_of_the_step_to_use_are_kept(stage):
  (stage / 'checkpoints' / 'notes.txt').write_text('a file of the user')
  assert checkpoint.networks_kept(stage) == []
  checkpoint.keep_networks(stage, [3])
  check_networks(stage)


def test_the_networks_of_several_steps_are_kept(stage):
  checkpoint.keep_networks(stage, [4, 1, 4, 3])
  assert checkpoint.networks_kept(stage) == [1, 3, 4]
  for step in (1, 3, 4):
    assert 'opt_state' not in checkpoint.read_arrays(stage / 'checkpoints', step)


def test_a_damaged_one_of_several_is_refused_before_any_is_removed(stage):
  damage.flip(next((stage / 'checkpoints' / '1' / 'default' / 'd').iterdir()), random.Random(0))
  with pytest.raises(BadInput, match='checkpoints/1/'):
    checkpoint.keep_networks(stage, [4, 1])
  assert checkpoint.steps_in(stage / 'checkpoints') == [1, 3, 4]


# What a kill may come before.
MOMENTS = (
  'rmtree 1', 'write_arrays', 'rename whole', 'replace NETWORKS_ONLY', 'rmtree checkpoints',
  'rename networks',
)  # fmt: skip


class Killed(BaseException):
  pass


def test_damaged_networks_do_not_replace_sound_checkpoints(stage, monkeypatch):
  def kill(*arguments, **options):
    raise Killed

  with monkeypatch.context() as patch, pytest.raises(Killed):
    patch.setattr(checkpoint, 'networks_kept', kill)
    checkpoint.keep_networks(stage, [3])
  damage.flip(next((stage / 'networks' / '3' / 'default' / 'd').iterdir()), random.Random(0))
  assert checkpoint.networks_kept(stage) == []
  checkpoint.keep_networks(stage, [3])
  check_networks(stage)


@pytest.mark.parametrize('moment', MOMENTS)
def test_a_kill_while_networks_are_kept_loses_nothing(stage, monkeypatch, moment):
  name, _, which = moment.partition(' ')
  owners = {'rmtree': shutil, 'write_arrays': checkpoint, 'rename': pathlib.Path}
  owner = os if which in ('whole', 'NETWORKS_ONLY') else owners[name]
  original = getattr(owner, name)

  def kill(*arguments, **options):
    names = [pathlib.Path(argument).name for argument in arguments[:2] if which]
    if which in ('', 'whole', *names):
      raise Killed
    return original(*arguments, **options)

  with monkeypatch.context() as patch, pytest.raises((Killed, BadInput)):
    patch.setattr(owner, name, kill)
    checkpoint.keep_networks(stage, [3])
  if checkpoint.networks_kept(stage) == []:
    with checkpoint.open_manager(stage / 'checkpoints', criteria=['oracle']) as manager:
      assert manager.latest_step() == 4  # no step is repeated
    checkpoint.keep_networks(stage, [3])
  check_networks(stage)
