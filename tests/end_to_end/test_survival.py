"""What a run survives: signals, damaged checkpoints, full disks, a second run, NaN."""

import contextlib
import functools
import multiprocessing
import os
import pathlib
import random
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from data_pipelines.errors import BadInput
from diga_jax import signals, train
from diga_jax.__main__ import main
from diga_jax.parallel.mesh import make_mesh, replicate
from diga_jax.stages import warmup
from diga_jax.state import create
from diga_jax.storage import checkpoint, stage_folder
from diga_jax.tracking import writers
from diga_jax.tracking.tracked import Tracked
from tests.end_to_end.test_recipe import final_state

ROOT = pathlib.Path(__file__).parents[2]
STEPS = 16


def arguments(command: str, workdir: pathlib.Path, cache: pathlib.Path, *more: str) -> list[str]:
  """A command of the tiny recipe with longer stages."""
  trained = ('warmup', 'self_training_1', 'self_training_2')
  return [
    command,
    '--config=tests/configs/tiny.py',
    f'--workdir={workdir}',
    f'--config.data.cache={cache}',
    *(f'--config.stages.{stage}.steps={STEPS}' for stage in trained),
    '--config.translator.kind=fourier',
    *more,
  ]


def short(workdir: pathlib.Path, cache: pathlib.Path, *more: str) -> list[str]:
  """The shortest training there is: one stage, on the source alone; all checkpoints are kept."""
  return arguments(
    'train',
    workdir,
    cache,
    '--stage=warmup',
    '--config.stages.warmup.method=source_only',
    '--config.stages.warmup.target_statistics=False',
    '--config.keep_checkpoints=all',
    *more,
  )


def start(command: list[str], log: pathlib.Path, **options) -> subprocess.Popen:
  # As many devices as these tests have: they share the cores, and that shows in the last bit.
  devices = str(jax.device_count())
  environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': devices}
  with log.open('a') as file:
    return subprocess.Popen(
      [sys.executable, '-m', 'diga_jax', *command],
      cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, **options
    )  # fmt: skip


def wait_for(runs: 'callable', seen: 'callable', timeout: float = 300) -> bool:
  """Whether `seen()` became true while the process ran, as `runs()` says."""
  until = time.monotonic() + timeout
  while runs() and time.monotonic() < until:
    if seen():
      return True
    time.sleep(0.002)
  assert time.monotonic() < until, 'the run hangs'
  return False


@pytest.fixture(scope='module')
def cache(tmp_path_factory) -> pathlib.Path:
  return tmp_path_factory.mktemp('scenes')


@pytest.fixture(scope='module')
def trained(tmp_path_factory, cache) -> pathlib.Path:
  """The working directory of the short training, complete."""
  workdir = tmp_path_factory.mktemp('trained')
  assert main(short(workdir, cache)) == 0
  return workdir


# Signals.


def in_training(stage: str) -> list[str]:
  """Three kills while a stage trains, which writes six checkpoints, and one when it has."""
  return [*(3 * [f'{stage}.partial/checkpoints/*']), f'{stage}.partial/networks/*']


# Where a run is killed, in the recipe's order: when files that fit have newly appeared. Checkpoints
# appear twice, under a temporary name while they are written and under their own.
MOMENTS = (
  *in_training('warmup'),
  'warmup/stage.json',  # just renamed
  'label_1.partial/labels/*.png',
  'label_1/stage.json',
  *in_training('self_training_1'),
  'self_training_1/stage.json',
  'label_2.partial/labels/*.png',
  'label_2/stage.json',
  *in_training('self_training_2'),
  'evaluation/published/warmup/camera_test.partial/pictures/*.png',
  'evaluation/published/self_training_1/camera_test/metrics.json',
)
FEW = (MOMENTS[1], *MOMENTS[3:6], MOMENTS[-2])


def carry_out(command: list[str], log: pathlib.Path) -> None:
  """A command as the whole of a process, its output going to a file."""
  file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
  os.dup2(file, 1)
  os.dup2(file, 2)
  sys.exit(main(command))


@pytest.fixture
def begin(monkeypatch):
  """begin(command, log) -> a process of its own; imports, half of a start, are made once."""
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  monkeypatch.setenv('JAX_NUM_CPU_DEVICES', str(jax.device_count()))
  context = multiprocessing.get_context('forkserver')
  context.set_forkserver_preload(['diga_jax.recipe.graph', 'tensorflow', 'clu.metric_writers'])

  def start(command: list[str], log: pathlib.Path) -> multiprocessing.Process:
    process = context.Process(target=carry_out, args=(command, log))
    process.start()
    return process

  return start


def ended(process: multiprocessing.Process, timeout: float = 900) -> int:
  process.join(timeout)
  return process.exitcode


@pytest.mark.parametrize(
  'moments',
  [
    pytest.param(FEW, marks=pytest.mark.slow, id='five'),
    pytest.param(MOMENTS, marks=pytest.mark.exhaustive, id='twenty'),
  ],
)
def test_kills_change_nothing(moments, tmp_path, cache, begin):
  calm, harried, log = tmp_path / 'calm', tmp_path / 'harried', tmp_path / 'log'
  # Centroids of its own: else the second label pass is over before it can be killed.
  own = '--config.stages.label_2.centroids_from=target'
  assert ended(begin(arguments('run', calm, cache, own), log)) == 0, log.read_text()
  draw, command = random.Random(0), arguments('run', harried, cache, own)
  for pattern in moments:
    known = set(harried.glob(pattern))
    count = draw.randint(1, 2) if 'checkpoints' in pattern else 1
    process = begin(command, log)
    # A checkpoint's two names may be seen as one or as two.
    if wait_for(
      process.is_alive, lambda p=pattern, k=known, n=count: len(set(harried.glob(p)) - k) >= n
    ):
      time.sleep(draw.uniform(0, 0.1))
      process.kill()
    assert ended(process) == -signal.SIGKILL, f'not killed at {pattern}: {log.read_text()}'
  assert ended(begin(command, log)) == 0, log.read_text()
  check_same(harried, calm)


def check_same(found: pathlib.Path, wanted: pathlib.Path) -> None:
  """Parameters, pseudo-labels, centroids and metrics of two runs are equal to the bit."""
  for stage in wanted.glob('*/checkpoints'):
    state, other = final_state(stage.parent), final_state(found / stage.parent.name)
    assert state.keys() == other.keys()
    for key, value in state.items():
      np.testing.assert_array_equal(other[key], value, err_msg=f'{stage} {key}')
  results = [
    path
    for pattern in ('label_*/labels/*.png', 'evaluation/**/metrics.json', 'evaluation/**/*.png')
    for path in wanted.glob(pattern)
  ]
  assert len(results) > 20
  for path in results:
    assert (found / path.relative_to(wanted)).read_bytes() == path.read_bytes(), path
  for path in wanted.glob('label_*/centroids.npz'):
    with np.load(path) as one, np.load(found / path.relative_to(wanted)) as two:
      assert all((one[key] == two[key]).all() for key in one)
  assert not list(found.rglob('*.partial')) and not list(found.rglob('*.tmp'))


@pytest.mark.slow
def test_sigterm_saves_and_ends_with_a_status_of_its_own(tmp_path, cache, trained):
  log, workdir = tmp_path / 'log', tmp_path / 'run'
  command, checkpoints = short(workdir, cache), workdir / 'warmup.partial' / 'checkpoints'
  process = start(command, log)
  begun = wait_for(lambda: process.poll() is None, lambda: list(checkpoints.glob('*')))
  assert begun, log.read_text()
  process.send_signal(signal.SIGTERM)
  assert process.wait(300) == 75, log.read_text()
  said = re.search(r'stopped by SIGTERM after step (\d+), which is saved', log.read_text())
  assert (checkpoints / said[1]).is_dir() and 0 < int(said[1]) < STEPS
  assert start(command, log).wait(300) == 0, log.read_text()
  wanted = final_state(trained / 'warmup')
  for key, value in final_state(workdir / 'warmup').items():
    np.testing.assert_array_equal(value, wanted[key], err_msg=key)


@pytest.fixture
def heard():
  """Signals are heard as in a process of its own, but for the thread that ends it."""
  before = {number: signal.getsignal(number) for number in signals.STATUS}
  signals.handle()
  yield
  signals._state.__init__()
  for number, handler in before.items():
    signal.signal(number, handler)


def interrupt(*_: object, **__: object) -> None:
  os.kill(os.getpid(), signal.SIGTERM)


def options_of(directory: pathlib.Path, **more) -> train.Options:
  """Of four steps that are saved at the end alone."""
  options = {'name': 'stage', 'steps': 4, 'save_every': 100, 'log_every': 100, **more}
  return train.Options(
    directory=directory, mesh=make_mesh(1), parallel='jit', learning_rate=lambda step: 0.0,
    **options,
  )  # fmt: skip


def train_four_steps(directory: pathlib.Path, before_step: 'callable', **more) -> int:
  """Four steps of one number; `before_step(step)` is called when its batch is made."""

  def step_fn(state, batch, frozen):
    return state.replace(step=state.step + 1), {'loss': batch['x'].sum() * state.params['x']}

  def batches(start):
    for step in range(start, 5):
      before_step(step + 1)
      yield {'x': np.ones((1, 1), np.float32)}

  options = options_of(directory, **more)
  state = create(jax.random.key(0), {'x': jnp.float32(1)}, optax.sgd(0.1))
  return train.train(step_fn, replicate(state, options.mesh), None, batches, options)


@pytest.mark.parametrize('step', [2, 3, 4])
def test_a_signal_in_a_step_stops_after_it(tmp_path, heard, step):
  with pytest.raises(signals.Stopped, match=f'stage: stopped by SIGTERM after step {step}, which'):
    train_four_steps(tmp_path, lambda number: number == step and interrupt())
  assert (tmp_path / 'checkpoints' / str(step)).is_dir()
  signals._state.__init__()
  assert train_four_steps(tmp_path, lambda number: None) == [{'step': 4}]


@pytest.mark.parametrize('moment', ['save', 'finish'])
def test_a_signal_in_the_last_save_is_not_lost(tmp_path, heard, monkeypatch, moment):
  original = getattr(checkpoint, moment)
  monkeypatch.setattr(checkpoint, moment, lambda *args: (interrupt(), original(*args)))
  with pytest.raises(signals.Stopped, match='after step 4, which is saved'):
    train_four_steps(tmp_path, lambda number: None)
  assert (tmp_path / 'checkpoints' / '4').is_dir()


def test_a_signal_before_the_first_step_ends_at_once(tmp_path, heard):
  with pytest.raises(signals.Stopped, match='SIGTERM: the same command goes on'):
    train_four_steps(tmp_path, lambda number: interrupt())


def test_evaluations_come_after_every_few_steps_and_the_last(tmp_path):
  def evaluate(state, step, writer):
    assert int(state.step) == step
    seen.append(step)
    return []

  seen: list[int] = []
  train_four_steps(tmp_path, lambda number: None, evaluate_every=3, evaluate=evaluate)
  assert seen == [3, 4]
  train_four_steps(tmp_path, lambda number: None, evaluate_every=3, evaluate=evaluate)
  assert seen == [3, 4, 4]  # it is asked again where a process may have been killed


def test_a_kill_in_an_evaluation_comes_back_to_it(tmp_path):
  def evaluate(state, step, writer):
    seen.append(step)
    if len(seen) == 1:
      raise KeyboardInterrupt
    return []

  seen: list[int] = []
  more = {'evaluate_every': 2, 'evaluate': evaluate, 'save_every': 2}
  with pytest.raises(KeyboardInterrupt):
    train_four_steps(tmp_path, lambda number: None, **more)
  assert train_four_steps(tmp_path, lambda number: None, **more) == [{'step': 4}]
  assert seen == [2, 2, 4]


@pytest.mark.parametrize('saved', [True, False])
def test_a_signal_in_an_evaluation_waits_for_it_only_if_something_is_to_be_saved(
  tmp_path, heard, saved
):
  def evaluate(state, step, writer):
    if step == 2:
      interrupt()
      ended.append(step)
    return []

  ended: list[int] = []
  more = {'evaluate_every': 2, 'evaluate': evaluate, 'save_every': 2 if saved else 100}
  with pytest.raises(signals.Stopped):
    train_four_steps(tmp_path, lambda number: None, **more)
  assert ended == ([] if saved else [2])
  assert checkpoint.steps_in(tmp_path / 'checkpoints') == [2 if saved else 3]


def test_a_signal_in_a_read_is_no_damage(tmp_path, heard, monkeypatch):
  checkpoint.write_arrays(tmp_path, 1, {'x': jnp.zeros(3)})
  monkeypatch.setattr(ocp.CheckpointManager, 'restore', interrupt)
  with pytest.raises(signals.Stopped):
    checkpoint.read_arrays(tmp_path, 1)


# A second run.


@pytest.mark.slow
def test_a_second_run_in_one_folder_is_refused(tmp_path, cache, capsys):
  with stage_folder.lock(tmp_path / 'run'):
    assert main(short(tmp_path / 'run', cache)) == 2
  assert 'another run is at work there' in capsys.readouterr().err
  assert not (tmp_path / 'run' / 'warmup.partial').exists()


def test_a_lock_goes_with_its_holder(tmp_path):
  refused = pytest.raises(BadInput, match=str(tmp_path))
  with stage_folder.lock(tmp_path), refused, stage_folder.lock(tmp_path):
    pass
  with stage_folder.lock(tmp_path):
    (tmp_path / 'made').touch()
  assert (tmp_path / 'made').exists()


def test_a_folder_in_which_nothing_was_made_goes_with_the_lock(tmp_path):
  with stage_folder.lock(tmp_path / 'run'):
    pass
  assert not (tmp_path / 'run').exists()


def test_files_that_a_kill_left_half_written_go(tmp_path):
  partial = tmp_path / 'stage.partial'
  (partial / 'labels').mkdir(parents=True)
  stage_folder.write_record(partial, {'identity': {}})
  (partial / 'labels' / '.a.png.1234.tmp').write_text('half')
  (partial / 'labels' / 'b.png').write_text('whole')
  stage_folder.produce(tmp_path / 'stage', {}, lambda directory: 1)
  found = [path.name for path in (tmp_path / 'stage').rglob('*') if path.is_file()]
  assert sorted(found) == ['b.png', 'stage.json']


def test_a_result_reads_as_it_was_made(tmp_path):
  made = {'iou': {'sky': 0.5, 'building': 0.25}}
  first, again = (
    stage_folder.produce(tmp_path / 'a', {}, lambda directory: made) for _ in range(2)
  )
  assert str(first) == str(again)  # the classes' order too: tables are made of it


# Damaged files, no space.


def half_done(trained: pathlib.Path, workdir: pathlib.Path) -> pathlib.Path:
  """A copy of the short training as if it had been killed before its end; its checkpoints."""
  shutil.copytree(trained / 'warmup', workdir / 'warmup.partial')
  record = stage_folder.read_record(workdir / 'warmup.partial')
  stage_folder.write_record(workdir / 'warmup.partial', {'identity': record['identity']})
  return workdir / 'warmup.partial' / 'checkpoints'


def largest_file(folder: pathlib.Path) -> pathlib.Path:
  return max((p for p in folder.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)


def cut(folder: pathlib.Path) -> None:
  path = largest_file(folder)
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.slow
@pytest.mark.parametrize('damage', [cut, lambda folder: largest_file(folder).unlink()])
def test_a_damaged_checkpoint_falls_back(trained, tmp_path, cache, caplog, damage):
  checkpoints = half_done(trained, tmp_path)
  newest, before = sorted((int(p.name) for p in checkpoints.glob('[0-9]*')), reverse=True)[:2]
  damage(checkpoints / str(newest))
  assert main(short(tmp_path, cache)) == 0
  assert f'Going on from step {before}' in caplog.text
  assert f'Set aside as {newest}.damaged' in caplog.text
  found, wanted = final_state(tmp_path / 'warmup'), final_state(trained / 'warmup')
  for key, value in wanted.items():
    np.testing.assert_array_equal(found[key], value, err_msg=key)


@pytest.mark.slow
def test_all_checkpoints_damaged_is_refused(trained, tmp_path, cache, capsys):
  for place in half_done(trained, tmp_path).glob('[0-9]*'):
    cut(place)
  assert main(short(tmp_path, cache)) == 2
  error = capsys.readouterr().err.strip().splitlines()[-1]
  assert 'is damaged' in error and 'restore it from a copy' in error
  assert (tmp_path / 'warmup.partial').exists()


def save_some(directory: pathlib.Path, limit: int, first: bool = True) -> None:
  """Saves a small state, and a big one under a limit on the size of files."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  with checkpoint.open_manager(directory) as manager:
    if first:
      checkpoint.save(manager, {'x': jnp.zeros(10)}, 1)
      checkpoint.finish(manager)
    try:
      resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
      noise = np.random.default_rng(0).normal(size=1_000_000)
      checkpoint.save(manager, {'x': jnp.asarray(noise)}, 2)
      checkpoint.finish(manager)
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, before)
      signal.signal(signal.SIGXFSZ, ignored)


def test_no_space_for_a_checkpoint_keeps_the_one_before(tmp_path):
  with pytest.raises(BadInput, match=r'cannot be written .* goes on from step 1'):
    save_some(tmp_path / 'checkpoints', limit=100_000)
  with ocp.CheckpointManager(tmp_path / 'checkpoints') as manager:
    assert manager.all_steps() == [1]
    found = manager.restore(1, args=ocp.args.StandardRestore())
  assert (found['x'] == np.zeros(10)).all()


@pytest.mark.slow
def test_a_file_that_cannot_grow_is_one_line(tmp_path, cache, trained):
  """Many parts of one checkpoint fail at once, in threads that Python does not know."""
  command = [sys.executable, '-m', 'diga_jax', *short(tmp_path / 'run', cache)]
  limited = ['sh', '-c', 'ulimit -f 40; exec "$@"', 'sh', *command]  # in blocks of 512 bytes
  done = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, check=False)
  assert done.returncode == 2, done.stderr
  assert 'Traceback' not in done.stderr and 'a checkpoint cannot be written' in done.stderr


def test_no_space_for_the_first_checkpoint_names_no_step(tmp_path):
  with pytest.raises(BadInput, match='cannot be written') as refusal:
    save_some(tmp_path / 'checkpoints', limit=1000, first=False)
  assert 'step' not in str(refusal.value)


OWN_MOUNTS = ('unshare', '--user', '--map-root-user', '--mount')  # as root of nothing else
ON_A_SMALL_DISK = """
mount -t tmpfs -o size={size} none {disk} || exit 99
{command}
echo ended with $?
ls {disk}/run/warmup.partial/checkpoints
mount -o remount,size=64m {disk}
{command}
echo ended with $?
cp -r {disk}/run/warmup {result}
"""


@pytest.mark.slow
def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, cache, trained):
  if subprocess.run([*OWN_MOUNTS, 'true'], capture_output=True).returncode:
    pytest.skip('this system lets nobody mount a small disk for a test')
  disk, result, log = tmp_path / 'disk', tmp_path / 'result', tmp_path / 'log'
  disk.mkdir()
  files = (trained / 'warmup').rglob('*')
  written = sum(file.stat().st_size for file in files)  # two checkpoints, and the curves
  command = shlex.join([sys.executable, '-m', 'diga_jax', *short(disk / 'run', cache)])
  script = ON_A_SMALL_DISK.format(
    size=int(0.75 * written), disk=disk, command=command, result=result
  )
  environment = os.environ | {'JAX_NUM_CPU_DEVICES': str(jax.device_count())}
  with log.open('w') as file:
    subprocess.run(
      [*OWN_MOUNTS, 'sh', '-c', script],
      cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, timeout=600, check=True
    )  # fmt: skip
  said = log.read_text()
  assert 'ended with 2\n2\n' in said and said.rstrip().endswith('ended with 0'), said
  assert 'Traceback' not in said and 'free space and run again: it goes on from step 2' in said
  wanted = final_state(trained / 'warmup')
  for key, value in final_state(result).items():
    np.testing.assert_array_equal(value, wanted[key], err_msg=key)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, cache, capsys):
  (tmp_path / 'file').write_text('')
  assert main(short(tmp_path / 'file' / 'run', cache)) == 2
  lines = capsys.readouterr().err.strip().splitlines()
  assert str(tmp_path / 'file') in lines[-1] and lines[-1].startswith('diga_jax: ')


# Numbers that are none.


@pytest.mark.slow
@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_loss_that_is_no_number_stops_the_run(tmp_path, cache, capsys, monkeypatch, value):
  original = warmup.train_step

  def train_step(state, *args, **options):
    state, metrics = original(state, *args, **options)
    wrong = jnp.where(state.step == 7, value, metrics['cross_entropy'])
    return state, metrics | {'cross_entropy': wrong}

  use_step(monkeypatch, train_step)
  assert main(short(tmp_path, cache)) == 2
  error = capsys.readouterr().err.strip().splitlines()[-1]
  assert f'warmup: cross_entropy is {value} at step 7' in error
  kept = (tmp_path / 'warmup.partial' / 'checkpoints').glob('[0-9]*')
  assert sorted(int(path.name) for path in kept) == [4, 6]


def use_step(monkeypatch, train_step) -> None:
  """Gives the warm-up another step."""
  from diga_jax.stages import kinds

  kind = kinds.KINDS['warmup']._replace(train_step=train_step)
  monkeypatch.setitem(kinds.KINDS, 'warmup', kind)


@pytest.mark.slow
@pytest.mark.parametrize(
  'part, what',
  [('batch_stats', 'largest/batch_stats is nan'), ('teacher', 'largest/teacher is inf')],
)
def test_a_state_that_is_not_finite_is_not_saved(part, what, tmp_path, cache, capsys, monkeypatch):
  original = warmup.train_step

  def train_step(state, *args, **options):
    state, metrics = original(state, *args, **options)
    bad = jnp.where(state.step >= 6, float(what.split()[-1]), 0)
    tree = {**getattr(state, part)}
    first = next(iter(tree))
    tree[first] = jax.tree.map(lambda x: x + bad, tree[first])
    return state.replace(**{part: tree}), metrics | {'loss': jnp.float32(1)}

  use_step(monkeypatch, train_step)
  assert main(short(tmp_path, cache)) == 2
  assert f'{what} at step 6' in capsys.readouterr().err
  kept = (tmp_path / 'warmup.partial' / 'checkpoints').glob('[0-9]*')
  assert sorted(int(path.name) for path in kept) == [2, 4]


# What a run tells.


def test_input_wait_and_step_time_are_logged(tmp_path):
  written, open_writer = [], functools.partial(writers.open_writer, tmp_path, Tracked())
  options = options_of(tmp_path, open_writer=lambda step: open_writer(step=step))
  with contextlib.closing(train.Log(options, 0)) as log:
    log.writer.write_scalars = lambda step, values: written.append((step, values))
    with log.waiting():
      time.sleep(0.05)
    log.step(1, {'loss': jnp.float32(2)})
    log.write(1, learning_rate=0.5)
  step, values = written[0]
  assert step == 1 and values['loss'] == 2 and values['learning_rate'] == 0.5
  assert 0.05 <= values['input_wait_per_step'] <= values['seconds_per_step']


def test_a_profile_covers_its_steps(tmp_path, monkeypatch):
  calls = []
  monkeypatch.setattr(train.profiler, 'start', lambda logdir: calls.append('start'))
  monkeypatch.setattr(train.profiler, 'stop', lambda: calls.append('stop'))
  with train.trace_steps(tmp_path, (2, 3)) as before:
    for step in range(5):
      before(step)
      calls.append(step + 1)
  assert calls == [1, 'start', 2, 3, 'stop', 4, 5]
  calls.clear()
  with train.trace_steps(tmp_path, (4, 9)) as before:
    for step in range(5):
      before(step)
  assert calls == ['start', 'stop']
