"""Labels for files: those of the evaluation, and nothing written where something is wrong."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from data_pipelines import atomic
from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder
from diga_jax.__main__ import main
from diga_jax.inference.evaluate import evaluate
from diga_jax.inference.forward import Predictor
from diga_jax.inference.image_paths import find_images
from diga_jax.inference.predict import predict_images
from diga_jax.inference.prediction_files import Outputs
from diga_jax.inference.pseudo_labels import predict_each
from diga_jax.report.pictures import overlay
from tests.support.stage_files import tiny_network, write_stage
from tests.support.tiny import Source, tiny

PALETTE = np.arange(12, dtype=np.uint8).reshape(4, 3) * 20


def pixels(path):
  with Image.open(path) as picture:
    return np.asarray(picture)


@pytest.fixture
def photographs(tmp_path):
  folder = tmp_path / 'in'
  folder.mkdir()
  for i, name in enumerate(('b.png', 'a.JPG', 'c.jpeg')):
    Image.fromarray(Source(3).read(i)[0]).save(folder / name)
  (folder / 'notes.txt').write_text('no image')
  return folder


def test_predict_writes_labels_and_pictures(photographs, tmp_path):
  out = tmp_path / 'out'
  predictor = Predictor(*tiny(), batch_size=2)
  outputs = Outputs(out, PALETTE, colour=True, overlay=True)
  found = predict_images(predictor, [photographs], outputs, progress=False)
  assert [p.name for p in found.files] == ['a.png', 'b.png', 'c.png']
  assert found[1:] == (0, {}, 0)
  kinds = ('.png', '_colour.png', '_overlay.png')
  written = {f'{name}{kind}' for name in 'abc' for kind in kinds}
  assert {p.name for p in out.iterdir()} == written | {'predict.jsonl'}
  image = Source(3).read(0)[0]
  expected = predictor.classes(jnp.asarray(image)[None], image.shape[:2])[0]
  assert (pixels(out / 'b.png') == np.asarray(expected)).all()
  labels = pixels(out / 'b.png')
  assert (pixels(out / 'b_colour.png') == PALETTE[labels]).all()
  assert (pixels(out / 'b_overlay.png') == overlay(image, labels, PALETTE)).all()


def test_what_is_left_out_of_a_folder_is_said(photographs, caplog):
  (photographs / 'dangling.png').symlink_to('nowhere')
  (photographs / 'sub').mkdir()
  assert [found.path.name for found in find_images([photographs])] == ['a.JPG', 'b.png', 'c.jpeg']
  assert 'left out, since no image files: dangling.png, notes.txt, sub' in caplog.text


def test_a_network_that_computes_no_numbers_is_refused(photographs, tmp_path):
  model, variables = tiny()
  huge = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e30), variables)  # each of them is finite
  predictor, source = Predictor(model, huge), Source(3)
  with pytest.raises(BadInput, match=r'a\.JPG: .* not finite'):
    predict_images(predictor, [photographs], Outputs(tmp_path / 'out', PALETTE), progress=False)
  assert not (tmp_path / 'out').exists() or not list((tmp_path / 'out').iterdir())
  with pytest.raises(BadInput, match='not finite'):
    evaluate(predictor, source, '0123', progress=False)
  options = {'order': range(3), 'size': None, 'resizing': 'bicubic', 'progress': False}
  with pytest.raises(BadInput, match='not finite'):
    next(predict_each(predictor, source, '', **options))


def test_predict_refuses_what_it_cannot_do(photographs, tmp_path):
  run = functools.partial(predict_images, Predictor(*tiny()), progress=False)
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'twin').mkdir()
  Image.new('RGB', (8, 8)).save(tmp_path / 'twin' / 'b.png')
  (tmp_path / 'torn.png').write_bytes((photographs / 'b.png').read_bytes()[:60])
  out = tmp_path / 'out'
  for paths, directory, words in (
    ([], out, 'no image'),
    ([tmp_path / 'empty'], out, 'no image'),
    ([tmp_path / 'nowhere'], out, 'nowhere: no such'),
    ([photographs, tmp_path / 'twin'], out, 'rename one'),
    ([photographs], photographs, 'overwrite'),
    ([tmp_path / 'torn.png'], out, 'torn.png'),
  ):
    with pytest.raises(BadInput, match=words) as caught:
      run(paths, Outputs(directory, PALETTE))
    assert '\n' not in str(caught.value)
  assert not list(out.rglob('*'))


@pytest.mark.parametrize('flip', [False, True])
def test_predict_writes_the_classes_of_the_evaluation(tmp_path, flip):
  source = Source(5, size=(27, 35))
  images = [tmp_path / f'{i}.png' for i in range(5)]
  for i, path in enumerate(images):
    Image.fromarray(source.read(i)[0]).save(path)
  predictor = Predictor(*tiny(), flip=flip, batch_size=2)
  labels = predict_images(predictor, images, Outputs(tmp_path / 'out', PALETTE), progress=False)
  for image, path in zip(images, labels.files, strict=True):
    classes = predictor.classes(jnp.asarray(pixels(image))[None], (27, 35))[0]
    atomic.write_png(tmp_path / 'expected.png', np.asarray(classes))
    assert path.read_bytes() == (tmp_path / 'expected.png').read_bytes()

  def agreement(predictor):
    """The evaluation's confusion matrix with what predict wrote as the truth."""
    folder = Folder(str(tmp_path / '{id}.png'), str(tmp_path / 'out' / '{id}.png'), ids='01234')
    confusion = np.array(evaluate(predictor, folder, '0123', progress=False)['confusion'])
    assert confusion.sum() == 5 * 27 * 35
    return np.trace(confusion) / confusion.sum()

  assert agreement(predictor) == 1
  assert agreement(dataclasses.replace(predictor, flip=not flip)) < 1


@pytest.mark.parametrize('flip', [False, True])
def test_the_command_follows_the_configs_evaluation(photographs, tmp_path, flip):
  model, variables = tiny_network()
  write_stage(variables, tmp_path)
  command = ['predict', '--config=tests/configs/tiny.py', f'--workdir={tmp_path}', '--stage=stage']
  command += [f'--config.evaluation.flip={flip}', '--config.evaluation.scales=(0.75,)']
  assert main([*command, f'--output={tmp_path / "out"}', str(photographs / 'b.png')]) == 0
  image = jnp.asarray(pixels(photographs / 'b.png'))[None]
  expected = [
    np.asarray(Predictor(model, variables, (0.75,), x).classes(image, (24, 32))[0])
    for x in (flip, not flip)
  ]
  np.testing.assert_array_equal(pixels(tmp_path / 'out' / 'b.png'), expected[0])
  assert (expected[0] != expected[1]).any()


def test_nothing_is_written_beside_the_images(photographs, tmp_path):
  run = functools.partial(predict_images, Predictor(*tiny()), progress=False)
  (tmp_path / 'link').symlink_to(photographs)
  (tmp_path / 'others').mkdir()
  (tmp_path / 'others' / 'd.png').symlink_to(photographs / 'b.png')
  before = {path: path.read_bytes() for path in photographs.iterdir()}
  for paths, directory in (
    ([photographs / 'a.JPG'], photographs),
    ([photographs / 'a.JPG'], tmp_path / 'link'),
    ([tmp_path / 'link' / 'b.png'], photographs),
    ([tmp_path / 'others'], photographs),
    ([tmp_path / 'others'], tmp_path / 'others'),
  ):
    with pytest.raises(BadInput, match=r'might overwrite images, .* use another --output'):
      run(paths, Outputs(directory, PALETTE))
  assert {path: path.read_bytes() for path in photographs.iterdir()} == before


def test_nothing_is_written_into_a_stage(photographs, tmp_path, capsys):
  stage = write_stage(tiny_network()[1], tmp_path)
  command = ['predict', '--config=tests/configs/tiny.py', f'--workdir={tmp_path}', '--stage=stage']
  for place in (stage, stage / 'labels', stage / 'a' / '..' / 'labels'):
    assert main([*command, f'--output={place}', str(photographs)]) == 2
    assert 'which others read: give another --output' in capsys.readouterr().err
  export = ['weights', 'export', str(stage), f'--output={stage / "stage.npz"}']
  assert main(export) == 2 and 'which others read' in capsys.readouterr().err
  assert sorted(path.name for path in stage.iterdir()) == ['checkpoints', 'stage.json']
