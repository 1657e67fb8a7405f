"""What a run has before it: how far stages are, and times that were measured, never invented."""

import pytest

from diga_jax.parallel import devices
from diga_jax.recipe import disk_space, forecast, graph
from diga_jax.recipe.experiment import Run
from diga_jax.report import tables
from diga_jax.storage import run_record
from tests.configs import tiny


@pytest.fixture(scope='module')
def cache(tmp_path_factory) -> str:
  return str(tmp_path_factory.mktemp('scenes'))


@pytest.fixture
def make(cache, tmp_path):
  """make(changes by path) -> a run of the tiny recipe."""

  def experiment(changes=None) -> Run:
    config = tiny.get_config()
    config.data.cache = cache
    with config.unlocked(), config.ignore_type():
      config.update_from_flattened_dict(changes or {})
    return Run(config, tmp_path / 'run')

  return experiment


def timed(run: Run, **paces: tuple[float, int]) -> None:
  """A start that took so many seconds for so many steps or images of stages."""
  run.workdir.mkdir(exist_ok=True)
  with run_record.recorded(run.workdir, run.config.to_dict()):
    for name, (seconds, count) in paces.items():
      run_record.note_pace(run.workdir, name.replace('__', '/'), seconds, count)


def rows(run: Run) -> dict[str, forecast.Row]:
  return {row.name: row for row in forecast.forecast(run, graph.stages_of(run))}


def seconds(run: Run) -> dict[str, float | None]:
  return {name: row.seconds for name, row in rows(run).items()}


def test_nothing_is_invented(make):
  found = rows(make())
  assert {row.seconds for row in found.values()} == {None}
  assert [found['warmup'].count, found['label_1'].count] == [5, 4]
  assert (found['evaluation'].count, found['label quality'].count) == (9, 8)
  assert {row.state for row in found.values()} == {'to do'}
  text = forecast.sum_of_times(list(found.values()))
  assert 'not known' in text and not any(sign.isdigit() for sign in text)


def test_a_stage_of_the_same_kind_tells_the_time(make):
  changes = {'stages.self_training_2.steps': 100, 'stages.self_training_2.rank': 2}
  timed(make(), self_training_1=(2.0, 4), evaluation__published__warmup__camera_test=(6.0, 3))
  found = seconds(make(changes))
  assert (found['self_training_1'], found['self_training_2']) == (2.5, 50.0)
  assert found['evaluation'] == 18.0
  assert {found[name] for name in ('warmup', 'label_1', 'label quality')} == {None}


@pytest.mark.parametrize(
  'changes',
  [
    {'stages.self_training_2.batch.full_rows': 3},
    {'stages.self_training_2.mixing': 'none'},
    {'data.crop': (64, 96)},
    {'model.dtype': 'bfloat16'},
    {'devices': 2},
  ],
  ids=str,
)
def test_other_work_does_not(make, changes):
  timed(make(), self_training_1=(2.0, 4))
  assert seconds(make())['self_training_2'] == 2.5
  assert seconds(make(changes))['self_training_2'] is None


def test_nor_other_devices(make, monkeypatch):
  timed(make(), warmup=(2.0, 4))
  assert seconds(make())['warmup'] == 2.5
  monkeypatch.setattr(devices, 'cores', lambda: 999)
  assert seconds(make())['warmup'] is None


def test_the_last_measurement_counts(make):
  timed(make(), warmup=(2.0, 4))
  timed(make(), warmup=(0.0, 0))  # of a start that got no further than the first step
  assert seconds(make())['warmup'] == 2.5
  timed(make(), warmup=(4.0, 4))
  assert seconds(make())['warmup'] == 5.0


@pytest.mark.parametrize('damage', ['{', '{"starts": []}', ''])
def test_a_damaged_record_tells_no_time_and_stays(make, damage):
  run = make()
  timed(run, warmup=(2.0, 4))
  (run.workdir / 'run.json').write_text(damage)
  assert seconds(run)['warmup'] is None
  assert [path.name for path in run.workdir.glob('run.json*')] == ['run.json']


@pytest.mark.parametrize('config', [None, {}, {'stages': {}, 'data': {'crop': 1}}])
def test_nor_does_a_start_of_another_version(make, config):
  run = make()
  run.workdir.mkdir()
  with run_record.recorded(run.workdir, config):
    run_record.note_pace(run.workdir, 'warmup', 2.0, 4)
  assert seconds(run)['warmup'] is None


def test_a_stage_that_was_begun_is_timed_from_there(make):
  run = make({'stages.warmup.steps': 12})
  timed(run, warmup=(2.0, 4))
  (run.workdir / 'warmup.partial/checkpoints/2').mkdir(parents=True)
  found = rows(run)['warmup']
  assert (found.state, found.seconds) == ('at 2', 5.0)


def test_the_table_fits_a_terminal(make):
  timed(make(), self_training_1=(2.0, 4))
  parts = forecast.describe(list(rows(make()).values()), reads=True)
  for width in (80, 120):
    lines = tables.render_to_fit(parts, width).splitlines()
    assert max(map(len, lines)) <= width
    assert sum(line.startswith('self_training_2') for line in lines) == 2  # and what it reads
  text = tables.render_to_fit(parts, 200)
  assert '5 steps   to do     0:00:02' in text and 'time left: about 0:00:05' in text
  assert 'translator, warmup, label_1, label_2' in text.splitlines()[-1]
  assert 'reads' not in tables.render_to_fit(forecast.describe(list(rows(make()).values())), 200)


def test_durations_are_of_hours():
  assert [forecast.clock(x) for x in (None, 0.4, 59.6, 3600 * 30)] == [
    'not known', '0:00:00', '0:01:00', '1 day, 6:00:00',
  ]  # fmt: skip


# Disk.


def test_room_follows_what_is_kept(make):
  few = make({'save_every': 5})  # one checkpoint
  whole, kept = disk_space.to_train(few, 'warmup'), disk_space.to_keep(few, 'warmup')
  assert kept is not None and 0 < kept < whole
  assert disk_space.to_train(make({'save_every': 1}), 'warmup') == 2 * whole
  assert disk_space.to_keep(make({'keep_checkpoints': 'all', 'save_every': 5}), 'warmup') == whole
  held_out = {'criteria.set': 'camera_test', 'evaluation.sets': ()}
  recorded = make({'criteria.record': ('agreement', 'density'), **held_out})
  assert disk_space.to_keep(recorded, 'warmup') == 3 * kept
  assert disk_space.to_keep(few, 'label_1') is None and disk_space.to_train(few, 'label_1') == 0
  in_the_end, besides = disk_space.needed(few, ['warmup', 'label_1', 'self_training_1'])
  assert in_the_end == kept + disk_space.to_keep(few, 'self_training_1') and besides >= whole
  everything = make({'keep_checkpoints': 'all', 'save_every': 5})
  assert disk_space.needed(everything, ['warmup']) == (whole, 0)
