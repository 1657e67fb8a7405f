import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from diga_jax import losses

seeds = st.integers(0, 2**31)
# min_kept is a Python number to the loss; a few values keep the compilations few.
OHEM = jax.jit(losses.ohem_cross_entropy, static_argnums=3)


def close(got, want, tolerance=1e-5):
  want = np.asarray(want, np.float64)
  np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max())


def reference_log_softmax(logits):
  shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
  return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def reference_ohem(logits, labels, threshold, min_kept):
  """The published procedure: sort the labelled pixels, look one up, cut below it.

  Returns the loss, and how near to the cut another pixel's probability is.
  """
  labelled = labels < logits.shape[-1]
  log_p = reference_log_softmax(logits)[labelled]
  own = np.sort(log_p[np.arange(len(log_p)), labels[labelled]])
  cut = max(np.exp(own)[min(max(1, min_kept), len(own) - 1)], threshold)
  kept, apart = own[np.exp(own) < cut], np.abs(np.exp(own) - cut)
  return -kept.mean() if kept.size else 0.0, apart[apart > 0].min(initial=1.0)


def draw(seed, shape=(2, 9, 11, 6), scale=3.0, void=0.2):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, shape[-1], shape[:3])
  labels[rng.random(shape[:3]) < void] = 255
  return rng.normal(0, scale, shape).astype(np.float32), labels.astype(np.uint8)


GOLDEN_LOSSES = {
  'distillation': lambda z, s: losses.symmetric_distillation(
    z['teacher_logits'][:2], z['teacher_logits'][2:], s[:2], s[2:]
  ),
  'cross_entropy': lambda z, s: losses.cross_entropy(s[:2], z['labels']),
  'ohem': lambda z, s: losses.ohem_cross_entropy(s[:2], z['labels'], min_kept=100),
}


@pytest.mark.parametrize('name', GOLDEN_LOSSES)
def test_value_and_gradient_are_the_published_ones(golden, name):
  z = golden('losses')
  value, gradient = jax.value_and_grad(lambda s: GOLDEN_LOSSES[name](z, s))(z['student_logits'])
  close(value, z['ohem_min_kept_100' if name == 'ohem' else name])
  close(gradient, z[f'{name}_grad'])


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_cross_entropy_divides_by_all_pixels_or_by_labelled_ones(seed):
  logits, labels = draw(seed)
  labelled = labels != 255
  own = np.take_along_axis(
    reference_log_softmax(logits), np.where(labelled, labels, 0)[..., None].astype(int), -1
  )[..., 0]
  total = -(own * labelled).sum()
  close(losses.cross_entropy(logits, labels), total / labels.size)
  close(losses.cross_entropy(logits, labels.astype(np.int32)), total / labels.size)
  close(losses.cross_entropy(logits, labels, per_labelled=True), total / labelled.sum())


def test_without_labels_losses_and_gradients_are_zero():
  logits, _ = draw(0)
  void = np.full(logits.shape[:3], 255, np.uint8)
  for loss in (
    losses.cross_entropy,
    lambda x, y: losses.cross_entropy(x, y, per_labelled=True),
    losses.ohem_cross_entropy,
  ):
    value, gradient = jax.value_and_grad(loss)(logits, void)
    assert value == 0
    assert not np.any(gradient)


def test_large_logits_do_not_overflow():
  logits = np.zeros((1, 1, 2, 3), np.float32)
  logits[..., 0] = 1e4
  labels = np.zeros((1, 1, 2), np.int32)
  assert losses.cross_entropy(logits, labels) == 0
  assert losses.soft_cross_entropy(logits, logits) == 0
  assert losses.cross_entropy(logits, labels + 1) == 1e4


@given(
  seed=seeds,
  min_kept=st.sampled_from([0, 1, 20, 100, 250]),
  threshold=st.sampled_from([0.05, 0.3, 0.7]),
  scale=st.sampled_from([0.3, 6.0]),
)
@settings(max_examples=40, deadline=None)
def test_ohem_is_the_sorted_reference(seed, min_kept, threshold, scale):
  logits, labels = draw(seed, scale=scale)
  if min_kept == 250:
    labels[:] = 255
    labels[0, 0, 0] = 1  # one labelled pixel
  want, apart = reference_ohem(logits, labels, threshold, min_kept)
  assume(apart > 1e-6)  # else rounding decides whether that pixel counts
  close(OHEM(logits, labels, threshold, min_kept), want, 2e-5)


def test_ohem_keeps_exactly_min_kept_confident_pixels():
  logits, labels = draw(1, scale=0.01, void=0.0)
  weight = jax.grad(lambda x: losses.ohem_cross_entropy(x, labels, threshold=0.0, min_kept=17))
  touched = np.abs(weight(logits)).sum(-1) > 0
  assert touched.sum() == 17


def test_ohem_does_not_depend_on_the_number_of_devices():
  logits, labels = draw(2, shape=(4, 9, 11, 6), scale=6.0)
  loss = jax.jit(lambda x, y: losses.ohem_cross_entropy(x, y, threshold=0.1, min_kept=150))
  mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))
  spread = jax.device_put((logits, labels), NamedSharding(mesh, PartitionSpec('data')))
  close(loss(*spread), loss(logits, labels), 1e-6)


@given(seeds)
@settings(max_examples=5, deadline=None)
def test_kth_smallest_is_the_sorted_value(seed):
  rng = np.random.default_rng(seed)
  values = rng.random(200).astype(np.float32) ** 8
  values[rng.random(200) < 0.3] = rng.choice([0.0, np.inf, values[0]])
  for k in (0, 1, 100, 199):
    assert jax.jit(losses._kth_smallest)(values, k) == np.sort(values)[k]


@given(seeds, st.floats(0, 2))
@settings(max_examples=10, deadline=None)
def test_distillation_crosses_the_views(seed, scale):
  a, b, c, d = (draw(seed + i)[0] for i in range(4))

  def entropy(teacher, student):
    p, log_q = np.exp(reference_log_softmax(teacher)), reference_log_softmax(student)
    return -(p * log_q).sum(-1).mean()

  got = losses.symmetric_distillation(a, b, c, d, scale=scale)
  close(got, entropy(a, d) + scale * entropy(b, c))


def test_no_gradient_reaches_the_teacher():
  a, b, c, d = (draw(i)[0] for i in range(4))
  gradients = jax.grad(losses.symmetric_distillation, argnums=(0, 1, 2, 3))(a, b, c, d)
  assert [bool(np.any(g)) for g in gradients] == [False, False, True, True]


def test_edges_and_edge_loss_are_the_published_ones(golden):
  z = golden('edge_loss')
  np.testing.assert_array_equal(
    np.broadcast_to(losses.edges(z['labels'])[..., None], z['edges'].shape), z['edges']
  )
  close(losses.edge(z['rgb_out'], z['rgb_in'], z['labels']), z['loss'])


def test_edges_of_a_flat_map_and_of_one_pixel():
  flat = np.full((1, 9, 9), 7, np.uint8)
  assert not np.any(losses.edges(flat))
  flat[0, 4, 4] = 12  # 5 ids away: |5| / 48 is over 0.1 in the whole 5x5 window
  want = np.zeros((9, 9))
  want[2:7, 2:7] = 1
  np.testing.assert_array_equal(losses.edges(flat)[0], want)


def test_adversarial_losses():
  real = [jnp.full((2, 4, 4, 1), 0.5), jnp.full((2, 2, 2, 1), 1.0)]
  fake = [jnp.full((2, 4, 4, 1), 0.25), jnp.full((2, 2, 2, 1), -1.0)]
  close(losses.adversarial_discriminator(real, fake), 0.25 + 0.0625 + 0 + 1)
  close(losses.adversarial_generator(fake), 0.5625 + 4)
  with pytest.raises(ValueError, match='zip'):
    losses.adversarial_discriminator(real, fake[:1])


def test_perceptual_loss_weighs_depths_and_holds_its_second_argument():
  a = [jnp.full((1, 2, 2, 3), float(i)) for i in range(5)]
  b = [jnp.zeros((1, 2, 2, 3))] * 5
  close(losses.perceptual(a, b), 1 / 16 + 2 / 8 + 3 / 4 + 4)
  close(losses.perceptual(a[:2], b[:2], (3.0, 5.0)), 5)
  gradients = jax.grad(lambda x, y: losses.perceptual(x, y), argnums=(0, 1))(a, b)
  assert np.any(gradients[0][4])
  assert not any(np.any(g) for g in gradients[1])


# HIAST's region losses.

REGIONS = {
  'kld_confident': lambda z, s: losses.smooth_confident(s, z['labels']),
  'entropy_ignored': lambda z, s: losses.entropy_ignored(s, z['labels']),
  'consistency_ignored': lambda z, s: losses.consistency_ignored(
    s, jax.nn.softmax(z['teacher_logits']), z['labels']
  ),
}


@pytest.mark.parametrize('name', REGIONS)
def test_region_losses_are_the_published_ones(golden, name):
  z = golden('hiast_losses')
  value, gradient = jax.value_and_grad(lambda s: REGIONS[name](z, s))(z['student_logits'])
  close(value, z[name])
  close(gradient, z[name.partition('_')[0] + '_grad'])


def test_hiast_cross_entropy_is_the_mean_over_labelled_pixels(golden):
  z = golden('hiast_losses')
  close(
    losses.cross_entropy(z['student_logits'], z['labels'], per_labelled=True), z['cross_entropy']
  )


@pytest.mark.parametrize(('name', 'fill'), [(name, fill) for name in REGIONS for fill in (255, 0)])
def test_a_region_without_pixels_is_zero_with_zero_gradient(name, fill):
  logits, labels = draw(0)
  z = {'labels': np.full_like(labels, fill), 'teacher_logits': logits}
  value, gradient = jax.value_and_grad(lambda s: REGIONS[name](z, s))(logits)
  empty = (name == 'kld_confident') == (fill == 255)
  assert (value == 0) == empty and np.all(np.isfinite(gradient))
  if empty:
    np.testing.assert_array_equal(gradient, 0)


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_region_losses_against_a_drawing_in_float64(seed):
  logits, labels = draw(seed)
  teacher = draw(seed + 1)[0]
  log_p, labelled = reference_log_softmax(logits), labels < logits.shape[-1]
  classes = logits.shape[-1]
  z = {'labels': labels, 'teacher_logits': teacher}
  wanted = {
    'kld_confident': -log_p[labelled].mean() / classes,
    'entropy_ignored': -(np.exp(log_p) * log_p)[~labelled].sum() / (~labelled).sum() / classes,
    'consistency_ignored': -(np.exp(reference_log_softmax(teacher)) * log_p)[~labelled].mean(),
  }
  for name, want in wanted.items():
    close(REGIONS[name](z, logits), want)


def test_entropy_is_one_where_nothing_is_known():
  close(losses.entropy(jnp.zeros((1, 3, 4, 7))), 1.0)
  close(losses.entropy(100 * jax.nn.one_hot(jnp.zeros((1, 3, 4), int), 7)), 0.0)
