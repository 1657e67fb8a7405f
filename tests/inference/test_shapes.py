"""Which shapes images are computed in, what padding does to them, and what windows cover."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import BadInput
from diga_jax.inference import shapes
from diga_jax.inference.evaluate import evaluate
from diga_jax.inference.forward import Predictor, multi_scale
from diga_jax.inference.image_batches import batches
from diga_jax.inference.label_images import label_each
from tests.support.tiny import Source, tiny

SIZES = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(0, 6), st.sampled_from([16, 64, 128]))
def test_a_plan_has_few_shapes_that_hold_their_images(sizes, programs, window):
  found = shapes.plan(sizes, programs, window)
  assert found.keys() == set(sizes)
  whole = {shape for shape in found.values() if shape is not None}
  if programs:
    assert len(whole) + (None in found.values()) <= programs
  for (height, width), shape in found.items():
    large = height * width > 4 * window**2
    assert not (large and shape is not None)
    if shape is not None:
      assert shape[0] >= height and shape[1] >= width and shape[0] * shape[1] <= 4 * window**2
    if not programs:
      assert shape == (None if large else (height, width))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 99), st.integers(1, 99)), min_size=1, max_size=4))
def test_few_sizes_are_all_computed_as_they_are(sizes):
  assert shapes.plan(sizes) == {size: size for size in sizes}


def test_a_common_size_keeps_its_shape():
  rng = np.random.default_rng(0)
  others = [(int(h), int(w)) for h, w in rng.integers(100, 400, (60, 2))]
  found = shapes.plan([(256, 320)] * 1000 + others, 4)
  assert found[256, 320] == (256, 320)
  assert len(set(found.values())) == 4


def test_thousands_of_sizes_are_planned():
  rng = np.random.default_rng(0)
  sizes = [(int(h), int(w)) for h, w in rng.integers(300, 1500, (5000, 2))]
  found = shapes.plan(sizes)
  assert len(set(found.values())) == 4
  padded = sum(found[size][0] * found[size][1] for size in sizes if found[size])
  assert padded < 2 * sum(height * width for height, width in sizes)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from([8, 32, 100]))
def test_windows_cover_each_pixel_once(height, width, window):
  image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
  made, times = np.zeros_like(image), np.zeros((height, width), int)
  for cut in shapes.cuts((height, width), window):
    part = image[cut.top : cut.top + window, cut.left : cut.left + window]
    assert part.shape == (min(window, height), min(window, width), 3)
    rows = slice(cut.rows.start - cut.top, cut.rows.stop - cut.top)
    columns = slice(cut.columns.start - cut.left, cut.columns.stop - cut.left)
    made[cut.rows, cut.columns] = part[rows, columns]
    times[cut.rows, cut.columns] += 1
    # An eighth of the window lies around what is taken, except at the image's own borders.
    margin = window // 8 - 1
    assert cut.top == 0 or rows.start >= margin
    assert cut.top + window >= height or window - rows.stop >= margin
  assert (times == 1).all() and (made == image).all()


@settings(max_examples=60, deadline=None)
@given(*[st.integers(1, 40)] * 4)
def test_padding_surrounds_an_image_by_its_mirror_image(height, width, more_rows, more_columns):
  image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
  padded = shapes.pad_to(image, (height + more_rows, width + more_columns))
  assert padded.shape == (height + more_rows, width + more_columns, 3)
  assert (shapes.crop(padded, (height, width)) == image).all()
  above, left = more_rows // 2, more_columns // 2
  if 0 < above < height and 0 < left < width:
    inner = image[1 : above + 1, 1 : left + 1]
    assert (padded[:above, :left] == inner[::-1, ::-1]).all()
  assert shapes.pad_to(image, (height, width)) is image


def test_an_evaluation_of_padded_images_counts_the_same_pixels():
  source = Source(6, sizes=((24, 32), (28, 20), (20, 28)))
  predictor = Predictor(*tiny())
  planned = shapes.plan([source.read(i)[0].shape[:2] for i in range(6)], 1)
  assert set(planned.values()) == {(28, 32)}
  before = multi_scale._cache_size()
  found = evaluate(predictor, source, '0123', planned=planned, progress=False)
  assert multi_scale._cache_size() - before == 1
  exact = evaluate(predictor, source, '0123', progress=False)
  assert np.sum(found['confusion'], 1).tolist() == np.sum(exact['confusion'], 1).tolist()
  own = {size: size for size in planned}
  alike = evaluate(predictor, source, '0123', planned=own, progress=False)
  assert alike['confusion'] == exact['confusion']
  assert found['protocol']['image_size'] == found['protocol']['label_size'] == 'various'


def test_labels_of_another_size_are_not_padded():
  class Half(Source):
    def read(self, index):
      image, label = super().read(index)
      return image, label[::2, ::2]

  with pytest.raises(BadInput, match='differ in size'):
    list(batches(Half(1), planned={}))


def test_an_evaluation_by_windows_counts_what_prediction_by_windows_labels():
  """A batch of two, of which one is cut: what is counted are the labels that `predict` writes."""
  source = Source(3, sizes=((24, 32), (1030, 60), (24, 32)))
  predictor, by_image = Predictor(*tiny(), batch_size=2), {}
  planned = {(24, 32): (24, 32), (1030, 60): None}
  options = {'planned': planned, 'each': by_image.__setitem__, 'progress': False}
  evaluate(predictor, source, '0123', **options)
  for index, name in enumerate(source.ids):
    image, label = source.read(index)
    ((_, labelled),) = label_each(predictor, [image], planned[image.shape[:2]])
    known = label != 255
    cells = 4 * label[known].astype(int) + labelled.classes[known]
    assert (by_image[name] == np.bincount(cells, minlength=16).reshape(4, 4)).all()


def test_batches_of_padded_images_know_their_own_sizes():
  source = Source(4, sizes=((24, 32), (20, 32), (8, 8)))
  planned = {(24, 32): (24, 32), (20, 32): (24, 32), (8, 8): None}
  found = list(batches(source, batch_size=2, planned=planned))
  assert [batch.stored_sizes for batch in found] == [[(24, 32), (20, 32)], [(8, 8)], [(24, 32)]]
  assert [batch.images.shape[:3] for batch in found] == [(2, 24, 32), (1, 1024, 1024), (2, 24, 32)]
  image, label = source.read(1)
  assert (found[0].own(1, found[0].images[1]) == image).all()
  assert found[0].labels is not None and (found[0].own(1, found[0].labels[1]) == label).all()
  assert (found[0].labels[1] == 255).sum() == (label == 255).sum() + 4 * 32
