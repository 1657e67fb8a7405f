"""The command line from end to end: whole runs, stopped runs, finished, stale and wrong ones."""

import json
import os
import pathlib
import random
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from data_pipelines import pipeline
from data_pipelines.errors import BadInput
from diga_jax import weights
from diga_jax.__main__ import main
from diga_jax.recipe import graph, labels, starts
from diga_jax.recipe.experiment import Run
from diga_jax.storage import passport, stage_folder
from tests.configs import tiny
from tests.support import damage

CONFIG = 'tests/configs/tiny.py'
TRAINED = ('translator', 'warmup', 'self_training_1', 'self_training_2')


@pytest.fixture(scope='module')
def cache(tmp_path_factory) -> pathlib.Path:
  return tmp_path_factory.mktemp('scenes')


def run(command: str, workdir: pathlib.Path, cache: pathlib.Path, *more: str) -> int:
  return main(
    [command, f'--config={CONFIG}', f'--workdir={workdir}', f'--config.data.cache={cache}', *more]
  )


@pytest.fixture(scope='module')
def finished(tmp_path_factory, cache) -> pathlib.Path:
  """The working directory of an undisturbed run."""
  workdir = tmp_path_factory.mktemp('finished') / 'run'
  assert run('run', workdir, cache) == 0
  return workdir


def final_state(stage: pathlib.Path, step: int | None = None) -> dict[str, np.ndarray]:
  """Every array of a stage's checkpoint of that step, or the last one, by name."""
  handler = ocp.PyTreeCheckpointHandler()
  with ocp.CheckpointManager(stage / 'checkpoints', item_handlers=handler) as manager:
    step = manager.latest_step() if step is None else step
    # As NumPy arrays, because other devices may have written it.
    wanted = jax.tree.map(
      lambda _: ocp.RestoreArgs(restore_type=np.ndarray), manager.item_metadata(step).tree
    )
    tree = manager.restore(step, args=ocp.args.PyTreeRestore(restore_args=wanted))
  leaves = jax.tree.leaves_with_path(tree)
  return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def stop_once(monkeypatch, **after: int) -> list[str]:
  """Makes the first attempt at each stage named end like Ctrl-C, after so many batches.

  Returns:
    The names of those that have been stopped, to be read at the end.
  """
  original, stopped = pipeline.batches, []

  def batches(views, *, stream='', **options):
    for count, batch in enumerate(original(views, stream=stream, **options)):
      if count == after.get(stream) and stream not in stopped:
        stopped.append(stream)
        raise KeyboardInterrupt
      yield batch

  monkeypatch.setattr(pipeline, 'batches', batches)
  return stopped


@pytest.mark.slow
def test_a_run_leaves_what_it_promises(finished):
  for name in TRAINED:
    record = json.loads((finished / name / 'stage.json').read_text())
    balance = record['result'].pop('class_balance', None)
    assert record['result'] == {'step': 5, 'steps': 5, 'chosen_by': 'last'}
    assert (balance is not None) == name.startswith('self_training')
    assert record['identity']['model.precision'] == 'default'
  for name in ('label_1', 'label_2'):
    files = sorted((finished / name / 'labels').glob('*.png'))
    assert len(files) == 4
    assert np.asarray(Image.open(files[0])).shape == (48, 96)
    with np.load(finished / name / 'centroids.npz') as found:
      assert found['centroids'].shape == (19, 16)
  place = finished / 'evaluation' / 'published'
  metrics = json.loads((place / 'warmup' / 'camera_test' / 'metrics.json').read_text())
  assert metrics['protocol']['scales'] == [1.0, 0.5]
  assert metrics['protocol']['chosen_by'] == 'last'
  assert metrics['protocol']['dtype'] == 'float32'
  assert metrics['protocol']['precision'] == 'default'
  assert sum(map(sum, metrics['confusion'])) == 3 * 48 * 96
  with np.load(place / 'warmup' / 'camera_test' / 'images.npz') as found:
    assert found['ids'].shape == (3,) and found['union'].shape == (3, 19)
    assert found['intersection'].sum(0).tolist() == np.diag(metrics['confusion']).tolist()
  assert len(list((place / 'label_1').rglob('pictures/*.png'))) == 2
  assert len(list(place.rglob('passport.json'))) == 5
  assert not list(finished.rglob('*.partial'))
  assert len(list((place / 'warmup' / 'camera_test' / 'target_pictures').glob('*.png'))) == 2
  assert curves_of(place / 'warmup' / 'camera_test') >= {
    'iou/road', 'mean_iou/19', 'pictures/000100', 'target_pictures/000000',
  }  # fmt: skip
  page = (finished / 'report.html').read_text()
  assert 'all 6 stages complete' in page and 'vegaEmbed' in page


def curves_of(directory: pathlib.Path) -> set[str]:
  """The tags in the event files of a folder."""
  (path,) = directory.glob('events.out.tfevents.*')
  return {value.tag for event in EventFileLoader(str(path)).Load() for value in event.summary.value}


@pytest.mark.slow
def test_every_number_has_a_passport(finished):
  found = passport.read(passport.find(finished / 'self_training_1'))
  made, protocol = found['made_from'], found['protocol']
  assert found['kind'] == 'network' and len(found['scores']['iou']) == 19
  assert protocol['images'] == 3 and protocol['label_size'] == [48, 96]
  assert protocol['label_table'] == 'identity' and protocol['chosen_by'] == 'last'
  assert (made['seed'], made['step'], made['steps']) == (0, 5, 5)
  assert made['inputs'].keys() == {'translator', 'warmup', 'label_1'}
  assert made['config']['model.options.width'] == 4
  assert made['config']['stages.self_training_1.steps'] == 5
  assert 'stages.self_training_1.kind' not in made['config']  # that is the default's
  for under in ('made_under', 'measured_under'):
    assert made[under]['devices'] == '8 x cpu' and made[under]['jax']
  path = passport.find(finished / 'self_training_2')
  assert path.stat().st_size < 8000
  other, text = passport.read(path), path.read_text()
  same = ('list_sha256', 'label_files_sha256', 'image_files_sha256')
  assert all(other['protocol'][key] == protocol[key] for key in same)
  assert other['made_from']['network_sha256'] != made['network_sha256']
  labels = finished / 'evaluation/published/label_1/target'
  assert passport.read(labels / 'passport.json')['made_from']['labels_sha256']
  assert text.startswith('{\n "passport": 1,\n "kind": "network",')


@pytest.mark.slow
def test_a_passport_that_is_lost_or_damaged_is_written_again(finished, cache, caplog):
  paths = [passport.find(finished / name) for name in ('warmup', 'self_training_1')]
  before = [path.read_bytes() for path in paths]
  paths[0].unlink()
  paths[1].write_bytes(before[1][:-5])
  assert run('evaluate', finished, cache) == 0
  assert [path.read_bytes() for path in paths] == before
  assert f'{paths[1]}: is damaged' in caplog.text and 'it is written again' in caplog.text


@pytest.mark.slow
def test_networks_of_a_run_are_compared(finished, capsys):
  folders = [str(finished / name) for name in ('warmup', 'self_training_2')]
  assert main(['compare', *folders]) == 0
  out = capsys.readouterr().out
  assert 'traffic light' in out and '95% interval over the 3 images' in out
  assert 'label files' in out and '?' not in out


@pytest.mark.slow
def test_class_shares_are_in_the_records(finished, cache, capsys):
  for name in ('label_1', 'label_2'):
    result = json.loads((finished / name / 'stage.json').read_text())['result']
    balance, pixels = result['class_balance'], np.array(result['pixels'])
    labels = [each['labels'] for each in balance['by_class'].values()]
    np.testing.assert_allclose(labels, pixels / pixels.sum())
    assert balance['classes'] == np.count_nonzero(pixels) and 0 < balance['confidence'] < 1
  balance = json.loads((finished / 'self_training_1' / 'stage.json').read_text())['result']
  seen = balance['class_balance']
  assert seen['window'] == 1
  for what in ('kept', 'predictions'):
    for when in ('first', 'last'):
      assert sum(seen[what][when].values()) == pytest.approx(1)
  assert run('run', finished, cache) == 0
  out = capsys.readouterr().out
  assert seen['warnings'] and all(f'warning: {text}' in out for text in seen['warnings'])


@pytest.mark.slow
def test_a_stopped_run_ends_bit_equal(finished, cache, tmp_path, monkeypatch):
  # After a checkpoint, and before the first; tests/end_to_end/test_survival.py kills the others.
  stopped = stop_once(monkeypatch, translator=3, self_training_2=1)
  stops = 0
  while True:
    try:
      assert run('run', tmp_path / 'run', cache) == 0
      break
    except KeyboardInterrupt:
      stops += 1
  assert stops == len(stopped) == 2
  for name in TRAINED:
    wanted, found = final_state(finished / name), final_state(tmp_path / 'run' / name)
    assert wanted.keys() == found.keys()
    for key, value in wanted.items():
      np.testing.assert_array_equal(found[key], value, err_msg=f'{name} {key}')
    results = [stage_folder.read_record(at / name)['result'] for at in (finished, tmp_path / 'run')]
    assert results[0] == results[1]  # class shares and warnings among it
  for wanted in (finished / 'label_2' / 'labels').glob('*.png'):
    assert (tmp_path / 'run' / 'label_2' / 'labels' / wanted.name).read_bytes() == (
      wanted.read_bytes()
    )


def test_what_a_run_writes_follows_the_umask(finished):
  mask = os.umask(0)
  os.umask(mask)
  for path in finished.rglob('*'):
    wanted = (0o777 if path.is_dir() else 0o666) & ~mask
    assert path.stat().st_mode & 0o777 == wanted, path


@pytest.mark.slow
def test_a_finished_run_is_not_repeated(finished, cache, capsys):
  def files() -> dict:
    found = (path for path in finished.rglob('*') if path.is_file())
    return {
      path: path.stat().st_mtime_ns
      for path in found
      if path.name not in ('run.json', 'report.html')
    }

  before = files()
  assert run('run', finished, cache) == 0
  assert files() == before
  assert 'self_training_2' in capsys.readouterr().out


def read_everything(run: Run) -> list:
  """All that the commands read of a finished working directory."""
  for name in graph.stages_of(run):
    graph.run_stage(run, name)
    made = run.workdir / name
    if name == 'translator':
      run.translator(name)
    elif run.stage(name).kind == 'label':
      labels.with_pseudo_labels(run.images(run.stage(name).target, labelled=False), made)
      labels.read_arrays(made / 'index.npz', 'ids', 'counts', 'confidence')
      labels.read_centroids(made)
    else:
      run.network(name, 'teacher')
      weights.read_stage(made)
  return graph.evaluate(run)


def files_read(workdir: pathlib.Path) -> list[pathlib.Path]:
  """The files of a working directory, but for those that only people look at."""
  unread = ('pictures', 'events.out', '.lock', 'NETWORKS_ONLY', 'run.json', 'report.html')
  files = sorted(path for path in workdir.rglob('*') if path.is_file())
  return [path for path in files if not any(word in str(path) for word in unread)]


@pytest.mark.slow
def test_damaged_and_missing_metrics_are_written_again(finished, cache, tmp_path, caplog):
  copy = shutil.copytree(finished, tmp_path / 'run')
  damaged, missing, *_ = sorted(copy.rglob('metrics.json'))
  whole = damaged.read_bytes(), missing.read_bytes()
  damage.flip(damaged, random.Random(0))
  missing.unlink()
  assert run('evaluate', copy, cache) == 0
  assert (damaged.read_bytes(), missing.read_bytes()) == whole
  for path in (damaged, missing):
    assert caplog.text.count(f'{path}: is damaged or missing: it is written again') == 1


@pytest.mark.slow
def test_a_damaged_checkpoint_of_a_finished_stage_is_refused(finished, cache, tmp_path, capsys):
  copy = shutil.copytree(finished, tmp_path / 'run')
  shutil.rmtree(copy / 'self_training_2')
  for name in ('self_training_1', 'translator'):
    (place,) = (copy / name / 'checkpoints').glob('[0-9]*')
    path = max(place.rglob('*'), key=lambda path: path.stat().st_size)
    whole = path.read_bytes()
    damage.flip(path, random.Random(0))
    refused(capsys, run('run', copy, cache), str(path), 'is damaged')
    path.write_bytes(whole)


@pytest.mark.exhaustive
def test_of_300_flipped_bits_none_is_accepted_silently(finished, cache, tmp_path):
  """Each is refused by name; of metrics.json it is put right."""
  config = tiny.get_config()
  config.data.cache = str(cache)
  workdir = shutil.copytree(finished, tmp_path / 'run')
  wanted, draw = read_everything(Run(config, workdir)), random.Random(0)
  files = files_read(workdir)
  for path in [*files, *draw.choices(files, k=max(0, 300 - len(files)))]:
    whole = path.read_bytes()
    bit = damage.flip(path, draw)
    try:
      found = read_everything(Run(config, workdir))
      assert path.name == 'metrics.json' and found == wanted, f'{path}: bit {bit}'
      assert path.read_bytes() == whole
    except BadInput as error:
      assert str(path.parent) in str(error) and '\n' not in str(error), f'{path}: {error}'
    path.write_bytes(whole)
  assert read_everything(Run(config, workdir)) == wanted


def refused(capsys, status: int, *words: str) -> None:
  """One line on stderr, with these words, and exit status 2."""
  lines = capsys.readouterr().err.strip().splitlines()
  assert status == 2
  assert lines and lines[-1].startswith('diga_jax: ')
  for word in words:
    assert word in lines[-1], lines[-1]


@pytest.mark.slow
def test_a_changed_config_is_refused_by_name(finished, cache, capsys):
  status = run('run', finished, cache, '--config.stages.warmup.ema_decay_max=0.5')
  refused(capsys, status, 'warmup', 'stage.ema_decay_max', '0.999', '0.5')


@pytest.mark.slow
def test_changed_inputs_are_refused_by_name(finished, cache, capsys, tmp_path):
  copy = tmp_path / 'run'
  shutil.copytree(finished, copy)
  other = tmp_path / 'scenes'
  status = run('run', copy, other, '--config.data.sets.target.first=1')
  refused(capsys, status, 'data.sets.target.first')


@pytest.mark.slow
def test_a_checkpoint_of_another_network_is_refused(finished, cache, capsys, tmp_path):
  status = main(
    [
      'predict',
      f'--config={CONFIG}',
      f'--workdir={finished}',
      '--stage=warmup',
      f'--output={tmp_path}',
      str(next(cache.rglob('images/*.png'))),
      '--config.data.classes=7',
      "--config.data.class_names=('a', 'b', 'c', 'd', 'e', 'f', 'g')",
    ]
  )
  refused(capsys, status, 'another network', 'final', 'warmup')
  assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_predict_writes_labels(finished, cache, tmp_path):
  image = next(cache.rglob('images/*.png'))
  status = main(
    [
      'predict',
      f'--config={CONFIG}',
      f'--workdir={finished}',
      '--stage=warmup',
      f'--output={tmp_path}',
      str(image),
    ]
  )
  assert status == 0
  assert np.asarray(Image.open(tmp_path / image.name)).max() < 19


@pytest.mark.slow
def test_a_label_stages_labels_are_packed(finished, cache, tmp_path, capsys):
  workdir = tmp_path / 'run'
  shutil.copytree(finished, workdir)
  assert run('prepare', workdir, cache, '--stage=label_1', '--jobs=1') == 0
  config = tiny.get_config()
  config.data.cache = str(cache)
  experiment = Run(config, workdir)
  target, made = experiment.images('target', labelled=False), workdir / 'label_1'
  files = target.with_labels(str(made / 'labels' / '{id}.png'))
  packed = labels.with_pseudo_labels(target, made)
  assert packed.label_pack and packed.file_digests() == files.file_digests()
  for index in range(len(target)):
    np.testing.assert_array_equal(packed.read(index)[1], files.read(index)[1])
  shutil.copytree(made / 'shards', workdir / 'label_2' / 'shards')
  with pytest.raises(BadInput, match=r'holds another label of 00000\d than the stage made'):
    labels.with_pseudo_labels(target, workdir / 'label_2')
  assert run('prepare', workdir, cache, '--stage=label_9') == 2
  assert "no 'label_9'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize('network', ['student', 'teacher'])
def test_a_stages_networks_are_exported(finished, tmp_path, network, capsys):
  path = tmp_path / 'network.pth'
  stage = str(finished / 'self_training_1')
  assert main(['weights', 'export', stage, f'--output={path}', f'--network={network}']) == 0
  assert main(['weights', 'show', str(path), f'--config={CONFIG}']) == 0
  found, state = weights.read(path), final_state(finished / 'self_training_1')
  part = {'student': 'params', 'teacher': 'teacher'}[network]
  kernel = state[f"['{part}']['layer1.0']['conv2']['kernel']"]
  np.testing.assert_array_equal(found['layer1.0.conv2.weight'], kernel.transpose(3, 2, 0, 1))
  assert not (capsys.readouterr().err)


@pytest.mark.slow
def test_a_label_pass_and_a_training_may_start_from_two_files(finished, cache, tmp_path):
  config = tiny.get_config()
  config.data.cache = str(cache)
  label, train = config.stages.label_1, config.stages.self_training_1
  file = str(tmp_path / 'weights.safetensors')
  weights.save(file, weights.read(finished / 'self_training_1'))
  label.start, label.weights = '', str(finished / 'warmup')
  train.start, train.weights = '', file
  experiment, before = Run(config, tmp_path), Run(tiny.get_config(), finished)
  for stage, wanted in ((label, 'warmup'), (train, 'self_training_1')):
    found = starts.variables_of(experiment, stage)
    jax.tree.map(np.testing.assert_array_equal, found, before.network(wanted))
  found = graph.identity(experiment, 'label_1')
  assert found['files.weights'] == weights.file_digest(label.weights)
  assert not any(key.startswith('input.') for key in found)


@pytest.mark.slow
def test_a_stages_folder_is_a_file_of_weights(finished, tmp_path):
  config = tiny.get_config()
  config.model.weights = str(finished / 'warmup')
  experiment = Run(config, tmp_path)
  wanted = Run(tiny.get_config(), finished).network('warmup')
  jax.tree.map(np.testing.assert_array_equal, starts.initial_variables(experiment), wanted)
  assert (
    len(weights.file_digest(config.model.weights)) == 64
  )  # what a stage that starts from it records


@pytest.mark.slow
def test_a_translator_is_taken_from_files(finished, cache, tmp_path, capsys):
  files = {name: tmp_path / f'{name}.pth' for name in ('enc_s', 'dec_s2t')}
  stage = str(finished / 'translator')
  for name, path in files.items():
    assert main(['weights', 'export', stage, f'--output={path}', f'--network={name}']) == 0
  fields = [f'--config.translator.{name}={path}' for name, path in files.items()]
  more = ['--stage=translator', '--config.stages.translator.steps=0']
  assert run('train', tmp_path / 'run', cache, *fields, *more) == 0
  theirs = Run(tiny.get_config(), finished).translator('translator')
  ours = Run(tiny.get_config(), tmp_path / 'run').translator('translator')
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)
  capsys.readouterr()
  assert main(['weights', 'export', stage, '--output=x.pth', '--network=teacher']) == 2
  assert 'holds no teacher, only enc_s, dec_s2t' in capsys.readouterr().err
  wrong = f'--config.translator.enc_s={files["dec_s2t"]}'
  assert run('train', tmp_path / 'other', cache, *fields, wrong, *more) == 2
  said = capsys.readouterr().err
  assert str(files['dec_s2t']) in said and "decoder of a translator; wanted is DiGA's enc" in said


@pytest.mark.slow
def test_networks_are_compared_by_what_they_make_of_an_image(finished, tmp_path, capsys):
  Image.new('RGB', (64, 48), (90, 120, 30)).save(tmp_path / 'a.png')
  pair = [str(finished / name) for name in ('warmup', 'self_training_1')]
  image = [f'--image={tmp_path / "a.png"}', f'--config={CONFIG}']
  assert main(['weights', 'compare', pair[0], pair[0], *image]) == 0
  same = capsys.readouterr().out
  assert same.count(' 0 different, 0 in one alone') == 2 and 'layer1.0.conv1' in same
  assert main(['weights', 'compare', *pair, *image]) == 0
  assert ' 0 different' not in capsys.readouterr().out
  assert main(['weights', 'compare', *pair, image[0]]) == 2
  assert '--config of the network' in capsys.readouterr().err


def test_an_unknown_field_is_refused(capsys, tmp_path, cache):
  refused(capsys, run('run', tmp_path / 'run', cache, '--config.stages.warmup.emma=1'), 'emma')
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  'field',
  [
    'stages.warmup.method',
    'translator.kind',
    'checkpoint_choice',
    'stages.self_training_1.selector',
  ],
)
def test_a_word_that_means_nothing_is_refused(capsys, tmp_path, cache, field):
  status = run('run', tmp_path / 'run', cache, f'--config.{field}=nonsense')
  refused(capsys, status, field, 'nonsense', 'it may be')
  assert not (tmp_path / 'run').exists()


def test_a_pattern_that_fits_no_parameter_is_refused(capsys, tmp_path, cache):
  field = '--config.stages.warmup.optimizer.head_pattern'
  more = ('--config.translator.kind=none', '--config.stages.warmup.target_statistics=False')
  status = run('train', tmp_path / 'run', cache, '--stage=warmup', f'{field}=^finale', *more)
  refused(capsys, status, 'stages.warmup.optimizer', '^finale')
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  'place',
  [
    '--workdir=gs://bucket/run',
    '--config.data.root=s3://bucket',
    '--config.compilation_cache=gs://bucket/programs',
  ],
)
def test_a_bucket_is_refused(capsys, tmp_path, cache, place):
  refused(capsys, run('run', tmp_path, cache, place), 'mount the bucket')


def test_an_unknown_argument_is_refused(capsys, tmp_path, cache):
  refused(capsys, run('run', tmp_path / 'run', cache, '--wrokdir=x'), 'wrokdir')


def test_a_missing_config_is_refused(capsys, tmp_path):
  status = main(['run', '--config=configs/none.py', f'--workdir={tmp_path}'])
  refused(capsys, status, 'none.py')


def test_a_stage_without_its_input_is_refused(capsys, tmp_path, cache):
  status = run('train', tmp_path, cache, '--stage=warmup')
  refused(capsys, status, "'translator'", 'run it first')
  assert not list(tmp_path.iterdir())


def test_a_missing_data_folder_is_refused(capsys, tmp_path):
  status = main(
    [
      'run',
      '--config=configs/gta5_to_cityscapes.py',
      f'--workdir={tmp_path / "run"}',
      f'--config.data.root={tmp_path / "nowhere"}',
    ]
  )
  refused(capsys, status, 'nowhere')
  assert not (tmp_path / 'run').exists()


def test_help_and_wrong_use(capsys):
  with pytest.raises(SystemExit) as error:
    main(['--help'])
  assert error.value.code == 0
  assert 'predict' in capsys.readouterr().out
  with pytest.raises(SystemExit) as error:
    main(['run'])
  assert error.value.code == 2
