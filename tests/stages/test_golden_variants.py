"""The steps of the other published settings against the released scripts: SYNTHIA, generalization
and semi-supervised, with their networks whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diga_jax import losses, mixing, optimizer
from diga_jax.configs import (
  cityscapes_semi,
  gta5_generalization,
  synthia_to_cityscapes,
)
from diga_jax.stages import self_training, warmup
from diga_jax.stages.forward import interleave
from diga_jax.stages.setup import schedule
from diga_jax.stages.views import Views
from diga_jax.types import StepConfig
from tests.support import golden_formula
from tests.support.golden_steps import (
  check_each,
  gradients,
  movements,
  norms,
  start,
  state_dict,
)

DEEPLAB, HRNET = 'deeplab_resnet101', 'hrnet_w48_ocr'


def image(name: str, shape) -> np.ndarray:
  return golden_formula.image(name, (*shape, 3))


def warm_up(monkeypatch, model, tx, config):
  """(state, plain, view, labels, target) -> (state, metrics), for given normalised images."""
  monkeypatch.setattr(warmup, 'normalise_images', lambda batch: batch)

  @jax.jit
  def step(current, plain, view, labels, target):
    batch, views = {'source_label': labels, 'target_image': target}, interleave(plain, view)
    return warmup.train_step(
      current, batch, model=model, tx=tx, config=config, view_fn=lambda *_: views
    )

  return step


def check_gradients(name, after, wanted, names, check=check_each):
  """The norms of the gradients of a step, where the released code has one."""
  there = wanted > 0
  check(gradients(name, after, names)[there], wanted[there], names[there])


def split(names):
  """Which names are of parameters, and which of running statistics."""
  running = np.array(['running' in name for name in names])
  return ~running, running


def check_step(name, before, after, wanted, prefix, suffix=''):
  """Movements of a step's parameters, and what it did to the statistics."""
  names = wanted['names']
  moved, expected = movements(name, before, after, names), wanted[f'{prefix}student_moved{suffix}']
  parameters, running = split(names)
  check_each(moved[parameters], expected[parameters], names[parameters])
  np.testing.assert_allclose(moved[running], expected[running], rtol=1e-4)


# SYNTHIA.


def synthia_tensors(golden, wanted):
  tensors = state_dict(golden(DEEPLAB)['keys'])
  weight = tensors['final.head.1.weight']
  shape = (int(wanted['classes']), *weight.shape[1:])
  drawn = golden_formula.tensor('final.head.1.weight', shape)
  return tensors | {'final.head.1.weight': drawn * np.float32(wanted['head_scale'])}


def synthia(stage: str, wanted):
  """The published config's stage, OHEM's least number scaled to the arrays' images."""
  config = synthia_to_cityscapes.get_config()
  found = config.stages[stage]
  found.ohem_min_kept = int(wanted[f'{found.kind}_min_kept'])
  return found, StepConfig(found, config.translator)


NEWER = (False, '')  # than the PyTorch that DiGA pins


# Whole steps by hand: the loss, the rates and the optimizer have golden arrays of their own.
@pytest.mark.exhaustive
@pytest.mark.parametrize('first_step_momentum, suffix', [(True, '_sgd_1_7'), NEWER])
def test_synthias_warmup(golden, monkeypatch, first_step_momentum, suffix):
  wanted = golden('synthia_steps')
  shape = tuple(map(int, wanted['batch']))
  stage, config = synthia('warmup', wanted)
  stage.optimizer.first_step_momentum = first_step_momentum
  settings = schedule(stage.optimizer, stage.steps)
  # The rates of steps 6000 and 6001, at which there is something to compare; the momentum begins.
  poly, late = optimizer.DECAYS['poly'], int(wanted['late_offset'])
  monkeypatch.setitem(optimizer.DECAYS, 'poly', lambda of, step, base: poly(of, step + late, base))
  model, tx, initial = start(DEEPLAB, synthia_tensors(golden, wanted), settings, classes=16)
  step, current = warm_up(monkeypatch, model, tx, config), initial
  for i in range(2):
    labels, mask = wanted['warmup_labels'][i].astype(np.int32), wanted['warmup_mask'][i] > 0
    mixed = mixing.paste(
      jnp.asarray(mask), image(f'synthia_view{i}', shape), image(f'synthia_translated{i}', shape)
    )
    current, metrics = step(
      current, image(f'synthia_source{i}', shape), mixed, labels, image(f'synthia_target{i}', shape)
    )
    found = [float(metrics[key]) for key in ('cross_entropy', 'distillation')]
    np.testing.assert_allclose(found, wanted[f'late_losses{suffix}'][i], rtol=1e-4)
    if i == 0:
      names = wanted['names']
      check_gradients(DEEPLAB, current, wanted['warmup_grad_norm'][0], names)
  check_step(DEEPLAB, initial, current, wanted, 'late_', suffix)


@pytest.mark.exhaustive
@pytest.mark.parametrize('first_step_momentum, suffix', [(True, '_sgd_1_7'), NEWER])
def test_synthias_self_training(golden, first_step_momentum, suffix):
  wanted = golden('synthia_steps')
  shape = tuple(map(int, wanted['batch']))
  stage, config = synthia('self_training_1', wanted)
  stage.optimizer.first_step_momentum = first_step_momentum
  settings = schedule(stage.optimizer, stage.steps)
  model, tx, initial = start(
    DEEPLAB,
    synthia_tensors(golden, wanted),
    settings,
    jnp.asarray(wanted['st_centroids_before']),
    classes=16,
  )
  parts = ('source', 'view', 'translated', 'target', 'target_view')
  plain, view, translated, target, target_view = (
    image(f'synthia_st_{part}', shape) for part in parts
  )
  masks = (jnp.asarray(wanted[f'st_{part}_mask'] > 0) for part in ('source', 'target'))
  source_mask, target_mask = masks
  views = Views(
    interleave(plain, mixing.paste(source_mask, view, translated)),
    target,
    mixing.paste(target_mask, plain, target_view),
    target_mask,
  )
  after, metrics = self_train(model, tx, config, initial, wanted, views)
  found = [float(metrics[k]) for k in ('cross_entropy', 'target', 'distillation')]
  np.testing.assert_allclose(found, wanted['st_losses'], rtol=1e-4)
  check_self_training(DEEPLAB, initial, after, metrics, wanted, suffix)


def self_train(model, tx, config, initial, wanted, views):
  batch = {
    'source_label': wanted['st_source_labels'].astype(np.int32),
    'target_label': wanted['st_probability_label'].astype(np.int32),
  }

  @jax.jit
  def step(current, batch, views):
    return self_training.train_step(
      current, batch, model=model, tx=tx, config=config, view_fn=lambda *_: views
    )

  return step(initial, batch, views)


def check_self_training(name, initial, after, metrics, wanted, suffix='', check=check_each):
  np.testing.assert_allclose(metrics['loss'], wanted['st_total'], rtol=1e-4)
  moved = np.abs(wanted['st_centroids_after'] - wanted['st_centroids_before']).max()
  np.testing.assert_allclose(after.centroids, wanted['st_centroids_after'], atol=2e-2 * moved)
  assert abs(float(metrics['coverage']) - (wanted['st_selected'] != 255).mean()) < 1e-3
  names = wanted['names']
  check_gradients(name, after, wanted['st_grad_norm'], names, check)
  parameters = split(names)[0]
  moved, expected = movements(name, initial, after, names), wanted[f'st_student_moved{suffix}']
  check(moved[parameters], expected[parameters], names[parameters])


def test_synthias_rates(golden):
  wanted, config = golden('synthia_steps'), synthia_to_cityscapes.get_config()
  for stage, table in (('warmup', 'warmup'), ('self_training_1', 'self_training')):
    settings = schedule(config.stages[stage].optimizer, config.stages[stage].steps)
    steps, rates = wanted[f'{table}_rate_steps'], wanted[f'{table}_rate_table']
    for column, multiplier in enumerate((1.0, settings['head_lr_multiplier'])):
      got = optimizer.learning_rate(settings, steps, multiplier)
      np.testing.assert_allclose(got, rates[:, column], rtol=1e-6)


def test_ohem_keeps_what_the_released_code_keeps(golden):
  wanted = golden('synthia_steps')
  logits, labels = jnp.asarray(wanted['ohem_logits']), wanted['ohem_labels'].astype(np.int32)
  for i, least in enumerate(wanted['ohem_min_kept']):
    value, grads = jax.value_and_grad(losses.ohem_cross_entropy)(
      logits, labels, min_kept=int(least)
    )
    np.testing.assert_allclose(value, wanted['ohem_values'][i], rtol=1e-5)
    largest = np.abs(wanted['ohem_grads'][i]).max()
    np.testing.assert_allclose(grads, wanted['ohem_grads'][i], atol=1e-5 * largest)


# Generalization.


@pytest.mark.slow
@pytest.mark.parametrize(
  'target_statistics', [True, pytest.param(False, marks=pytest.mark.exhaustive)]
)
def test_generalization(golden, monkeypatch, target_statistics):
  wanted = golden('generalization_step')
  shape = tuple(map(int, wanted['batch']))
  config = gta5_generalization.get_config()
  stage = config.stages.warmup
  stage.target_statistics = target_statistics
  settings = schedule(stage.optimizer, stage.steps)
  model, tx, initial = start(DEEPLAB, state_dict(golden(DEEPLAB)['keys']), settings)
  step = warm_up(monkeypatch, model, tx, StepConfig(stage, config.translator))
  images = (image(f'generalization_{part}', shape) for part in ('source', 'view', 'target'))
  plain, view, target = images
  labels = golden_formula.labels('generalization_labels', shape).astype(np.int32)
  after, metrics = step(initial, plain, view, labels, target)
  found = [float(metrics[key]) for key in ('cross_entropy', 'distillation')]
  np.testing.assert_allclose(found, wanted['losses'], rtol=1e-4)
  names = wanted['names']
  check_gradients(DEEPLAB, after, wanted['grad_norm'], names)
  if target_statistics:  # as released
    check_step(DEEPLAB, initial, after, wanted, '', '_sgd_1_7')
  else:
    running = split(names)[1]
    moved = movements(DEEPLAB, initial, after, names)[running]
    wanted_moved = wanted['student_moved_without_target_pass'][running]
    np.testing.assert_allclose(moved, wanted_moved, rtol=1e-4)


# Semi-supervised.


def check_deep(found: np.ndarray, wanted: np.ndarray, names, tolerance=3e-2, median=2e-3) -> None:
  """As check_each, for a network under whose BatchNorm rounding grows: each, and the median.

  A bias in front of a BatchNorm has no gradient: of such a norm nothing is known but that it is
  rounding, five orders below the others.
  """
  still = wanted == 0
  np.testing.assert_array_equal(found[still], 0)
  rounding = 1e-6 * np.median(wanted)
  still |= wanted < rounding
  assert found[still].max(initial=0) < rounding
  error = np.abs(found - wanted)[~still] / wanted[~still]
  assert np.median(error) < median
  assert error.max() < tolerance, names[~still][int(error.argmax())]


def semi(golden, stage, centroids=()):
  config = cityscapes_semi.get_config('1_8')
  found = config.stages[stage]
  parts = ('hrnet', 'ocrnet')
  arrays = golden('hrnet_ocr')
  keys = [f'{part}.{key}' for part in parts for key in arrays[f'{part}_keys']]
  settings = schedule(found.optimizer, found.steps)
  made = start(HRNET, state_dict(keys), settings, centroids, pixels=config.model.options.pixels)
  return StepConfig(found, config.translator), *made


@pytest.mark.exhaustive
def test_the_semi_supervised_warmup(golden, monkeypatch):
  wanted = golden('semi_steps')
  shape, names = tuple(map(int, wanted['batch'])), wanted['names']
  config, model, tx, initial = semi(golden, 'warmup')
  step, current = warm_up(monkeypatch, model, tx, config), initial
  for i in range(2):
    labels = golden_formula.labels(f'semi_source_labels{i}', shape).astype(np.int32)
    images = (image(f'semi_{part}{i}', shape) for part in ('source', 'view', 'target'))
    plain, view, target = images
    current, metrics = step(current, plain, view, labels, target)
    entropy, auxiliary, distilled, auxiliary_distilled = wanted['warmup_losses'][i]
    found = [float(metrics[key]) for key in ('cross_entropy', 'distillation', 'auxiliary', 'loss')]
    expected = [
      entropy,
      distilled,
      auxiliary + 0.5 * auxiliary_distilled,
      wanted['warmup_total'][i],
    ]
    np.testing.assert_allclose(found, expected, rtol=(1e-4, 5e-3)[i])
    if i == 0:
      check_gradients(HRNET, current, wanted['warmup_grad_norm'][0], names, check_deep)
      moved, running = movements(HRNET, initial, current, names), split(names)[1]
      check_deep(moved, wanted['warmup_student_moved'][0], names)
      np.testing.assert_allclose(
        moved[running], wanted['warmup_student_moved'][0][running], rtol=1e-4
      )
  moved, expected = movements(HRNET, initial, current, names), wanted['warmup_student_moved'][1]
  there = expected > 0
  assert np.median(np.abs(moved - expected)[there] / expected[there]) < 5e-2
  teacher = norms(HRNET, {'params': current.teacher, 'batch_stats': current.batch_stats}, names)
  parameters = split(names)[0]
  np.testing.assert_allclose(
    teacher[parameters], wanted['warmup_teacher_norm'][parameters], rtol=1e-4
  )


@pytest.mark.exhaustive
def test_semi_supervised_self_training(golden):
  wanted = golden('semi_steps')
  shape = tuple(map(int, wanted['batch']))
  config, model, tx, initial = semi(
    golden, 'self_training_1', jnp.asarray(wanted['st_centroids_before'])
  )
  parts = ('source', 'view', 'target', 'target_view')
  plain, view, target, target_view = (image(f'semi_st_{part}', shape) for part in parts)
  mask = jnp.asarray(wanted['st_target_mask'] > 0)
  views = Views(interleave(plain, view), target, mixing.paste(mask, plain, target_view), mask)
  after, metrics = self_train(model, tx, config, initial, wanted, views)
  entropy, a, on_target, b, distilled, c = wanted['st_losses']
  found = [float(metrics[k]) for k in ('cross_entropy', 'target', 'distillation', 'auxiliary')]
  np.testing.assert_allclose(found, [entropy, on_target, distilled, a + b + 0.5 * c], rtol=1e-4)
  check_self_training(HRNET, initial, after, metrics, wanted, check=check_deep)
