"""The actions of `weights` on what a user may give them."""

import pathlib
import shutil
import stat

import jax
import numpy as np
import pytest

from diga_jax import models, weights
from diga_jax.__main__ import main
from diga_jax.storage import checkpoint, stage_folder
from tests.configs import tiny
from tests.support import torch_pickles
from tests.support.stage_files import complete_stage

CONFIG = '--config=tests/configs/tiny.py'
ARRAYS = {'a.weight': np.ones((2, 3), 'f')}


def stage(folder: pathlib.Path, classes: int = 19) -> pathlib.Path:
  """A complete stage with the tiny config's network, drawn at random."""
  options = tiny.get_config().model.options.to_dict()
  model = models.build('deeplab_resnet101', classes=classes, **options)
  rng = np.random.default_rng(0)
  drawn = jax.tree.map(lambda x: rng.uniform(0.5, 1, x.shape).astype('f'), models.shapes(model))
  checkpoint.write_arrays(folder / 'checkpoints', 0, dict(drawn))
  complete_stage(folder)
  return folder


def refused(capsys, *command: str) -> str:
  try:
    status = main(['weights', *command])
  except SystemExit as wrong_use:
    status = wrong_use.code
  assert status == 2
  lines = capsys.readouterr().err.strip().splitlines()
  assert len(lines) == 1 and 'delete' not in lines[0], lines
  return lines[0]


def test_a_networks_own_export_is_imported_and_compared(tmp_path, capsys):
  made, exported = str(stage(tmp_path / 'warmup')), str(tmp_path / 'student.pth')
  place = str(tmp_path / 'imported')
  assert main(['weights', 'export', made, f'--output={exported}']) == 0
  assert main(['weights', 'import', exported, CONFIG, f'--output={place}']) == 0
  said = capsys.readouterr().out
  assert "entries are the file's\n" in said and f'--config.model.weights={place}' in said
  assert main(['weights', 'compare', made, place]) == 0
  assert ' 0 different, 0 in one alone' in capsys.readouterr().out
  assert main(['weights', 'show', place, CONFIG]) == 0
  assert "entries are the file's\n" in capsys.readouterr().out
  assert 'deeplab_resnet101' in refused(
    capsys, 'import', exported, '--model=deeplab_resnet', '--output=x'
  )
  both = ('import', exported, CONFIG, '--model=deeplab_resnet101', '--output=x')
  assert 'give the --config of the network, or else its --model' in refused(capsys, *both)
  assert 'or else its --model' in refused(capsys, 'import', exported, '--output=x')


def test_a_part_of_a_checkpoint_is_chosen_and_said(tmp_path, capsys):
  found = weights.read(stage(tmp_path / 'warmup'))
  floats = {name: value for name, value in found.items() if value.dtype == 'f'}
  doubled = {f'ema_model.{name}': 2 * value for name, value in floats.items()}
  both = {f'model.{name}': value for name, value in floats.items()} | doubled
  content = {'state_dict': both, **torch_pickles.objects()}
  file = str(torch_pickles.save(tmp_path / 'latest.PTH', content))
  assert main(['weights', 'show', file, CONFIG]) == 0
  line = 'took model (student), left ema_model (teacher); choose another by --part=ema_model'
  assert line in capsys.readouterr().out
  for number, (named, factor) in enumerate(
    (([file], 1), ([file, '--part=teacher'], 2), ([f'{file}#ema_model'], 2))
  ):
    place = tmp_path / str(number)
    assert main(['weights', 'import', *named, CONFIG, f'--output={place}']) == 0
    assert 'took ' in capsys.readouterr().out
    one = weights.read(place)
    for name, value in floats.items():
      np.testing.assert_array_equal(one[name], factor * value)
  assert main(['weights', 'compare', f'{file}#ema_model', str(tmp_path / '1')]) == 0
  assert ' 0 different, 0 in one alone' in capsys.readouterr().out
  assert main(['weights', 'compare', str(tmp_path / 'warmup'), file]) == 0
  said = capsys.readouterr().out
  assert f'{file}: took model' in said and ' 0 different, 0 in one alone' in said
  both_ways = ('show', f'{file}#ema_model', '--part=model', CONFIG)
  assert 'names a part already' in refused(capsys, *both_ways)
  assert "has no part 'x'" in refused(capsys, 'show', file, '--part=x', CONFIG)
  place = f'--output={tmp_path / "0"}'
  assert 'with other settings' in refused(capsys, 'import', f'{file}#ema_model', CONFIG, place)


def test_the_teacher_of_a_stage_is_a_part_of_it(tmp_path, capsys):
  made = str(stage(tmp_path / 'warmup'))
  assert main(['weights', 'show', f'{made}#student', CONFIG]) == 0
  assert 'holds no teacher, only student' in refused(capsys, 'show', f'{made}#teacher', CONFIG)


def test_an_import_of_a_body_leaves_the_head_to_the_start(tmp_path, capsys):
  found = weights.read(stage(tmp_path / 'warmup'))
  body = {name: value for name, value in found.items() if not name.startswith('final.')}
  weights.save(tmp_path / 'body.pth', body)
  place = str(tmp_path / 'imported')
  assert main(['weights', 'import', str(tmp_path / 'body.pth'), CONFIG, f'--output={place}']) == 0
  capsys.readouterr()
  assert main(['weights', 'show', place, CONFIG]) == 0
  assert 'start at random (of the head)' in capsys.readouterr().out
  other = '--output=' + str(tmp_path / 'x.bin')
  program = ('export', place, '--format=stablehlo', CONFIG, '--size', '64', '64', other)
  assert f'{place}: ' in refused(capsys, *program)


def test_a_file_that_does_not_fit_is_shown_and_refused(tmp_path, capsys):
  found = weights.read(stage(tmp_path / 'warmup'))
  del found['layer2.0.conv1.weight']
  weights.save(tmp_path / 'a.npz', found)
  assert main(['weights', 'show', str(tmp_path / 'a.npz'), CONFIG]) == 2
  said = capsys.readouterr()
  assert '1 missing' in said.out and 'layer2.0.conv1.weight (missing)' in said.err


def test_places_without_weights_are_called_by_their_names(tmp_path, capsys):
  workdir = tmp_path / 'quick'
  stage(workdir / 'warmup')
  stage_folder.write_record(workdir / 'label_1', {'identity': {}, 'result': {'kept': 1}})
  stage_folder.write_record(workdir / 'self_training_1.partial', {'identity': {}})
  work = tmp_path / 'work_dirs'
  work.mkdir()
  for name in ('iter_1.pth', 'iter_2.pth'):
    weights.save(work / name, ARRAYS)
  for place, words in (
    (workdir, 'name one of its stages, label_1, warmup'),
    (workdir / 'label_1', 'holds no network'),
    (workdir / 'self_training_1.partial', 'not complete'),
    (work, 'name a file of weights in it: iter_1.pth, iter_2.pth'),
    (tmp_path / 'none', 'there is no such'),
    (tmp_path / 'none.pth', 'there is no such'),
  ):
    assert words in refused(capsys, 'show', str(place), CONFIG)
    assert words in refused(capsys, 'import', str(place), CONFIG, '--output=x')
    assert words in refused(capsys, 'compare', str(place), str(place))
    assert words.partition(';')[0] in refused(capsys, 'export', str(place), '--output=x.pth')


def test_arguments_that_mean_nothing_are_refused(tmp_path, capsys):
  weights.save(tmp_path / 'a.npz', ARRAYS)
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'pipe.pth').symlink_to('/dev/null')
  file, place = str(tmp_path / 'a.npz'), f'--output={tmp_path / "x"}'
  model = '--model=deeplab_resnet101'
  for command, words in (
    (('import', file, model, '--classes=-1', place), 'whole number from 1 to 255'),
    (('import', file, model, f'--output={tmp_path / "mine"}'), 'mine exists and is no import'),
    (('import', file, model, f'--output={file}'), 'a.npz is a file: give a folder'),
    (('export', file, place), 'not the folder of a stage'),
    (('export', str(tmp_path), place, '--prefix=\n'), '--prefix'),
    (('show', str(tmp_path / 'pipe.pth'), CONFIG), 'is no file that can be read'),
  ):
    assert words in refused(capsys, *command)
  assert (tmp_path / 'mine').is_dir() and not (tmp_path / 'x').exists()


def test_two_files_are_compared_under_one_set_of_names(tmp_path, capsys):
  theirs = {'conv1.weight': np.ones((4, 3, 7, 7), 'f'), 'layer1.0.conv2.weight': np.ones(3, 'f')}
  ours = {'layer0.0.weight': theirs['conv1.weight'], 'layer1.0.conv2.weight': np.zeros(3, 'f')}
  weights.save(tmp_path / 'theirs.npz', theirs)
  weights.save(tmp_path / 'ours.npz', ours)
  for pair in (('theirs.npz', 'ours.npz'), ('ours.npz', 'theirs.npz')):
    assert main(['weights', 'compare', *(str(tmp_path / name) for name in pair)]) == 0
    assert '1 equal, 1 different, 0 in one alone' in capsys.readouterr().out


@pytest.mark.parametrize('suffix', ['pth', 'safetensors', 'npz'])
def test_files_may_be_read_by_those_who_may_read_others(tmp_path, suffix):
  (tmp_path / 'plain').write_text('')
  weights.save(tmp_path / f'a.{suffix}', ARRAYS)
  modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ('plain', f'a.{suffix}')]
  assert modes[0] == modes[1]


def test_the_checkpoint_of_another_stage_is_refused(tmp_path, capsys):
  """It is as it was written, but not what this stage ended with."""
  stages = stage(tmp_path / 'a'), stage(tmp_path / 'b', classes=7)
  shutil.rmtree(stages[0] / 'checkpoints')
  shutil.copytree(stages[1] / 'checkpoints', stages[0] / 'checkpoints')
  line = refused(capsys, 'export', str(stages[0]), '--output', str(tmp_path / 'out.npz'))
  assert f'{stages[0]}/checkpoints/0/SHA256SUMS: is damaged' in line
