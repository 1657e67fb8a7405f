"""evaluate --weights: how a downloaded checkpoint is measured, without any stage."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from diga_jax import weights
from diga_jax.__main__ import main
from diga_jax.inference import evaluate
from diga_jax.storage import passport
from tests.support.stage_files import tiny_network, write_stage


@pytest.fixture(scope='module')
def network():
  return tiny_network()


@pytest.fixture(scope='module')
def cache(tmp_path_factory) -> str:
  return str(tmp_path_factory.mktemp('scenes'))


def turned(variables):
  """Another network: all parameters have the other sign."""
  return {**variables, 'params': jax.tree.map(lambda leaf: -leaf, variables['params'])}


@pytest.fixture
def measure(cache, tmp_path, network, monkeypatch):
  """measure('--weights=...', ...) -> the exit status; net.npz is there."""
  weights.save(tmp_path / 'net.npz', weights.state_dict_of(network[1]))
  weights.save(tmp_path / 'other.npz', weights.state_dict_of(turned(network[1])))
  monkeypatch.chdir(tmp_path)
  here = pathlib.Path(__file__).parents[2]
  shared = [f'--config={here / "tests/configs/tiny.py"}', f'--config.data.cache={cache}']

  def command(*options: str) -> int:
    try:
      return main(['evaluate', *shared, *options])
    except SystemExit as wrong_use:
      return int(wrong_use.code or 0)

  return command


def numbers(folder: pathlib.Path) -> dict:
  return json.loads((folder / 'metrics.json').read_text())


def test_the_numbers_are_those_of_the_network(measure, network, tmp_path, capsys):
  assert measure('--weights=net.npz', '--output=out') == 0
  said = capsys.readouterr()
  place = tmp_path / 'out/published/camera_test'
  digest = weights.file_digest('net.npz')
  found, passed = numbers(place), passport.read(place / passport.NAME)
  assert found['protocol']['weights_sha256'] == passed['protocol']['weights_sha256'] == digest
  assert passed['made_from']['weight_files_sha256'] == {'weights': digest}
  assert passed['scores']['iou'] == found['iou'] and passed['name'] == found['name'] == 'net'
  assert (found['protocol']['data'], found['protocol']['scales']) == ('camera_test', [1.0, 0.5])
  counts = passport.counts(place / passport.NAME)
  hits = np.diagonal(np.array(found['confusion']))
  assert counts is not None and (counts['intersection'].sum(0) == hits).all()
  assert f'{100 * found["mean_iou"]:.1f}' in said.out and digest in said.out
  assert '74 of the network' in said.err and 'mean of 16' in said.out
  # Those of the same network in a stage, in another place, and with two files in one comparison.
  write_stage(network[1], tmp_path / 'run')
  assert measure('--weights=run/stage', '--output=stage') == 0
  assert numbers(tmp_path / 'stage/published/camera_test')['iou'] == found['iou']
  assert main(['compare', str(place), str(tmp_path / 'stage/published/camera_test')]) == 0


def test_it_is_measured_once(measure, tmp_path, monkeypatch, capsys):
  assert measure('--weights=net.npz') == 0
  capsys.readouterr()
  place = tmp_path / 'evaluation_of_weights/net/published/camera_test'
  before = {path: path.read_bytes() for path in place.rglob('*') if path.is_file()}
  monkeypatch.setattr(evaluate, 'evaluate', lambda *_, **__: pytest.fail('measured again'))
  shutil.copy('net.npz', 'moved.npz')  # what counts is the content
  output = f'--output={place.parents[1]}'
  assert measure('--weights=net.npz') == measure('--weights=moved.npz', output) == 0
  assert 'mIoU' in capsys.readouterr().out
  assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    ('--weights=other.npz', 'weights: '),
    ('--config.evaluation.scales=(1.0,)', 'evaluation.scales: '),
    ('--config.evaluation.sets=("source",)', ''),  # another folder
  ],
)
def test_other_numbers_are_not_overwritten(measure, tmp_path, capsys, change, words):
  assert measure('--weights=net.npz', '--output=out') == 0
  before = (tmp_path / 'out/published/camera_test/metrics.json').read_bytes()
  capsys.readouterr()
  status = measure('--weights=net.npz', '--output=out', change)
  lines = capsys.readouterr().err.splitlines()
  if words:
    assert status == 2 and words in lines[-1] and 'another --output' in lines[-1]
  else:
    assert status == 0 and (tmp_path / 'out/published/source/metrics.json').exists()
  assert (tmp_path / 'out/published/camera_test/metrics.json').read_bytes() == before


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    (('--weights=none.npz',), 'none.npz'),
    (('--weights=text.pth',), 'text.pth'),
    (('--weights=body.npz',), 'body.npz'),
    (('--weights=net.npz', '--part=teacher'), 'teacher'),
    (('--weights=net.npz#a', '--part=b'), 'names a part already'),
    (('--weights=net.npz', '--config.evaluation.sets=()'), 'nothing to measure'),
    (('--weights=net.npz', '--config.data.sets.camera_test.kind=folder'), 'labels is empty'),
    (('--weights=net.npz', '--config.model.options.feature=8'), 'net.npz'),
    (('--weights=net.npz', '--output=run/stage'), 'which others read'),
    (('--weights=net.npz', '--output=net.npz'), 'is a file'),
    (('--weights=net.npz', '--workdir=run'), 'not allowed with'),
    ((), 'required'),
    (('--workdir=run', '--output=out'), '--output is for --weights'),
    (('--workdir=run', '--part=teacher'), 'give --weights too'),
  ],
  ids=str,
)
def test_mistakes_are_one_line(measure, network, tmp_path, capsys, options, words):
  (tmp_path / 'text.pth').write_text('no weights')
  whole = weights.state_dict_of(network[1])
  body = {name: value for name, value in whole.items() if not weights.HEAD.search(name)}
  weights.save(tmp_path / 'body.npz', body)
  write_stage(network[1], tmp_path / 'run')
  before = sorted(tmp_path.rglob('*'))
  assert measure(*options) == 2
  said = capsys.readouterr()
  assert words in said.err.splitlines()[-1] and 'Traceback' not in said.err
  assert sorted(tmp_path.rglob('*')) == before


def test_a_dry_run_opens_all_and_writes_nothing(measure, tmp_path, capsys):
  before = sorted(tmp_path.rglob('*'))
  assert measure('--weights=net.npz', '--dry_run') == 0
  said = capsys.readouterr().out
  assert 'weights net.npz' in said and '3 images with labels' in said
  assert sorted(tmp_path.rglob('*')) == before


def test_a_part_of_a_file_is_chosen_and_named(measure, network, tmp_path, capsys):
  parts = {'model': network[1], 'ema_model': turned(network[1])}
  named = {
    f'{part}.{name}': value
    for part, variables in parts.items()
    for name, value in weights.state_dict_of(variables).items()
  }
  weights.save(tmp_path / 'both.npz', named)
  assert measure('--weights=both.npz', '--part=ema_model') == 0
  assert 'ema_model' in capsys.readouterr().err
  assert measure('--weights=other.npz') == 0
  both, other = (
    numbers(tmp_path / f'evaluation_of_weights/{name}/published/camera_test')
    for name in ('both_ema_model', 'other')
  )
  assert both['iou'] == other['iou'] and both['protocol']['weights_sha256'].endswith('#ema_model')
