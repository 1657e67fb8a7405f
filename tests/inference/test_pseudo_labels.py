"""The label pass: files, centroids and selectors, against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import BadInput
from diga_jax import centroids as centroid_math
from diga_jax import resize, selection
from diga_jax.configs.stages import label_stage
from diga_jax.inference import forward, image_batches, shapes
from diga_jax.inference.feature_centroids import image_means, running_mean
from diga_jax.inference.forward import Predictor, classes_of
from diga_jax.inference.label_images import label_each
from diga_jax.inference.pseudo_labels import most_confident, pseudo_labels
from diga_jax.pixels import normalise
from tests.support.tiny import Source, Tiny, tiny


def _pixels(path):
  with Image.open(path) as picture:
    return np.asarray(picture)


@pytest.mark.parametrize('batch_size', [1, 3])
def test_pseudo_labels_are_the_predictions_of_the_evaluation(tmp_path, batch_size):
  predictor = Predictor(*tiny(), batch_size=batch_size)
  source = Source(4, sizes=((24, 32), (24, 32), (28, 20)))
  found_labels = pseudo_labels(predictor, source, tmp_path, 4, progress=False)
  counted = np.zeros(4, np.int64)
  for i, name in enumerate(source.ids):
    image = source.read(i)[0]
    expected = predictor.classes(jnp.asarray(image)[None], image.shape[:2])[0]
    found = _pixels(tmp_path / f'{name}.png')
    assert found.dtype == np.uint8 and (found == np.asarray(expected)).all()
    counted += np.bincount(found.ravel(), minlength=4)
  assert (found_labels.counts.sum(0) == counted).all()
  assert len(list(tmp_path.rglob('*.*'))) == 4  # no temporary file is left


def test_pseudo_labels_of_many_sizes_share_programs_and_keep_their_sizes(tmp_path):
  """They are those of prediction; what lies beyond an image is neither written nor counted."""
  sizes = ((24, 32), (20, 28), (28, 20), (1030, 40))
  source, predictor = Source(5, sizes=sizes), Predictor(*tiny(), batch_size=2)
  planned = shapes.plan(sizes[:3], 1) | {sizes[3]: None}
  before = forward.multi_scale._cache_size()
  found = pseudo_labels(
    predictor, source, tmp_path, 4, planned=planned, order=[4, 1, 3, 2, 0], progress=False
  )
  assert forward.multi_scale._cache_size() - before == 2  # of the shape, and of the windows
  for index, name in enumerate(source.ids):
    image, _ = source.read(index)
    ((_, expected),) = label_each(predictor, [image], planned[image.shape[:2]])
    written = _pixels(tmp_path / f'{name}.png')
    assert written.shape == image.shape[:2] and (written == expected.classes).all()
    assert found.counts[index].sum() == written.size


def test_pseudo_labels_keep_the_stored_size(tmp_path):
  pseudo_labels(Predictor(*tiny()), Source(2), tmp_path, 4, size=(12, 16), progress=False)
  assert _pixels(tmp_path / 'city' / '001.png').shape == (24, 32)


def test_pseudo_labels_do_not_read_on_after_a_broken_image(tmp_path):
  class Broken(Source):
    def read(self, index):
      if index == 2:
        raise BadInput('002.png: cut short')
      return super().read(index)

  with pytest.raises(BadInput, match='002'):
    pseudo_labels(Predictor(*tiny()), Broken(4), tmp_path, 4, progress=False)
  assert not [p for p in tmp_path.rglob('*') if p.name.endswith('.tmp')]


def _centroids(source, batch_size=1, passes=5, cap=3000, variables=None, minimum=1, **options):
  """(centroids, counts) of the package."""
  model, given = tiny()
  predictor = Predictor(model, variables or given, batch_size=batch_size)
  means = image_means(predictor, source, minimum=minimum, progress=False, **options)
  return running_mean([means] * passes, cap)


def _means(source, minimum=1, use_labels=False, view=None):
  """{class: [mean feature of each image that has one]} by plain NumPy."""
  model, variables = tiny()
  found = {c: [] for c in range(4)}
  for i in range(len(source)):
    image, truth = source.read(i)
    x = normalise(jnp.asarray(image)[None])
    if view is not None:
      x = view(x, truth[None], np.array([i]))
    out = model.apply(variables, x)
    feature, predicted = np.asarray(out['feature'][0]), np.argmax(out['logits'][0], -1)
    small = np.asarray(resize.nearest(jnp.asarray(truth)[None], feature.shape[:2])[0])
    for c in range(4):
      pixels = predicted == c
      if use_labels:
        pixels &= small == c
      if pixels.sum() >= minimum:
        found[c].append(feature[pixels].mean(0))
  return found


def _check(result, means, passes, cap=3000):
  centroids, counts = map(np.asarray, result)
  for c in range(4):
    assert counts[c] == min(passes * len(means[c]), cap)
    expected = np.mean(means[c], 0) if means[c] else np.zeros(5)
    np.testing.assert_allclose(centroids[c], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('passes, minimum', [(1, 1), (5, 5)])
def test_centroids_are_the_mean_over_images_of_the_mean_over_pixels(passes, minimum):
  source = Source(9, labelled=True)
  means = _means(source, minimum)
  assert any(len(m) < 9 for m in means.values())  # some class is missing somewhere
  _check(_centroids(source, passes=passes, minimum=minimum), means, passes)


def test_centroid_counts_are_capped_and_move_on():
  found, counts = _centroids(Source(6), passes=2, cap=4)
  means = _means(Source(6))
  for c in (c for c in range(4) if len(means[c]) == 6):
    mean, count = np.zeros(5), 0
    for value in 2 * means[c]:
      mean, count = (mean * count + value) / (count + 1), min(count + 1, 4)
    np.testing.assert_allclose(found[c], mean, rtol=1e-4, atol=1e-5)
    assert counts[c] == 4


def test_centroids_do_not_depend_on_the_batch_size():
  one, three = (_centroids(Source(7), batch_size=b) for b in (1, 3))
  np.testing.assert_allclose(one[0], three[0], rtol=1e-5, atol=1e-6)  # two programs: to rounding
  np.testing.assert_array_equal(one[1], three[1])


def test_centroids_look_at_the_low_size():
  low, stored = (_centroids(Source(3), size=size)[0] for size in ((12, 16), None))
  assert not np.allclose(low, stored)


def test_centroids_from_source_take_pixels_predicted_right():
  found = _centroids(Source(9), passes=2, labelled=True)
  means = _means(Source(9), use_labels=True)
  assert sum(map(len, means.values())) < sum(map(len, _means(Source(9)).values()))
  _check(found, means, 2)


def test_the_view_gets_each_image_with_its_position():
  def view(pixels, labels, indices):
    assert labels.shape[1:] == pixels.shape[1:3]
    return pixels * (1 + jnp.asarray(indices, jnp.float32))[:, None, None, None]

  found = _centroids(Source(5), view=view, passes=1, batch_size=2, labelled=True)
  _check(found, _means(Source(5), use_labels=True, view=view), 1)


def test_a_class_never_seen_has_count_and_centroid_zero():
  _, variables = tiny()
  kernel = variables['params']['final']['kernel'].at[:, 2].set(0)
  bias = variables['params']['final']['bias'].at[2].set(-1e3)
  variables['params']['final'] = {'kernel': kernel, 'bias': bias}
  centroids, counts = _centroids(Source(3), variables=variables, minimum=5)
  assert counts[2] == 0 and (centroids[2] == 0).all()


def test_padding_rows_take_no_part():
  batch = list(image_batches.batches(Source(4), batch_size=3))[-1]
  assert batch.indices == [3] and len(batch.images) == 3
  assert (batch.labels[1:] == 255).all() and not batch.images[1:].any()


def test_class_means_of_a_batch_are_those_of_its_images():
  """What the order-keeping running mean relies on."""
  rng = np.random.default_rng(0)
  feature, logits = rng.normal(size=(3, 6, 8, 5)), rng.normal(size=(3, 6, 8, 4))
  whole = centroid_math.class_means(jnp.asarray(feature), jnp.asarray(logits), minimum=1)
  for i in range(3):
    one = centroid_math.class_means(
      jnp.asarray(feature[i : i + 1]), jnp.asarray(logits[i : i + 1]), minimum=1
    )
    np.testing.assert_allclose(whole[0][i], one[0][0], rtol=1e-6, atol=1e-7)
    assert (whole[1][i] == one[1][0]).all()


def test_equal_modules_share_their_programs():
  _, variables = tiny()
  image = jnp.zeros((1, 40, 44, 3), jnp.uint8)
  Predictor(Tiny(4), variables).classes(image, (40, 44))
  before = forward.multi_scale._cache_size()
  Predictor(Tiny(4), variables, [1, 0.5]).classes(image, (40, 44))
  assert forward.multi_scale._cache_size() == before
  assert jax.device_count() > 1


# Selectors by confidence.


def confident(source):
  """[(confidence, predicted)] of the images, by plain NumPy."""
  predictor = Predictor(*tiny(), scales=(1.0,))
  found = []
  for i in range(len(source)):
    image = source.read(i)[0]
    logits = predictor.logits(jnp.asarray(image)[None], image.shape[:2])
    exps = np.exp(np.asarray(logits[0], np.float64))
    found.append(((exps / exps.sum(-1, keepdims=True)).max(-1), exps.argmax(-1).astype(np.uint8)))
  return found


def run_selector(source, directory, order=None, size=None, **settings):
  return pseudo_labels(
    Predictor(*tiny(), scales=(1.0,)),
    source,
    directory,
    4,
    settings=label_stage('', **settings),
    order=order,
    size=size,
    progress=False,
  )


def written(source, directory):
  return np.stack([_pixels(directory / f'{name}.png') for name in source.ids])


def test_a_constant_threshold_keeps_what_reaches_it(tmp_path):
  source = Source(4)
  found = run_selector(source, tmp_path, selector='constant', threshold=0.4)
  wanted = np.stack([np.where(c >= 0.4, p, 255) for c, p in confident(source)])
  assert 0.05 < (wanted == 255).mean() < 0.95
  np.testing.assert_array_equal(written(source, tmp_path), wanted)
  np.testing.assert_array_equal(
    found.counts, [np.bincount(w.ravel(), minlength=256)[:4] for w in wanted]
  )
  np.testing.assert_allclose(found.thresholds, 0.4)


def test_class_balanced_thresholds_come_from_all_images(tmp_path):
  source = Source(5)
  found = run_selector(source, tmp_path, selector='cbst', share=0.3)
  seen = confident(source)
  wanted = np.ones(4)
  for c in range(4):
    values = np.concatenate([x[p == c][::4].astype(np.float16) for x, p in seen])
    if len(values):
      wanted[c] = np.quantile(values.astype(np.float64), 0.7)
  np.testing.assert_allclose(found.thresholds, wanted, rtol=2e-3)
  kept = written(source, tmp_path) != 255
  assert 0.2 < kept.mean() < 0.4


@pytest.mark.parametrize('batch', [1, 2])
def test_instance_adaptive_thresholds_follow_the_given_order(tmp_path, batch):
  source, order = Source(5), [3, 0, 4, 1, 2]
  found = run_selector(
    source, tmp_path, order, selector='ias', threshold=0.5, beta=0.5, selector_batch=batch
  )
  seen, thresholds = confident(source), jnp.full(4, 0.5)
  labels = written(source, tmp_path)
  sums = np.zeros(4)
  for start in range(0, 5, batch):
    group = order[start : start + batch]
    confidence, predicted = (np.stack([seen[i][part] for i in group]) for part in (0, 1))
    chosen, thresholds = selection.instance_adaptive(
      confidence.astype(np.float32), predicted, thresholds, beta=0.5
    )
    for i, row in zip(group, np.asarray(chosen), strict=True):
      assert (labels[i] == row).mean() > 0.999  # but for ties to rounding
    for c in range(4):
      mine = confidence[np.asarray(chosen) == c]
      if mine.size:
        sums[c] = 0.99 * sums[c] + 0.01 * mine.mean() if sums[c] else mine.mean()
  np.testing.assert_array_equal(  # by the source's order, not the given one
    found.counts, [np.bincount(row.ravel(), minlength=256)[:4] for row in labels]
  )
  np.testing.assert_allclose(found.thresholds, thresholds, rtol=1e-5)
  np.testing.assert_allclose(found.confidence, sums, rtol=1e-3)
  other = run_selector(
    source, tmp_path / 'b', selector='ias', threshold=0.5, beta=0.5, selector_batch=batch
  )
  assert (other.thresholds != found.thresholds).any()


def test_labels_are_selected_at_the_size_looked_at_and_keep_the_stored_one(tmp_path):
  found = run_selector(
    Source(2), tmp_path, size=(12, 16), selector='ias', threshold=0.5, selector_batch=2
  )
  labels = written(Source(2), tmp_path)
  assert labels.shape == (2, 24, 32)
  np.testing.assert_array_equal(labels, labels[:, ::2, ::2].repeat(2, 1).repeat(2, 2))
  assert found.counts.sum() == (labels[:, ::2, ::2] != 255).sum()


def test_images_of_different_sizes_are_not_selected_from_together(tmp_path):
  source = Source(4, sizes=((24, 32), (28, 20)))
  with pytest.raises(BadInput, match=r"\(24x32, 28x20\): set the label stage's image_size"):
    run_selector(source, tmp_path, selector='ias', selector_batch=2)


def test_more_classes_than_a_byte_holds_are_refused():
  assert classes_of(jnp.eye(255)).tolist() == list(range(255))
  for function in (classes_of, most_confident):
    with pytest.raises(BadInput, match='256 classes: labels hold at most 255'):
      function(jnp.zeros((1, 2, 2, 256)))
