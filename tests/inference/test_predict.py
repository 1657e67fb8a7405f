"""Labels for files: those of the evaluation, and nothing written where something is wrong."""

import dataclasses
import functools
import json
import pathlib
import struct
import tracemalloc
import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import ExifTags, Image

from data_pipelines import atomic, video_files
from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder
from diga_jax import weights
from diga_jax.__main__ import main
from diga_jax.inference import shapes
from diga_jax.inference.evaluate import evaluate
from diga_jax.inference.forward import Predictor, multi_scale
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


def label(directory, *paths, **options):
  """What predict_images makes of files, with few words."""
  what = {
    key: options.pop(key)
    for key in ('colour', 'overlay', 'probabilities', 'format')
    if key in options
  }
  network = options.pop('network', None) or Predictor(*tiny())
  return predict_images(
    network, paths, Outputs(directory, PALETTE, **what), progress=False, **options
  )


def save(path, size=(24, 32), index=0):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(Source(1, size=size).read(index)[0]).save(path)
  return path


def names(directory):
  found = (
    path.relative_to(directory).as_posix() for path in directory.rglob('*') if path.is_file()
  )
  return sorted(name for name in found if name != 'predict.jsonl')


def test_fifty_sizes_are_computed_by_four_programs(tmp_path):
  rng = np.random.default_rng(0)
  sizes = [(int(h), int(w)) for h, w in rng.integers(20, 60, (49, 2))] + [(130, 130)]
  for i, size in enumerate(sizes):
    save(tmp_path / 'in' / f'{i}.png', size, i)
  before = multi_scale._cache_size()
  found = label(
    tmp_path / 'out', tmp_path / 'in', window=64, network=Predictor(*tiny(), batch_size=3)
  )
  assert multi_scale._cache_size() - before == 4
  assert len(found.files) == 50
  for i, size in enumerate(sizes):
    assert pixels(tmp_path / 'out' / f'{i}.png').shape == size
  lines = (tmp_path / 'out' / 'predict.jsonl').read_text().splitlines()
  used = {json.loads(line)['shape'] for line in lines[1:]}
  assert len(used) == 4 and 'windows' in used


def test_with_a_program_for_each_size_all_are_computed_as_in_the_evaluation(tmp_path):
  predictor = Predictor(*tiny(), batch_size=2)
  images = [save(tmp_path / f'{i}.png', (20 + i, 30 - i), i) for i in range(6)]
  sizes = [(20 + i, 30 - i) for i in range(6)]
  for programs in (0, 2):
    planned = shapes.plan(sizes, programs)
    found = label(tmp_path / f'out{programs}', *images, programs=programs, network=predictor)
    for image, path, size in zip(images, found.files, sizes, strict=True):
      shape = planned[size]
      assert programs or shape == size
      padded = jnp.asarray(shapes.pad_to(pixels(image), shape))[None]
      expected = shapes.crop(np.asarray(predictor.classes(padded, shape))[0], size)
      assert (pixels(path) == expected).all()


def test_windows_are_put_together(tmp_path):
  """By a network whose every output sees one pixel, windows change nothing."""
  model, variables = tiny()
  image = save(tmp_path / 'a.png', (90, 150))

  class Pointwise(nn.Module):
    classes: int = 4

    @nn.compact
    def __call__(self, images, train=False, keys=None):
      return {'logits': nn.Dense(self.classes)(images), 'feature': images}

  model = Pointwise()
  variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
  predictor = Predictor(model, variables, scales=(1.0,), batch_size=3)
  found = label(tmp_path / 'out', image, window=32, network=predictor, probabilities=True)
  labels, likely = predictor.probabilities(jnp.asarray(pixels(image))[None], (90, 150))
  assert (pixels(found.files[0]) == labels[0]).all()
  with np.load(tmp_path / 'out' / 'a_probabilities.npz') as arrays:
    np.testing.assert_allclose(arrays['probabilities'], likely[0], atol=1e-3)


def test_a_bad_file_is_left_out_and_the_rest_is_written(photographs, tmp_path):
  data = (photographs / 'b.png').read_bytes()
  (photographs / 'head.png').write_bytes(b'no image at all')
  (photographs / 'cut.png').write_bytes(data[: len(data) // 2])
  (photographs / 'empty.png').write_bytes(b'')
  found = label(tmp_path / 'out', photographs, network=Predictor(*tiny(), batch_size=2))
  assert names(tmp_path / 'out') == ['a.png', 'b.png', 'c.png']
  bad = {photographs / name for name in ('cut.png', 'empty.png', 'head.png')}
  assert {pathlib.Path(path) for path in found.failures} == bad
  assert all(
    reason.startswith(path) and '\n' not in reason for path, reason in found.failures.items()
  )
  expected = Predictor(*tiny()).classes(jnp.asarray(pixels(photographs / 'b.png'))[None], (24, 32))
  assert (pixels(tmp_path / 'out' / 'b.png') == np.asarray(expected)[0]).all()
  with pytest.raises(BadInput, match=r'/in/\w+\.png: .* \(and 1 more cannot be read\)'):
    label(tmp_path / 'none', *sorted(bad)[:2])
  assert not (tmp_path / 'none').exists()


def test_what_is_there_is_kept(photographs, tmp_path):
  out = tmp_path / 'out'
  label(out, photographs / 'b.png')
  (out / 'b.png').write_bytes(b'left alone')
  found = label(out, photographs)
  assert found.kept == 1 and len(found.files) == 3
  assert (out / 'b.png').read_bytes() == b'left alone'
  save(photographs / 'b.png', (20, 20))  # another image of the same name
  (out / 'c.png').unlink()
  assert label(out, photographs).kept == 1
  assert pixels(out / 'b.png').shape == (20, 20) and (out / 'c.png').exists()
  assert label(out, photographs, overlay=True).kept == 0
  assert label(out, photographs).kept == 3


def test_a_killed_process_leaves_nothing_that_is_taken_for_done(photographs, tmp_path):
  out = tmp_path / 'out'
  label(out, photographs)
  with (out / 'predict.jsonl').open('a') as file:
    file.write('{"image": "/ha')  # half a line
  (out / '.b.png.0123.tmp').write_bytes(b'')
  (out / 'a.png').unlink()
  assert label(out, photographs).kept == 2
  assert label(out, photographs).kept == 3


def test_labels_of_another_network_are_replaced_on_demand_only(photographs, tmp_path):
  out, other = tmp_path / 'out', Predictor(*tiny(seed=1))
  label(out, photographs)
  before = {path.name: path.read_bytes() for path in out.iterdir()}
  for options, words in (
    ({'network': other}, 'network'),
    ({'network': Predictor(*tiny(), flip=True)}, 'flip False there, True now'),
    ({'programs': 3}, 'programs 4 there, 3 now'),
    ({'format': 'npy'}, 'format png there, npy now'),
  ):
    with pytest.raises(BadInput, match=f'{words}.*--overwrite'):
      label(out, photographs, **options)
  assert {path.name: path.read_bytes() for path in out.iterdir()} == before
  found = label(out, photographs / 'b.png', network=other, overwrite=True)
  assert (found.kept, found.others) == (0, 2)
  assert (out / 'b.png').read_bytes() != before['b.png']
  with pytest.raises(BadInput, match='--overwrite'):  # a.png and c.png are of the first one
    label(out, photographs, network=other)
  assert label(out, photographs, network=other, overwrite=True).kept == 1
  assert label(out, photographs, network=other).kept == 3


def test_what_others_made_is_not_replaced(photographs, tmp_path):
  out = tmp_path / 'out'
  out.mkdir()
  (out / 'b.png').write_bytes(b'by hand')
  with pytest.raises(BadInput, match=r'b\.png: predict\.jsonl does not say .*--overwrite'):
    label(out, photographs)
  assert [path.name for path in out.iterdir()] == ['b.png']
  assert len(label(out, photographs, overwrite=True).files) == 3
  save(tmp_path / 'twin' / 'b.png')
  with pytest.raises(BadInput, match=r'b\.png: was made of .*in/b\.png; .*twin/b\.png'):
    label(out, tmp_path / 'twin')
  (out / 'predict.jsonl').write_text('no record\n')
  with pytest.raises(BadInput, match='is damaged'):
    label(out, photographs)


def test_folders_in_folders_and_patterns(tmp_path, caplog):
  for name in ('a.png', 'x/a.png', 'x/y/b.jpg', '.hidden/c.png', '[1].png'):
    save(tmp_path / 'in' / name)
  out = tmp_path / 'in' / 'out'  # in the folder itself: never an input
  for _ in range(2):
    found = label(out, tmp_path / 'in', recursive=True)
    assert names(out) == ['[1].png', 'a.png', 'x/a.png', 'x/y/b.png']
  assert found.kept == 4
  out = tmp_path / 'out'
  label(out, f'{tmp_path}/in/**/*.jpg', f'{tmp_path}/in/x/*.png', tmp_path / 'in' / '[1].png')
  assert names(out) == ['[1].png', 'a.png', 'x/y/b.png']
  assert (
    len(label(tmp_path / 'twice', tmp_path / 'in' / 'a.png', tmp_path / 'in' / 'a.png').files) == 1
  )
  for path, words in (
    (f'{tmp_path}/in/*.bmp', 'no file matches'),
    (tmp_path / 'in' / '.hidden' / 'none.png', 'no such image'),
  ):
    with pytest.raises(BadInput, match=words):
      label(tmp_path / 'none', path)
  with pytest.raises(BadInput, match=r'no image found .*--recursive'):
    (tmp_path / 'deep' / 'in').mkdir(parents=True)
    label(tmp_path / 'none', tmp_path / 'deep')


@pytest.mark.parametrize('kind, ending', [('png', 'png'), ('palette', 'png'), ('tiff', 'tif')])
def test_every_format_holds_the_train_ids(photographs, tmp_path, kind, ending):
  label(tmp_path / 'exact', photographs / 'b.png')
  label(tmp_path / 'out', photographs / 'b.png', format=kind)
  with Image.open(tmp_path / 'out' / f'b.{ending}') as picture:
    assert (np.asarray(picture) == pixels(tmp_path / 'exact' / 'b.png')).all()
    if kind == 'palette':
      expected = PALETTE[pixels(tmp_path / 'exact' / 'b.png')]
      assert (np.asarray(picture.convert('RGB')) == expected).all()


def test_labels_as_arrays(photographs, tmp_path):
  label(tmp_path / 'exact', photographs / 'b.png')
  label(tmp_path / 'out', photographs / 'b.png', format='npy')
  assert (np.load(tmp_path / 'out' / 'b.npy') == pixels(tmp_path / 'exact' / 'b.png')).all()


def test_probabilities_are_those_that_labels_are_the_largest_of(photographs, tmp_path, capsys):
  label(tmp_path / 'out', photographs, probabilities=True)
  assert 'probabilities take 0.00 GB' in capsys.readouterr().out
  for name in 'abc':
    with np.load(tmp_path / 'out' / f'{name}_probabilities.npz') as arrays:
      likely = arrays['probabilities']
    assert likely.dtype == np.float16 and likely.shape == (24, 32, 4)
    np.testing.assert_allclose(likely.astype(np.float64).sum(-1), 1, atol=4e-3)
    labels = pixels(tmp_path / 'out' / f'{name}.png')
    assert (np.take_along_axis(likely, labels[..., None], -1)[..., 0] == likely.max(-1)).all()


def test_probabilities_that_take_too_much_are_refused_before_anything_is_read(tmp_path):
  image = tmp_path / 'large.png'
  Image.new('L', (5000, 4000)).save(image)
  with pytest.raises(BadInput, match=r'large\.png: 66 prob.* 4000x5000 .*2\.64 GB, at most 1\.07'):
    label(tmp_path / 'out', image, network=Predictor(*tiny(classes=66)), probabilities=True)
  assert not (tmp_path / 'out').exists()


def film(path, count=5, size=(24, 32)):
  with video_files.writing(path) as writer:
    for i in range(count):
      writer.add(i / 10, Source(1, size=size).read(i)[0])
  return path


def test_a_video_gives_labels_of_frames_and_a_video(tmp_path):
  movie, predictor = film(tmp_path / 'clip.mp4'), Predictor(*tiny(), batch_size=2)
  options = {'network': predictor, 'overlay': True, 'probabilities': True}
  found = label(tmp_path / 'out', movie, **options)
  assert found.files == [tmp_path / 'out' / 'clip']
  frames = [f'clip/{i:06d}{kind}' for i in range(5) for kind in ('.png', '_probabilities.npz')]
  assert names(tmp_path / 'out') == [*frames, 'clip_overlay.mp4']
  for i, (_, image) in enumerate(video_files.frames(movie)):
    labels = predictor.classes(jnp.asarray(image)[None], (24, 32))[0]
    assert (pixels(tmp_path / 'out' / f'clip/{i:06d}.png') == labels).all()
  drawn = list(video_files.frames(tmp_path / 'out' / 'clip_overlay.mp4'))
  assert [round(seconds, 3) for seconds, _ in drawn] == [0, 0.1, 0.2, 0.3, 0.4]
  assert label(tmp_path / 'out', movie, **options).kept == 1
  assert label(tmp_path / 'out', movie, overlay=True, network=predictor).kept == 1


def test_a_bad_video_leaves_nothing(photographs, tmp_path):
  (tmp_path / 'no.mp4').write_bytes(b'no video')
  whole = film(tmp_path / 'whole.mp4', 40).read_bytes()
  (tmp_path / 'cut.mp4').write_bytes(whole[: len(whole) // 2])
  videos = [tmp_path / 'no.mp4', tmp_path / 'cut.mp4']
  found = label(tmp_path / 'out', *videos, photographs / 'b.png', overlay=True)
  assert names(tmp_path / 'out') == ['b.png', 'b_overlay.png']
  assert [p.name for p in (tmp_path / 'out').iterdir() if p.is_dir()] == []
  assert sorted(found.failures) == sorted(map(str, videos))


def test_a_video_and_images_do_not_share_a_folder(tmp_path):
  film(tmp_path / 'in' / 'clip.mp4')
  save(tmp_path / 'in' / 'clip' / 'a.png')
  patterns = [tmp_path / 'in' / '*.mp4', tmp_path / 'in' / '*' / '*.png']
  for paths in (patterns, patterns[::-1]):
    with pytest.raises(BadInput, match='rename one'):
      label(tmp_path / 'out', *paths)
  assert not (tmp_path / 'out').exists()


def test_a_folder_in_the_place_of_a_video_is_left_alone(tmp_path):
  movie = film(tmp_path / 'clip.mp4')
  save(tmp_path / 'out' / 'clip' / 'mine.png')
  for overwrite in (False, True):
    with pytest.raises(BadInput, match='a folder of something else'):
      label(tmp_path / 'out', movie, overwrite=overwrite)
  assert names(tmp_path / 'out') == ['clip/mine.png']


def command(*arguments):
  return ['predict', '--config=tests/configs/tiny.py', *map(str, arguments)]


def test_a_file_of_weights_needs_no_stage(photographs, tmp_path, capsys):
  model, variables = tiny_network()
  stage = write_stage(variables, tmp_path / 'run')
  weights.save(tmp_path / 'net.npz', weights.state_dict_of(variables))
  out = f'--output={tmp_path / "out"}'
  assert main(command(f'--weights={tmp_path / "net.npz"}', out, photographs)) == 0
  assert capsys.readouterr().out == f'{tmp_path / "out"}: 3 files labelled\n'
  image = pixels(photographs / 'b.png')
  expected = Predictor(model, variables).classes(jnp.asarray(image)[None], (24, 32))[0]
  assert (pixels(tmp_path / 'out' / 'b.png') == expected).all()
  # The same network in another place is the same network.
  run = (f'--workdir={stage.parent}', '--stage=stage')
  assert main(command(*run, out, photographs)) == 0
  assert 'out: 3 files labelled, 3 of them before' in capsys.readouterr().out
  for wrong in (
    (*run, f'--weights={tmp_path / "net.npz"}'),
    (f'--weights={tmp_path / "net.npz"}', run[0]),
    (run[1],),
    (f'--weights={tmp_path / "none.npz"}',),
  ):
    try:
      assert main(command(*wrong, f'--output={tmp_path / "no"}', photographs)) == 2
    except SystemExit as error:
      assert error.code == 2
    *above, last = capsys.readouterr().err.splitlines()
    assert last.startswith('diga_jax: ') and len(above) <= 1  # the devices
  assert not (tmp_path / 'no').exists()


def test_the_command_says_what_it_left_out(photographs, tmp_path, capsys):
  write_stage(tiny_network()[1], tmp_path)
  (photographs / 'bad.png').write_bytes(b'no image')
  out = f'--output={tmp_path / "out"}'
  status = main(command(f'--workdir={tmp_path}', '--stage=stage', out, photographs))
  said = capsys.readouterr()
  assert status == 1
  assert said.out == f'{tmp_path / "out"}: 3 files labelled, 1 left out\n'
  assert f'left out: {photographs / "bad.png"}: cannot be decoded' in said.err


def test_memory_does_not_grow_with_the_image(tmp_path):
  """Beside the image and what is written of it, a byte a pixel: no array of floats."""
  peaks = []
  for side in (600, 1800):
    image = save(tmp_path / f'{side}.png', (side, side))
    label(tmp_path / 'warm', image, window=128, overlay=True)
    tracemalloc.start()
    label(tmp_path / f'out{side}', image, window=128, overlay=True)
    peaks.append(tracemalloc.get_traced_memory()[1] / side**2)
    tracemalloc.stop()
  assert peaks[1] < 16  # bytes a pixel: image, labels, overlay, and the copy that is compressed


def test_an_image_of_another_size_than_its_head_says_is_labelled_all_the_same(tmp_path):
  """Its orientation comes after its pixels, where only reading all of it finds it."""
  plain = save(tmp_path / 'plain.png')
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = 6
  content = exif.tobytes().removeprefix(b'Exif\0\0')
  body = b'eXIf' + content
  chunk = struct.pack('>I', len(content)) + body + struct.pack('>I', zlib.crc32(body))
  data = plain.read_bytes()
  (tmp_path / 'turned.png').write_bytes(data[:-12] + chunk + data[-12:])
  found = label(tmp_path / 'out', plain, tmp_path / 'turned.png', overlay=True, window=64)
  assert len(found.files) == 2 and not found.failures
  assert pixels(tmp_path / 'out' / 'plain.png').shape == (24, 32)
  assert pixels(tmp_path / 'out' / 'turned.png').shape == (32, 24)
  assert pixels(tmp_path / 'out' / 'turned_overlay.png').shape == (32, 24, 3)
