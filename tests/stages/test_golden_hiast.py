"""HIAST's network and steps against what the published code computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diga_jax import models, optimizer, pixels, state, weights
from diga_jax.configs import default
from diga_jax.configs.stages import adversarial_stage, hiast_stage
from diga_jax.stages import adversarial, hiast
from diga_jax.stages.setup import schedule
from diga_jax.types import StepConfig
from tests.support.golden_steps import check_each, recording, state_dict

NAME = 'hiast_resnet101'
UNUSED = 'representation.0'  # has no part in any loss


def formula(keys, prefix='hiast.'):
  """The tensors of `NAME|SHAPE` keys, but for those that no output depends on."""
  return state_dict([key for key in keys if not key.startswith(UNUSED)], prefix)


def named(params, batch_stats=None):
  """A network's arrays by PyTorch name, float64."""
  variables = {'params': params} | ({} if batch_stats is None else {'batch_stats': batch_stats})
  return {k: v.astype(np.float64) for k, v in weights.state_dict_of(variables).items()}


def movements(before, after, names):
  return np.array([np.linalg.norm(after[n] - before[n]) for n in names])


def check_gradients(found, wanted, names, tolerance):
  """As `check_each`, but of what is trained: a published frozen parameter has no gradient."""
  trained = wanted > 0
  grads = np.array([np.linalg.norm(found[n]) for n in names[trained]])
  check_each(grads, wanted[trained], names[trained], tolerance)


def used(wanted):
  """Which of a file's `names` belong to the network as it is here; the names."""
  chosen = np.array([not name.startswith(UNUSED) for name in wanted['names']])
  return chosen, wanted['names'][chosen]


@pytest.fixture
def variables(golden):
  return weights.from_torch(NAME, formula(golden('hiast_network')['keys']))


@pytest.mark.slow
def test_the_network(golden, variables):
  wanted, model = golden('hiast_network'), models.build(NAME)
  images = pixels.normalise(jnp.asarray(wanted['image']))
  found = jax.jit(model.apply)(variables, images)
  trained, moved = jax.jit(
    lambda v, x: model.apply(v, x, train=True, mutable=['batch_stats'])
  )(variables, images)  # fmt: skip
  for output, key, tolerance in (
    (found['logits'], 'eval_logits', 1e-4),
    (found['feature'][:1], 'eval_feature_of_image_0', 1e-4),
    (trained['logits'], 'train_logits', 1e-3),
    (trained['feature'][..., :64], 'train_feature_first_64', 1e-3),
  ):
    limit = tolerance * np.abs(wanted[key]).max()
    np.testing.assert_allclose(output, wanted[key], rtol=0, atol=limit, err_msg=key)
  stats = weights.state_dict_of(moved)
  for name in ('bn1.running_mean', 'bn1.running_var', 'layer4.2.bn3.running_var'):
    want = wanted['backbone_' + name.replace('.', '_')]
    np.testing.assert_allclose(
      stats[f'backbone.{name}'], want, rtol=0, atol=1e-5 * np.abs(want).max()
    )


@pytest.mark.slow
def test_two_steps_of_self_training(golden, variables):
  wanted, model, stage = golden('hiast_step'), models.build(NAME), hiast_stage('', '')
  teacher = weights.from_torch(NAME, formula(golden('hiast_network')['keys'], 'hiast_teacher.'))
  settings = schedule(stage.optimizer, stage.steps)
  tx = recording(optimizer.build(settings, variables['params']))
  current = state.create(
    jax.random.key(0), variables['params'], tx, batch_stats=variables['batch_stats']
  ).replace(teacher=teacher['params'])  # fmt: skip
  config = StepConfig(stage, default.get_config().translator)
  chosen, names = used(wanted)
  begun = named(current.params, current.batch_stats)
  teacher_names = np.array([n for n in names if 'running' not in n])
  of_teacher = np.isin(wanted['names'], teacher_names)
  teacher_begun = named(current.teacher)

  @jax.jit
  def step(current, labels, weak, strong):
    views = pixels.normalise(weak), pixels.normalise(strong), None
    batch = {'target_image': weak, 'target_label': labels}
    return hiast.train_step(
      current, batch, model=model, tx=tx, config=config, view_fn=lambda *_: views
    )

  for i in range(2):
    labels = wanted['labels'][i].astype(np.int32)
    current, metrics = step(current, labels, wanted['weak'][i], wanted['strong'][i])
    terms = [metrics[k] for k in ('cross_entropy', 'smoothing', 'sharpening', 'consistency')]
    losses = np.array(terms) * (1, stage.smoothing, stage.sharpening, stage.consistency)
    np.testing.assert_allclose(losses, wanted['losses'][i], rtol=1e-4)
    tolerance = (5e-3, 2e-2)[i]
    check_gradients(
      named(current.opt_state[1]), wanted['grad_norm'][i][chosen], names, tolerance
    )  # fmt: skip
    after, of_the_teacher = named(current.params, current.batch_stats), named(current.teacher)
    check_each(
      movements(begun, after, names), wanted['student_moved'][i][chosen], names, 5e-3
    )  # fmt: skip
    check_each(
      movements(teacher_begun, of_the_teacher, teacher_names),
      wanted['teacher_moved'][i][of_teacher],
      teacher_names,
      1e-3,
    )
  np.testing.assert_allclose(after['aspp.conv2d_list.0.bias'], wanted['aspp_bias'], atol=1e-6)


@pytest.mark.exhaustive
def test_two_steps_of_the_adversarial_warmup(golden, variables):
  wanted, stage = golden('hiast_adversarial_step'), adversarial_stage()
  judge = weights.from_torch(
    'output_discriminator', formula(wanted['discriminator_keys'], 'hiast_d.')
  )['params']  # fmt: skip
  model = {'network': models.build(NAME), 'discriminator': models.build('output_discriminator')}
  tx = {
    'network': recording(
      optimizer.build(schedule(stage.optimizer, stage.steps), variables['params'])
    ),
    'discriminator': recording(
      optimizer.build(schedule(stage.discriminator_optimizer, stage.steps), judge)
    ),
  }
  current = state.create(
    jax.random.key(0), variables['params'], tx['network'], batch_stats=variables['batch_stats'],
    discriminator={'params': judge, 'opt_state': tx['discriminator'].init(judge)},
  )  # fmt: skip
  config = StepConfig(stage, default.get_config().translator)
  (chosen, names), judge_names = used(wanted), wanted['discriminator_names']
  begun, judge_begun = named(current.params, current.batch_stats), named(judge)
  step = jax.jit(
    lambda state, batch: adversarial.train_step(state, batch, model=model, tx=tx, config=config)
  )
  for i in range(2):
    batch = {f'{domain}_image': wanted[domain][i] for domain in ('source', 'target')}
    current, metrics = step(current, batch | {'source_label': wanted['labels'][i].astype(np.int32)})
    terms = [metrics[k] for k in ('cross_entropy', 'adversarial', 'entropy', 'discriminator')]
    losses = np.array(terms) * (1, stage.adversarial_weight, stage.entropy_weight, 1)
    np.testing.assert_allclose(losses, wanted['losses'][i], rtol=(1e-5, 3e-4)[i])
    trained = current.discriminator
    check_gradients(
      named(current.opt_state[1]), wanted['grad_norm'][i][chosen], names, (5e-3, 5e-2)[i]
    )
    check_gradients(
      named(trained['opt_state'][1]),
      wanted['discriminator_grad_norm'][i],
      judge_names,
      (5e-3, 5e-2)[i],
    )
    after, judge_after = named(current.params, current.batch_stats), named(trained['params'])
    check_each(
      movements(begun, after, names), wanted['student_moved'][i][chosen], names, (1e-3, 1e-2)[i]
    )
    check_each(
      movements(judge_begun, judge_after, judge_names),
      wanted['discriminator_moved'][i],
      judge_names,
      (1e-3, 2e-2)[i],
    )


@pytest.mark.parametrize('name', ['hiast_step', 'hiast_adversarial_step'])
def test_the_rates(golden, name):
  wanted = golden(name)
  stage = hiast_stage('', '') if name == 'hiast_step' else adversarial_stage()
  settings = schedule(stage.optimizer, stage.steps)
  for step, row in zip(wanted['rate_steps'], wanted['rate_table'], strict=True):
    found = [optimizer.learning_rate(settings, step, multiplier) for multiplier in (1.0, 10.0)]
    np.testing.assert_allclose(found, row[:2], rtol=1e-4)
