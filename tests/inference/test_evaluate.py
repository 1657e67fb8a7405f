"""The evaluation counts every pixel once, whatever the batches, and keeps little in memory."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import BadInput
from diga_jax import metrics, pixels, resize
from diga_jax.inference import evaluate, forward, image_batches
from diga_jax.inference.forward import Predictor
from diga_jax.metrics import Means
from diga_jax.report.pictures import read_panels
from tests.support.tiny import Source, tiny


def _evaluate(
  source, names='0123', means=None, protocol=None, size=None, pictures=None, each=None, **more
):
  return evaluate.evaluate(
    Predictor(*tiny(), **more),
    source,
    names,
    means=means,
    protocol=protocol,
    size=size,
    pictures=pictures,
    each=each,
    progress=False,
  )


def _by_hand(source, scales=(1.0, 0.5), flip=False):
  """Confusion matrix of the plain definition, one image at a time."""
  model, variables = tiny()
  total = np.zeros((4, 4), np.int64)
  for i in range(len(source)):
    image, label = source.read(i)
    x = pixels.normalise(jnp.asarray(image)[None])
    views = [
      resize.align_corners(x, (math.floor(x.shape[1] * s), math.floor(x.shape[2] * s)))
      for s in scales
    ]
    maps = [resize.align_corners(model.apply(variables, v)['logits'], label.shape) for v in views]
    if flip:
      maps += [
        resize.align_corners(model.apply(variables, v[:, :, ::-1])['logits'], label.shape)[
          :, :, ::-1
        ]
        for v in views
      ]
    prediction = np.asarray(jnp.argmax(jnp.max(jnp.stack(maps), 0), -1)[0])
    total += metrics.confusion_matrix(prediction, label.astype(np.int64), 4)
  return total


@pytest.mark.parametrize(
  'scales, flip',
  [((1.0, 0.5), False), ((1.0,), False), ((0.5, 0.75, 1.5), False), ((1.0, 0.5), True)],
)
def test_equals_the_definition(scales, flip):
  source = Source(5, size=(27, 35))  # halves that floor and round differently
  found = _evaluate(source, scales=scales, flip=flip)
  assert (np.array(found['confusion']) == _by_hand(source, scales, flip)).all()
  assert found['protocol']['scales'] == list(scales) and found['protocol']['flip'] is flip


def test_scales_and_flip_matter():
  source = Source(5)
  found = [_evaluate(source, **o)['confusion'] for o in ({}, {'scales': (1.0,)}, {'flip': True})]
  assert found[0] != found[1] and found[0] != found[2]


@pytest.mark.parametrize('sizes', [(), ((24, 32), (24, 32), (28, 20))])
def test_batch_size_changes_nothing(sizes):
  one, three = (_evaluate(Source(7, sizes=sizes), batch_size=b) for b in (1, 3))
  assert one == three
  assert one['images'] == 7
  labels = [Source(7, sizes=sizes).read(i)[1] for i in range(7)]
  assert one['pixels'] == sum(int((label != 255).sum()) for label in labels)


def test_every_image_has_its_own_counts():
  source, found = Source(7, sizes=((24, 32), (24, 32), (28, 20))), {}
  whole = _evaluate(source, batch_size=3, each=found.__setitem__)
  assert sorted(found) == sorted(source.ids)
  assert np.sum(list(found.values()), axis=0).tolist() == whole['confusion']
  alone = Source(7, sizes=((24, 32), (24, 32), (28, 20)))
  for index, name in enumerate(source.ids):
    assert found[name].sum() == (alone.read(index)[1] != 255).sum()


def test_one_program_per_size():
  before = forward.multi_scale._cache_size()
  _evaluate(Source(7, size=(16, 20)), batch_size=3)
  assert forward.multi_scale._cache_size() == before + 1
  _evaluate(Source(4, size=(16, 20)), batch_size=3)
  assert forward.multi_scale._cache_size() == before + 1


def test_memory_does_not_grow_with_the_images():
  alive = []

  def place(array):
    alive.append(len(jax.live_arrays()))
    return jnp.asarray(array)

  _evaluate(Source(200, size=(8, 8)), place=place)
  assert len(alive) == 400
  assert max(alive[200:]) <= max(alive[:10])


def test_reads_only_a_few_images_ahead():
  read = []

  class Counted(Source):
    def read(self, index):
      read.append(index)
      return super().read(index)

  batches = image_batches.batches(Counted(50), batch_size=2)
  next(batches)
  batches.close()
  assert len(read) <= 2 + 2 * image_batches.READERS + 1


def test_labels_may_have_another_size_than_images():
  class Halved(Source):
    def read(self, index):
      image, label = super().read(index)
      return image_batches.resize_to(image, (12, 16)), label

  source = Source(3, size=(24, 32))
  found = _evaluate(Halved(3, size=(24, 32)))
  assert found['protocol']['image_size'] == [12, 16]
  assert found['protocol']['label_size'] == [24, 32]
  assert found['pixels'] == sum(int((source.read(i)[1] != 255).sum()) for i in range(3))
  both = _evaluate(source, size=(12, 16))
  assert both['protocol']['image_size'] == both['protocol']['label_size'] == [12, 16]
  assert both['pixels'] < found['pixels']


def test_result_has_names_subsets_and_the_callers_protocol():
  found = _evaluate(
    Source(3),
    names=('a', 'b', 'c', 'd'),
    means=Means({'2': (0, 2)}),
    protocol={'step': 7, 'chosen_by': 'last', 'scales': 'a lie'},
  )
  iou = metrics.iou(np.array(found['confusion']))
  assert found['iou'] == dict(zip('abcd', iou.tolist(), strict=True))
  assert found['mean_iou_subsets'] == {'2': pytest.approx(iou[[0, 2]].mean())}
  assert found['mean_iou'] == pytest.approx(iou.mean())
  assert found['protocol'] == {
    'step': 7,
    'chosen_by': 'last',
    'scales': [1.0, 0.5],
    'fusion': 'max',
    'flip': False,
    'image_size': [24, 32],
    'label_size': [24, 32],
    'images': 3,
  }


def test_classes_are_the_argmax_of_the_logits():
  predictor = Predictor(*tiny())
  image = jnp.asarray(Source(1).read(0)[0])[None]
  logits = predictor.logits(image, (30, 40))
  assert logits.shape == (1, 30, 40, 4) and logits.dtype == jnp.float32
  prediction = predictor.classes(image, (30, 40))
  assert prediction.dtype == jnp.uint8 and (prediction == jnp.argmax(logits, -1)).all()


def test_pictures_are_written_for_the_images_asked_for(tmp_path):
  palette = np.arange(12, dtype=np.uint8).reshape(4, 3) * 20
  _evaluate(Source(5), pictures=evaluate.Pictures(tmp_path, palette, count=3), batch_size=2)
  found = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob('*.*'))
  assert found == ['city/000.png', 'city/002.png', 'city/004.png']
  with Image.open(tmp_path / found[0]) as picture:
    assert picture.width > 3 * 256


def test_shows_a_line_per_pass_in_a_log(capfd):
  evaluate.evaluate(Predictor(*tiny()), Source(20), '0123')
  lines = capfd.readouterr().err.strip().splitlines()
  assert 1 <= len(lines) <= 3 and sum(line.startswith('compiling evaluate') for line in lines) <= 1
  assert 'evaluate' in lines[-1] and '20/20' in lines[-1] and 'images/s' in lines[-1]
  _evaluate(Source(2))
  assert capfd.readouterr().err == ''


@pytest.mark.parametrize(
  'source, options, words',
  [
    (Source(0), {}, 'no image'),
    (Source(2, labelled=False), {}, 'city/000: labels are needed'),
    (Source(2, classes=9), {}, 'label .* 4 classes'),
    (Source(2), {'scales': ()}, 'scales'),
    (Source(2), {'scales': (1.0, 0.0)}, 'scales'),
  ],
)
def test_mistakes_are_one_clear_line(source, options, words):
  with pytest.raises(BadInput, match=words) as caught:
    _evaluate(source, **options)
  assert '\n' not in str(caught.value)


def test_an_error_while_reading_ahead_comes_through():
  class Broken(Source):
    def read(self, index):
      if index == 3:
        raise BadInput('003.png: cut short')
      return super().read(index)

  with pytest.raises(BadInput, match='003'):
    _evaluate(Broken(6))


def test_runs_sharded_over_devices():
  mesh = jax.make_mesh(
    (2,), ('data',), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2]
  )
  sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  found = _evaluate(Source(5), batch_size=2, place=lambda x: jax.device_put(x, sharding))
  assert found['confusion'] == _evaluate(Source(5))['confusion']


@pytest.mark.parametrize('labelled', [True, False])
@pytest.mark.parametrize('batch_size', [1, 3])
def test_pictures_are_drawn_of_what_the_network_predicts(tmp_path, labelled, batch_size):
  source, palette = Source(5, labelled=labelled), np.arange(12).reshape(4, 3).astype(np.uint8)
  predictor = Predictor(*tiny(), batch_size=batch_size)
  drawn = evaluate.Pictures(tmp_path, palette, count=2)
  evaluate.draw(predictor, source, '0123', drawn)
  paths = sorted(tmp_path.rglob('*.png'))
  assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
    'city/000.png', 'city/004.png',
  ]  # fmt: skip
  found = read_panels(paths[1])
  assert ('truth' in found.images) == labelled
  image, _ = source.read(4)
  wanted = predictor.classes(jnp.asarray(image[None]), image.shape[:2])[0]
  panel = np.asarray(found.images['prediction'])
  factor = panel.shape[0] // image.shape[0]
  assert (panel[::factor, ::factor] == palette[np.asarray(wanted)]).all()
