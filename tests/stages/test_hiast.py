"""The steps of HIAST's self-training and of the adversarial warm-up, computed a second time."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diga_jax import centroids, losses, models, optimizer, pixels, resize, selection
from diga_jax.configs import default
from diga_jax.configs.stages import adversarial_stage, hiast_stage
from diga_jax.parallel.example_keys import example_keys
from diga_jax.stages import adversarial, hiast
from diga_jax.state import create
from diga_jax.strong_augment import strong_view
from diga_jax.types import StepConfig
from tests.inference.test_ties import ROUNDING, lead
from tests.support import small
from tests.support.tiny import tiny


def start(seed=0):
  """(model, tx, state) of the tiny network; the teacher differs from the student."""
  model, variables = tiny(19, seed)
  tx = optimizer.build(
    {'kind': 'sgd', 'momentum': 0.0, 'learning_rate': 0.1, 'power': 0.0, 'decay_steps': 10},
    variables['params'],
  )
  state = create(jax.random.key(3), variables['params'], tx, batch_stats=variables['batch_stats'])
  other = tiny(19, seed + 1)[1]['params']
  return model, tx, state.replace(teacher=other)


def pseudo(batch):
  labels = batch['target_label'].copy()
  labels[:, ::3] = 255
  return {**batch, 'target_label': labels}


BATCH = pseudo(small.batch(4, 32, 32))


def config_of(stage):
  return StepConfig(stage, default.get_config().translator)


def expected_losses(model, params, stats, state, view, weak, labels, classes=19):
  """HIAST's four terms from METHOD, with plain softmaxes."""
  out, _ = model.apply({'params': params, 'batch_stats': stats}, view, train=True,
                       mutable=['batch_stats'])  # fmt: skip
  logits = resize.align_corners(out['logits'], view.shape[1:3])
  taught = model.apply({'params': state.teacher, 'batch_stats': stats}, weak)
  soft = jax.nn.softmax(resize.align_corners(taught['logits'], weak.shape[1:3]))
  log_p, known = jax.nn.log_softmax(logits), labels != 255
  own = jnp.take_along_axis(log_p, jnp.where(known, labels, 0)[..., None], -1)[..., 0]

  def mean(values, region):
    return jnp.sum(values * region) / jnp.sum(region)

  return {
    'cross_entropy': -mean(own, known),
    'smoothing': -mean(log_p.mean(-1), known) / classes,
    'sharpening': -mean((jnp.exp(log_p) * log_p).sum(-1), ~known) / classes,
    'consistency': -mean((soft * log_p).sum(-1), ~known) / classes,
  }


def test_the_step_is_the_published_one():
  stage = hiast_stage('warmup', 'label_1', strong=0, ema_decay=0.9)
  model, tx, state = start()
  step = jax.jit(lambda s, b: hiast.train_step(s, b, model=model, tx=tx, config=config_of(stage)))
  after, metrics = step(state, BATCH)
  view = pixels.normalise(jnp.asarray(BATCH['target_image']))
  labels = jnp.asarray(BATCH['target_label'], jnp.int32)

  def total(params):
    terms = expected_losses(model, params, state.batch_stats, state, view, view, labels)
    weights = {'cross_entropy': 1, 'smoothing': 0.1, 'sharpening': 1.0, 'consistency': 0.5}
    return sum(weights[name] * terms[name] for name in terms), terms

  (loss, terms), grads = jax.value_and_grad(total, has_aux=True)(state.params)
  np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-5)
  for name, value in terms.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
  np.testing.assert_allclose(metrics['coverage'], np.mean(BATCH['target_label'] != 255), rtol=1e-6)
  moved = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, grads)
  for x, y in zip(jax.tree.leaves(after.params), jax.tree.leaves(moved), strict=True):
    np.testing.assert_allclose(x, y, atol=1e-6)
  # The teacher follows the student that comes out of the step; its own statistics are none.
  followed = jax.tree.map(lambda t, p: 0.9 * t + 0.1 * p, state.teacher, moved)
  for x, y in zip(jax.tree.leaves(after.teacher), jax.tree.leaves(followed), strict=True):
    np.testing.assert_allclose(x, y, atol=1e-6)
  assert not np.allclose(after.batch_stats['bn']['mean'], state.batch_stats['bn']['mean'])


def test_only_the_student_looks_at_the_strong_view():
  stage = hiast_stage('warmup', 'label_1', strong=8)
  model, tx, state = start()
  run = jax.jit(lambda s, b: hiast.train_step(s, b, model=model, tx=tx, config=config_of(stage)))
  _, metrics = run(state, BATCH)
  view = pixels.normalise(jnp.asarray(BATCH['target_image']))
  labels = jnp.asarray(BATCH['target_label'], jnp.int32)
  plain = expected_losses(model, state.params, state.batch_stats, state, view, view, labels)
  assert abs(metrics['cross_entropy'] - plain['cross_entropy']) > 1e-4
  keys = example_keys(state.key, state.step, 'strong_view', 4)
  strong = pixels.normalise(jax.jit(strong_view, static_argnames='count')(
    keys, BATCH['target_image'], count=8
  ))  # fmt: skip
  seen = expected_losses(model, state.params, state.batch_stats, state, strong, view, labels)
  for name, value in seen.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-3, err_msg=name)
  again, _ = run(state, BATCH), None
  assert again[1]['loss'] == metrics['loss']


def test_with_consensus_labels_and_centroids_follow_the_teacher():
  stage = hiast_stage('warmup', 'label_1', strong=0, selector='consensus', centroid_momentum=0.5)
  model, tx, state = start()
  view = pixels.normalise(jnp.asarray(BATCH['target_image']))
  taught = model.apply({'params': state.teacher, 'batch_stats': state.batch_stats}, view)
  labels = jnp.argmax(resize.align_corners(taught['logits'], (32, 32)), -1)
  means, valid = centroids.class_means(taught['feature'], taught['logits'])
  # Classes without a pixel get centroids of their own: the same for all would be as many ties.
  others = jax.random.normal(jax.random.key(5), (19, 5))
  before = centroids.update(others, means[:1], valid[:1], momentum=1.0)
  state = state.replace(centroids=before)
  run = jax.jit(lambda s, b: hiast.train_step(s, b, model=model, tx=tx, config=config_of(stage)))
  after, metrics = run(state, {**BATCH, 'target_label': labels})
  weights = selection.centroid_weights(taught['feature'], before, (32, 32))
  # Rounding decides nothing: neither which class a feature is of, nor which centroid is nearest.
  assert min(lead(taught['logits']), lead(weights)) > ROUNDING
  nearest = jnp.argmax(weights, -1)
  selected_labels = selection.bilateral_consensus(labels, nearest)
  np.testing.assert_allclose(metrics['coverage'], np.mean(selected_labels != 255), rtol=1e-6)
  assert 0 < metrics['coverage'] < 1
  reduced = resize.nearest(selected_labels, taught['feature'].shape[1:3])
  means, valid = centroids.class_means(taught['feature'], taught['logits'], reduced)
  moved = centroids.update(before, means, valid, momentum=0.5)
  assert (moved != before).any()
  np.testing.assert_allclose(after.centroids, moved, atol=1e-5)


def test_class_mixing_pastes_the_source_on_both_views():
  stage = hiast_stage('warmup', 'label_1', strong=0, target_mixing='class')
  model, tx, state = start()
  run = jax.jit(lambda s, b: hiast.train_step(s, b, model=model, tx=tx, config=config_of(stage)))
  void = {**BATCH, 'source_label': np.full_like(BATCH['source_label'], 255)}
  # A source image without any label is pasted whole: nothing of the target is left.
  _, metrics = run(state, void)
  assert metrics['cross_entropy'] == 0 and metrics['smoothing'] == 0
  view = pixels.normalise(jnp.asarray(BATCH['source_image']))
  labels = jnp.full(BATCH['source_label'].shape, 255)
  terms = expected_losses(model, state.params, state.batch_stats, state, view, view, labels)
  for name in ('sharpening', 'consistency'):
    np.testing.assert_allclose(metrics[name], terms[name], rtol=1e-5)
  assert run(state, BATCH)[1]['cross_entropy'] > 0


def test_a_batch_without_any_label_trains_on_without_nan():
  stage = hiast_stage('warmup', 'label_1')
  model, tx, state = start()
  empty = {**BATCH, 'target_label': np.full_like(BATCH['target_label'], 255)}
  run = jax.jit(lambda s, b: hiast.train_step(s, b, model=model, tx=tx, config=config_of(stage)))
  after, metrics = run(state, empty)
  assert metrics['cross_entropy'] == 0 and np.isfinite(metrics['loss'])
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(after.params))


# The adversarial warm-up.


@pytest.fixture
def adversarial_setup():
  """(step, state, model): SGD for both, so that a step can be computed again."""
  stage = adversarial_stage()
  discriminator = models.build('output_discriminator', classes=19, width=2)
  params = jax.jit(discriminator.init)(jax.random.key(9), jnp.zeros((1, 64, 64, 19)))['params']
  network, tx, state = start()
  sgd = optax.sgd(0.05)
  state = state.replace(discriminator={'params': params, 'opt_state': sgd.init(params)})
  model = {'network': network, 'discriminator': discriminator}
  both = {'network': tx, 'discriminator': sgd}

  def step(state, batch):
    return adversarial.train_step(state, batch, model=model, tx=both, config=config_of(stage))

  return jax.jit(step), state, model


def test_the_adversarial_step_is_the_published_one(adversarial_setup):
  step, state, model = adversarial_setup
  after, metrics = step(state, BATCH)
  source, target = (
    pixels.normalise(jnp.asarray(BATCH[f'{d}_image'])) for d in ('source', 'target')
  )

  def predict(params, stats, x):
    out, moved = model['network'].apply(
      {'params': params, 'batch_stats': stats}, x, train=True, mutable=['batch_stats']
    )
    return resize.align_corners(out['logits'], x.shape[1:3]), moved['batch_stats']

  def scores(params, logits):
    return model['discriminator'].apply({'params': params}, jax.nn.softmax(logits))

  def network_loss(params):
    logits, stats = predict(params, state.batch_stats, source)
    on_target, stats = predict(params, stats, target)
    p = jax.nn.softmax(on_target)
    terms = {
      'cross_entropy': losses.cross_entropy(logits, BATCH['source_label'], per_labelled=True),
      'adversarial': jnp.mean(scores(state.discriminator['params'], on_target) ** 2),
      'entropy': -jnp.mean(jnp.sum(p * jnp.log2(p + 1e-30), -1)) / np.log2(19),
    }
    total = terms['cross_entropy'] + 0.05 * terms['adversarial'] + 3 * terms['entropy']
    return total, (terms, logits, on_target, stats)

  (loss, found), grads = jax.value_and_grad(network_loss, has_aux=True)(state.params)
  terms, logits, on_target, stats = found
  np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-5)
  for name, value in terms.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)

  def discriminator_loss(params):
    return (
      jnp.mean(scores(params, logits) ** 2) + jnp.mean((scores(params, on_target) - 1) ** 2)
    ) / 2

  loss, discriminator_grads = jax.value_and_grad(discriminator_loss)(state.discriminator['params'])
  np.testing.assert_allclose(metrics['discriminator'], loss, rtol=1e-5)
  wanted = (
    jax.tree.map(lambda p, g: p - 0.1 * g, state.params, grads),
    jax.tree.map(lambda p, g: p - 0.05 * g, state.discriminator['params'], discriminator_grads),
    stats,
  )
  got = after.params, after.discriminator['params'], after.batch_stats
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
    np.testing.assert_allclose(x, y, atol=1e-5)


def test_the_discriminator_learns_to_tell(adversarial_setup):
  step, state, _ = adversarial_setup
  seen = []
  for _ in range(12):
    state, metrics = step(state, BATCH)
    seen.append(float(metrics['discriminator']))
  assert seen[-1] < 0.9 * seen[0]
