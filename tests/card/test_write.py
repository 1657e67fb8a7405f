"""Cards: what is in the folder, that it is loaded again, and what is refused."""

import hashlib
import importlib.util
import json
import pathlib
import random
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from PIL import Image

import diga_jax
from data_pipelines import records
from data_pipelines.errors import BadInput
from diga_jax import weights
from diga_jax.__main__ import main
from diga_jax.card import readme, write
from diga_jax.recipe import hub_config
from diga_jax.storage import passport
from tests.card.conftest import make_run, with_networks
from tests.support import damage

FILES = {
  'README.md', 'config.json', 'model.safetensors', 'network.py', 'sample.png',
  'passports/published/camera_test.json',
}  # fmt: skip


def files_in(folder: pathlib.Path) -> set[str]:
  return {p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file()}


def export(workdir: pathlib.Path, output: pathlib.Path, *options: str) -> int:
  try:
    return main(['export-card', str(workdir), f'--output={output}', *options])
  except SystemExit as wrong_use:
    return int(str(wrong_use.code))


def flip(path: pathlib.Path) -> None:
  damage.flip(path, random.Random(0))


def head_of(folder: pathlib.Path) -> dict:
  """The front matter of README.md."""
  _, head, _ = (folder / 'README.md').read_text(encoding='utf-8').split('---\n', 2)
  return yaml.safe_load(head)


@pytest.fixture(scope='module')
def card(finished, tmp_path_factory) -> pathlib.Path:
  place = tmp_path_factory.mktemp('card') / 'card'
  assert export(finished, place) == 0
  return place


def test_the_folder_holds_all_of_the_network(card, finished):
  assert files_in(card) == FILES
  config = json.loads((card / 'config.json').read_text(encoding='utf-8'))
  assert config['files'].keys() == FILES - {'config.json'}
  for name, digest in config['files'].items():
    assert hashlib.sha256((card / name).read_bytes()).hexdigest() == digest
  assert config['training']['stage'] == 'self_training_1'
  assert config['training']['stages'].keys() == {'warmup', 'label_1', 'self_training_1'}
  exported = weights.read(card / 'model.safetensors')
  wanted = weights.read_stage(finished / 'self_training_1', 'student')
  assert exported.keys() == wanted.keys()
  assert all(np.array_equal(exported[name], wanted[name]) for name in wanted)
  with Image.open(card / 'sample.png') as picture:
    assert picture.width > 700  # three panels


def test_the_metadata_is_what_was_measured(card, finished):
  head = head_of(card)
  measured = passport.read(card / 'passports/published/camera_test.json')
  assert measured['made_from']['step'] == 5 and measured['name'] == 'self_training_1'
  assert (head['license'], head['library_name']) == ('unknown', 'diga_jax')
  assert head['pipeline_tag'] == 'image-segmentation'
  (results,) = head['model-index'][0]['results']
  values = {each['name'].partition(',')[0]: each['value'] for each in results['metrics']}
  subsets = measured['scores']['mean_iou_subsets']
  for name, value in subsets.items():
    assert values[f'mIoU {name}'] == pytest.approx(100 * value, abs=0.006)
  assert 'oracle' not in (card / 'README.md').read_text(encoding='utf-8').lower()


def test_the_hub_reads_the_metadata(card):
  hub = pytest.importorskip('huggingface_hub', reason='huggingface_hub is not installed')
  data = hub.ModelCard.load(card / 'README.md').data
  assert data.license == 'unknown' and data.pipeline_tag == 'image-segmentation'
  assert {result.metric_type for result in data.eval_results} == {'mean_iou', 'accuracy'}
  assert {result.dataset_name for result in data.eval_results} == {
    'camera_test, protocol published'
  }


def test_it_is_loaded_here(card, finished):
  image = np.random.default_rng(0).integers(0, 256, (65, 97, 3), np.uint8)
  found, wanted = diga_jax.load(card), diga_jax.load(finished, 'self_training_1')
  assert found.names == wanted.names and np.array_equal(found.palette, wanted.palette)
  for one, other in zip(found.predict(image), wanted.predict(image), strict=True):
    np.testing.assert_array_equal(one, other)
  assert diga_jax.load(card, network='student')
  for other in (
    diga_jax.load(finished, 'self_training_1@last'),
    diga_jax.load(card, config=hub_config.read(card)),
  ):
    np.testing.assert_array_equal(other.labels(image), wanted.labels(image))
  with pytest.raises(BadInput, match='holds the student, not the teacher'):
    diga_jax.load(card, network='teacher')


def test_it_is_loaded_in_pytorch(card):
  torch = pytest.importorskip('torch', reason='PyTorch, the extra `torch`, is not installed')
  spec = importlib.util.spec_from_file_location('network_of_card', card / 'network.py')
  assert spec is not None and spec.loader is not None
  network = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(network)
  image = np.random.default_rng(0).integers(0, 256, (65, 97, 3), np.uint8)
  wanted = diga_jax.load(card).predictor.logits(jnp.asarray(image[None]), (65, 97))
  with torch.inference_mode():
    found = network.load(card)(torch.tensor(image.transpose(2, 0, 1))[None]).numpy()
  scale = max(float(jnp.max(jnp.abs(wanted))), 1.0)
  np.testing.assert_allclose(found.transpose(0, 2, 3, 1), wanted, rtol=0, atol=1e-4 * scale)


def test_the_teacher_and_another_stage_have_cards(finished, tmp_path, capsys):
  assert export(finished, tmp_path / 'card', '--network=teacher', '--stage=warmup') == 0
  said = capsys.readouterr().out
  assert 'teacher of warmup, 0 measurements' in said and 'nothing has been measured' in said
  text = (tmp_path / 'card/README.md').read_text(encoding='utf-8')
  assert 'Nothing has been measured' in text and '1 measurement of the other' in text
  assert 'model-index' not in head_of(tmp_path / 'card')
  assert files_in(tmp_path / 'card') == {
    'README.md',
    'config.json',
    'model.safetensors',
    'network.py',
  }
  assert diga_jax.load(tmp_path / 'card', network='teacher')


def test_labels_that_chose_weights_are_told(tmp_path, cache, capsys):
  with pytest.MonkeyPatch.context() as patch:
    with_networks(patch, chosen_by='oracle')
    make_run(tmp_path / 'run', cache, '--config.checkpoint_choice=oracle')
  assert export(tmp_path / 'run', tmp_path / 'card', '--license=mit') == 0
  assert 'oracle: labels of the target' in capsys.readouterr().out
  metrics = head_of(tmp_path / 'card')['model-index'][0]['results'][0]['metrics']
  assert all(each['name'].endswith('chosen with target labels (oracle)') for each in metrics)
  text = (tmp_path / 'card/README.md').read_text(encoding='utf-8')
  assert (
    '**Oracle: labels' in text
    and '(oracle): ' in text
    and head_of(tmp_path / 'card')['license'] == 'mit'
  )


def test_names_of_any_letters(tmp_path, cache):
  names = tuple(f'Straße "{i}": |<b>` 道 #' for i in range(19))
  with pytest.MonkeyPatch.context() as patch:
    with_networks(patch)
    make_run(tmp_path / 'run', cache, f'--config.data.class_names={names!r}')
  assert export(tmp_path / 'run', tmp_path / 'card') == 0
  text = (tmp_path / 'card/README.md').read_text(encoding='utf-8')
  assert '| 0 | Straße "0": \\|\\<b\\>\\` 道 \\# | 128, 64, 128 |' in text
  assert head_of(tmp_path / 'card')['tags']
  assert diga_jax.load(tmp_path / 'card').names == names


def test_a_network_without_a_form_in_pytorch_is_told_first(finished, tmp_path, monkeypatch):
  monkeypatch.setattr(write, 'IN_PYTORCH', ())
  said: list[tuple[str, bool]] = []
  write.write(
    finished, tmp_path / 'card', say=lambda text: said.append((text, (tmp_path / 'card').exists()))
  )
  assert said[0] == (
    'deeplab_resnet101 has no PyTorch form: the card is written without network.py',
    False,
  )
  assert files_in(tmp_path / 'card') == FILES - {'network.py'}
  assert 'no form of this network in PyTorch' in (tmp_path / 'card/README.md').read_text()
  with pytest.raises(BadInput, match='--onnx: deeplab_resnet101 has no PyTorch form'):
    write.write(finished, tmp_path / 'other', options=write.Options(onnx=(48, 64)))
  assert not (tmp_path / 'other').exists()


def test_what_ends_halfway_leaves_nothing(finished, card, tmp_path, monkeypatch):
  old = shutil.copytree(card, tmp_path / 'old')
  before = {name: (old / name).read_bytes() for name in files_in(old)}

  def fail(*_: object) -> str:
    raise BadInput('no')

  monkeypatch.setattr(readme, 'write', fail)
  assert export(finished, tmp_path / 'new/card') == 2
  assert export(finished, old, '--overwrite') == 2
  assert [p.name for p in (tmp_path / 'new').iterdir()] == [] and set(tmp_path.iterdir()) == {
    old,
    tmp_path / 'new',
  }
  assert {name: (old / name).read_bytes() for name in files_in(old)} == before


def test_only_a_card_is_replaced(finished, card, tmp_path, capsys):
  folder = shutil.copytree(card, tmp_path / 'card')
  (folder / '.git').mkdir()
  (folder / '.git/HEAD').write_text('main')
  (folder / 'LICENSE').write_text('mine')
  assert export(finished, folder) == 2
  assert 'is not empty' in capsys.readouterr().err
  options = ('--overwrite', '--stage=warmup', '--network=teacher')
  assert export(finished, folder, *options) == 0
  kept = {'.git/HEAD', 'LICENSE'}
  assert files_in(folder) == kept | {'README.md', 'config.json', 'model.safetensors', 'network.py'}
  assert diga_jax.load(folder)
  (folder / 'README.md').write_text('mine')
  assert export(finished, folder, '--overwrite') == 2
  assert 'README.md: has been changed since' in capsys.readouterr().err
  assert (folder / 'README.md').read_text() == 'mine'
  foreign = tmp_path / 'foreign'
  foreign.mkdir()
  (foreign / 'README.md').write_text('mine')
  assert export(finished, foreign, '--overwrite') == 2
  assert 'holds no card that could be replaced' in capsys.readouterr().err
  assert files_in(foreign) == {'README.md'} and (foreign / 'README.md').read_text() == 'mine'


def rewrite(path: pathlib.Path, old: str, new: str) -> None:
  """Writes a record as another version of the package might have."""
  content = json.loads(json.dumps(records.read(path, '')).replace(old, new))
  records.write(path, content)


def test_files_that_are_not_as_written_are_not_loaded(card, tmp_path):
  for name, change, words in (
    ('model.safetensors', flip, 'is not what config.json was written with'),
    ('config.json', lambda path: path.write_text('{'), 'is no JSON'),
    (
      'config.json',
      lambda path: records.write(path, {'library_name': 'diga_jax'}),
      'of version None',
    ),
    ('config.json', lambda path: path.write_text('[]'), 'needs the config'),
    (
      'config.json',
      lambda path: path.write_text(path.read_text().replace('"student"', '"teacher"')),
      'config.json: is damaged, or was edited',
    ),
    ('config.json', lambda path: rewrite(path, '"classes": 19', '"classes": 12'), 'data.names'),
    (
      'config.json',
      lambda path: rewrite(path, '"inference"', '"other"'),
      'is damaged .KeyError.',
    ),
  ):
    folder = shutil.copytree(card, tmp_path / 'card', dirs_exist_ok=True)
    change(folder / name)
    with pytest.raises(BadInput, match=words):
      diga_jax.load(folder)


@pytest.fixture
def copied(finished, tmp_path) -> pathlib.Path:
  return shutil.copytree(finished, tmp_path / 'run')


def test_mistakes_end_in_one_line_and_write_nothing(copied, tmp_path, capsys):
  (tmp_path / 'file').write_text('')
  (tmp_path / 'loop').symlink_to('loop')
  output = tmp_path / 'card'
  there = all(map(importlib.util.find_spec, ('torch', 'onnxruntime', 'onnxscript')))
  too_large = 'of memory are needed' if there else "is missing: pip install '.[onnx]'"
  for command, words in (
    ([copied, output, '--stage=self_training'], 'there is no such stage; '),
    ([copied, output, '--stage=label_1'], 'holds no network'),
    ([copied, output, '--stage=self_training_1@oracle'], "chosen by 'oracle'"),
    ([copied, output, '--stage=../run/warmup'], 'no name of a stage'),
    ([copied, output, '--stage=warmup/'], 'no name of a stage'),
    ([copied, output, '--onnx', '16384', '16384'], too_large),
    ([copied, copied / 'evaluation', '--overwrite'], 'holds no card'),
    ([copied, tmp_path / 'loop'], 'cannot be written'),
    ([copied, output, '--license=MIT License'], 'give its identifier'),
    ([copied, output, '--license='], 'is not a name'),
    ([copied, output, '--network=both'], 'invalid choice'),
    ([copied, output, '--onnx', '0', '9'], 'whole number from 1'),
    ([copied, output, '--config=nowhere'], 'no shipped config'),
    ([copied, output, '--config=quickstart'], 'do not fit this network'),
    ([copied, tmp_path / 'file'], 'is a file: give a folder'),
    ([copied, tmp_path / 'file/card'], 'cannot be written'),
    ([copied, copied], 'is the working directory'),
    ([copied, copied / 'warmup/card'], 'which others read'),
    ([tmp_path / 'nowhere', output], 'there is no such folder'),
    ([copied / 'warmup', output], 'give its working directory'),
  ):  # fmt: skip
    before = files_in(tmp_path)
    assert export(*command) == 2, words
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and words in lines[0], lines
    assert files_in(tmp_path) == before and not output.exists()


def test_runs_that_are_not_whole_are_refused(copied, tmp_path, capsys):
  output = tmp_path / 'card'

  def refused(words: str) -> None:
    assert export(copied, output) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and words in lines[0], lines
    assert not output.exists()

  picture = next(copied.glob('evaluation/published/self_training_1/camera_test/pictures/*.png'))
  kept = picture.read_bytes()
  picture.write_bytes(kept[:100])
  refused(f'{picture.name}: is damaged')
  picture.write_bytes(kept)
  measured = picture.parents[1]
  passport_file = measured / 'passport.json'
  kept = passport_file.read_bytes()
  passport_file.unlink()
  refused('has no passport.json: run `evaluate` again')
  damaged = kept.replace(b'0.', b'1.', 1)
  passport_file.write_bytes(damaged)
  refused('passport.json: is damaged')
  passport_file.write_bytes(kept)
  other = copied / 'evaluation/published/warmup/camera_test'
  shutil.copytree(measured.parents[1], copied / 'evaluation/backup')
  refused('camera_test: is a copy of published/camera_test, or was renamed')
  shutil.rmtree(copied / 'evaluation/backup')
  shutil.rmtree(measured)
  shutil.copytree(other, measured)
  refused('camera_test: is of another network than its stage holds')
  shutil.rmtree(copied / 'evaluation')
  checkpoint = next((copied / 'self_training_1/checkpoints').rglob('default'))
  file = next(p for p in sorted(checkpoint.rglob('*')) if p.is_file() and p.stat().st_size > 100)
  flip(file)
  refused('damaged')
  (copied / 'self_training_1').rename(copied / 'self_training_1.partial')
  refused('self_training_1: the stage is not complete: run it first, or give the --stage: warmup')
  (copied / 'self_training_1.partial').rename(copied / 'self_training_1')
  record = records.read(copied / 'run.json', '')
  del record['starts'][-1]['config']['programs']
  records.write(copied / 'run.json', record)
  refused('run.json: holds a config of another version (config.programs is missing')
  (copied / 'run.json').unlink()
  refused('run.json: cannot be read')
