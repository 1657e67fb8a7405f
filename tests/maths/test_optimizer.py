import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from diga_jax import optimizer

STEPS = 6
CONFIG = {
  'kind': 'sgd',
  'learning_rate': 0.1,
  'momentum': 0.9,
  'betas': (0.5, 0.999),
  'weight_decay': 0.01,
  'power': 0.9,
  'warmup': 0,
  'decay_steps': 20,
  'head_lr_multiplier': 10.0,
  'head_pattern': '^final/',
  'frozen': ('/bn[0-9]+/', '^stem/'),
}


def parameters():
  rng = np.random.default_rng(0)

  def leaf(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  return {
    'stem': {'kernel': leaf(3, 4)},
    'body': {'bn1': {'scale': leaf(4)}, 'kernel': leaf(4, 4)},
    'final': {'bn2': {'bias': leaf(2)}, 'kernel': leaf(4, 2)},
  }


def gradient(step, p, math=np):
  """Depends on the parameters, so that an error in one step shows in the next.

  It is never small: Adam divides by its size, and would make an error of its rounding.
  """
  place = math.arange(p.size).reshape(p.shape)
  return 0.3 * p + (1 - 2 * (place % 2)) * (3 + math.sin(step + place))


def rate(step, multiplier):
  """The published rate, in float64."""
  config = CONFIG
  if step < config['warmup']:
    return multiplier * config['learning_rate'] * step / config['warmup']
  left = 1 - (step - config['warmup']) / config['decay_steps']
  return multiplier * config['learning_rate'] * left ** config['power']


def torch_sgd(p, multiplier, repeats=1):
  """PyTorch's recurrence of SGD with momentum, the gradient being `gradient`."""
  p, buffer = np.asarray(p, np.float64), 0.0
  for step in range(STEPS):
    g = gradient(step, p)
    for entry in range(repeats):
      decayed = g + CONFIG['weight_decay'] * p
      buffer = decayed + (CONFIG['momentum'] * buffer if step or entry else 0.0)
      p = p - rate(step, multiplier) * buffer
  return p


def torch_adam(p, multiplier, decay=CONFIG['weight_decay'], betas=CONFIG['betas']):
  """PyTorch's recurrence of Adam with L2 weight decay."""
  p, m, v = np.asarray(p, np.float64), 0.0, 0.0
  for step in range(STEPS):
    g = gradient(step, p) + decay * p
    m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
    unbiased = m / (1 - betas[0] ** (step + 1)), v / (1 - betas[1] ** (step + 1))
    p = p - rate(step, multiplier) * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
  return p


def torch_adamw(p, multiplier, decay=CONFIG['weight_decay']):
  """PyTorch's recurrence of AdamW: the weights shrink by themselves, beside Adam's step."""
  p, m, v, betas = np.asarray(p, np.float64), 0.0, 0.0, CONFIG['betas']
  for step in range(STEPS):
    g = gradient(step, p)
    p = p * (1 - rate(step, multiplier) * decay)
    m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
    unbiased = m / (1 - betas[0] ** (step + 1)), v / (1 - betas[1] ** (step + 1))
    p = p - rate(step, multiplier) * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
  return p


def train(config, params):
  tx = optimizer.build(config, params)
  state = tx.init(params)

  @jax.jit
  def step(params, state, i):
    grads = jax.tree.map(lambda p: gradient(i, p, jnp), params)
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  for i in range(STEPS):
    params, state = step(params, state, i)
  return params, state


@pytest.mark.parametrize('warmup', [0, 3])
@pytest.mark.parametrize(
  'kind, torch', [('sgd', torch_sgd), ('adam', torch_adam), ('adamw', torch_adamw)]
)
def test_updates_are_pytorchs(kind, torch, warmup, monkeypatch):
  monkeypatch.setitem(CONFIG, 'warmup', warmup)
  start = parameters()
  end, _ = train(CONFIG | {'kind': kind}, start)
  want = {'body': torch(start['body']['kernel'], 1), 'final': torch(start['final']['kernel'], 10)}
  for name, value in want.items():
    np.testing.assert_allclose(end[name]['kernel'], value, rtol=2e-5, atol=2e-5)


def test_a_repeated_parameter_is_stepped_as_often():
  start, config = parameters(), CONFIG | {'repeats': (('body/kernel', 3),)}
  end, _ = train(config, start)
  want = torch_sgd(start['body']['kernel'], 1, repeats=3)
  np.testing.assert_allclose(end['body']['kernel'], want, rtol=2e-5, atol=2e-5)
  want = torch_sgd(start['final']['kernel'], 10)
  np.testing.assert_allclose(end['final']['kernel'], want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
  'version, first_step_momentum', [('torch_1_7', True), ('torch_now', False)]
)
def test_repeats_are_those_of_a_version_of_pytorch(golden, version, first_step_momentum):
  z = golden('sgd_repeats_1_7')
  rates, momentum, decay = jnp.asarray(z['rates']), float(z['momentum']), float(z['weight_decay'])
  for i, repeats in enumerate(z['repeats']):
    tx = optimizer.sgd(lambda step: rates[step], momentum, decay, int(repeats), first_step_momentum)
    p = jnp.asarray(z[f'start_{i}'])
    state = tx.init(p)
    for step, push in enumerate(z[f'push_{i}']):
      moved, state = tx.update(0.3 * p + push, state, p)
      p = p + moved
      np.testing.assert_allclose(p, z[f'{version}_{i}'][step], rtol=0, atol=1e-6)
      np.testing.assert_allclose(state.buffer, z[f'{version}_buffer_{i}'][step], rtol=0, atol=2e-6)


def test_norms_and_biases_are_not_decayed():
  start = parameters()
  config = CONFIG | {'kind': 'adamw', 'frozen': (), 'undecayed_pattern': '/(scale|bias)$'}
  end, _ = train(config, start)
  for leaf, multiplier, decay in (
    (lambda t: t['body']['kernel'], 1, CONFIG['weight_decay']),
    (lambda t: t['body']['bn1']['scale'], 1, 0.0),
    (lambda t: t['final']['kernel'], 10, CONFIG['weight_decay']),
    (lambda t: t['final']['bn2']['bias'], 10, 0.0),
  ):
    want = torch_adamw(leaf(start), multiplier, decay)
    np.testing.assert_allclose(leaf(end), want, rtol=2e-5, atol=2e-5)


def test_a_pattern_of_what_is_not_decayed_has_to_match():
  with pytest.raises(ValueError, match='layernorm'):
    optimizer.build(CONFIG | {'undecayed_pattern': 'layernorm'}, parameters())


def test_adam_does_not_repeat():
  with pytest.raises(ValueError, match='repeats'):
    optimizer.build(CONFIG | {'kind': 'adam', 'repeats': (('body', 2),)}, parameters())


def test_frozen_parameters_stay_to_the_bit_and_have_no_state():
  start = parameters()
  end, state = train(CONFIG, start)
  for get in (
    lambda t: t['stem']['kernel'],
    lambda t: t['body']['bn1']['scale'],
    lambda t: t['final']['bn2']['bias'],  # frozen wins over head
  ):
    np.testing.assert_array_equal(get(end), get(start))
  arrays = [leaf.shape for leaf in jax.tree.leaves(state) if leaf.ndim]
  assert sorted(arrays) == [(4, 2), (4, 4)]


def test_gradients_of_frozen_parameters_are_not_computed():
  size = 64
  params = {'first': jnp.ones((size, size)), 'second': jnp.ones((size, size))}
  x = jnp.ones((size, size))

  def flops(frozen):
    tx = optimizer.build({'learning_rate': 0.1, 'decay_steps': 5, 'frozen': frozen}, params)

    def step(params, state):
      def loss(p):
        return jnp.sum((jnp.tanh(x @ p['first']) @ p['second']) ** 2)

      updates, state = tx.update(jax.grad(loss)(params), state, params)
      return optax.apply_updates(params, updates), state

    compiled = jax.jit(step).lower(params, tx.init(params)).compile()
    return compiled.cost_analysis()['flops']

  product = 2 * size**3
  # Frozen 'first' saves its own gradient and the one of the activation before it.
  assert flops(()) - flops(('first',)) > 1.9 * product


def test_defaults_are_plain_sgd_of_everything():
  start = parameters()
  tx = optimizer.build({'learning_rate': 0.5, 'decay_steps': 10}, start)
  updates, _ = tx.update(jax.tree.map(jnp.ones_like, start), tx.init(start), start)
  for leaf in jax.tree.leaves(updates):
    np.testing.assert_allclose(leaf, -0.5)


def test_a_config_dict_and_shapes_will_do():
  config = ml_collections.ConfigDict(CONFIG)
  shapes = jax.eval_shape(parameters)
  assert optimizer.groups(config, shapes)['final'] == {'bn2': {'bias': 'frozen'}, 'kernel': 'head'}
  optimizer.build(config, shapes)


@pytest.mark.parametrize(
  'field, value', [('frozen', ('^stem/', 'no_such_part')), ('head_pattern', 'no_such_part')]
)
def test_a_pattern_that_matches_nothing_is_named(field, value):
  with pytest.raises(ValueError, match='no_such_part'):
    optimizer.build(CONFIG | {field: value}, parameters())


def test_an_unknown_kind_is_named():
  with pytest.raises(ValueError, match='adagrad'):
    optimizer.build(CONFIG | {'kind': 'adagrad'}, parameters())


def test_rates_are_the_published_ones(golden):
  z = golden('schedules')
  got = optimizer.poly(z['step'], 2.5e-4, 80_000, 0.9)
  np.testing.assert_allclose(got, z['poly'], rtol=2e-6)
  got = optimizer.poly(z['step'], 2.5e-4, 80_000, 0.9, warmup=1000)
  np.testing.assert_allclose(got, z['poly_warm'], rtol=2e-6)


def test_past_the_end_the_rate_is_zero():
  assert optimizer.poly(80_000, 2.5e-4, 80_000, 0.9) == 0
  assert optimizer.poly(90_000, 2.5e-4, 80_000, 0.9) == 0
  assert optimizer.poly(80_000, 2.5e-4, 80_000, 0.9, warmup=10) > 0


def test_the_logged_rate_is_the_one_applied():
  got = [optimizer.learning_rate(CONFIG, step) for step in range(STEPS)]
  np.testing.assert_allclose(got, [rate(step, 1) for step in range(STEPS)], rtol=1e-5)


def test_the_cosine_falls_from_the_base_to_its_share():
  config = {'learning_rate': 2.0, 'decay_steps': 8, 'decay': 'cosine', 'final_lr_ratio': 0.001}
  steps = np.arange(9)
  want = 2 * (0.001 + 0.999 * (1 + np.cos(np.pi * steps / 8)) / 2)
  np.testing.assert_allclose(optimizer.learning_rate(config, steps), want, rtol=1e-5)
  assert float(optimizer.learning_rate(config, 20)) == pytest.approx(0.002)
  late = config | {'warmup': 4}
  np.testing.assert_allclose(optimizer.learning_rate(late, np.arange(4)), [0, 0.5, 1, 1.5])
  np.testing.assert_allclose(optimizer.learning_rate(late, steps + 4), want, rtol=1e-5)


@pytest.mark.parametrize('name, step_0', [('hiast_step', 3e-6), ('hiast_adversarial_step', 1e-4)])
def test_the_head_ends_at_the_bodys_last_rate_as_hiast_has_it(golden, name, step_0):
  z = golden(name)
  total = int(z['rate_steps'][-1]) + 1
  config = {
    'learning_rate': step_0, 'decay': 'cosine', 'decay_steps': total, 'final_lr_ratio': 0.001,
    'common_final_lr': True,
  }  # fmt: skip
  for column, multiplier in enumerate((1, 10)):
    got = optimizer.learning_rate(config, z['rate_steps'], multiplier)
    np.testing.assert_allclose(got, z['rate_table'][:, column], rtol=2e-5, atol=step_0 * 1e-7)


def test_an_unknown_decay_is_named():
  with pytest.raises(ValueError, match=r"decay is 'step'"):
    optimizer.learning_rate({'learning_rate': 1.0, 'decay_steps': 8, 'decay': 'step'}, 0)
