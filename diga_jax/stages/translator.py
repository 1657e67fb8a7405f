"""The translator learns to repaint source images like target ones (docs/method.md section 4)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from diga_jax import losses, models
from diga_jax.images import normalise
from diga_jax.state import TrainState

# The networks by their names in published checkpoints: encoders and decoders of either domain,
# and a discriminator for either direction.
GENERATORS = {
  'enc_s': 'translator_encoder',
  'enc_t': 'translator_encoder',
  'dec_s2t': 'translator_decoder',
  'dec_t2s': 'translator_decoder',
}
DISCRIMINATORS = ('dis_s2t', 'dis_t2s')


def networks(translator: Any) -> dict[str, Any]:
  """The six modules by name, as wide and deep as the settings say."""
  generator = {
    name: models.build(kind, width=translator.width, blocks=translator.blocks)
    for name, kind in GENERATORS.items()
  }
  discriminator = models.build(
    'translator_discriminator',
    width=translator.discriminator_width,
    layers=translator.discriminator_layers,
    scales=translator.discriminator_scales,
  )
  return generator | dict.fromkeys(DISCRIMINATORS, discriminator)


def translate(params: Any, images: jax.Array, translator: Any) -> jax.Array:
  """Source images in the target's style, normalised BGR [B, H, W, 3]; H and W multiples of 4."""
  nets = networks(translator)
  content = nets['enc_s'].apply({'params': params['enc_s']}, images)
  return nets['dec_s2t'].apply({'params': params['dec_s2t']}, content)


def initial_params(key: jax.Array, translator: Any, size: tuple[int, int]) -> dict[str, Any]:
  """Fresh parameters: {'generators': {name: ...}, 'discriminators': {name: ...}}."""
  nets = networks(translator)
  image = jnp.zeros((1, *size, 3))
  content, _ = nets['enc_s'].init_with_output(key, image)
  inputs = {name: content if name.startswith('dec') else image for name in nets}
  keys = dict(zip(nets, jax.random.split(key, len(nets)), strict=True))
  params = {name: nets[name].init(keys[name], inputs[name])['params'] for name in nets}
  return {
    'generators': {name: params[name] for name in GENERATORS},
    'discriminators': {name: params[name] for name in DISCRIMINATORS},
  }


def l1(a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.mean(jnp.abs(a - b))


def train_step(
  state: TrainState, batch: dict[str, jax.Array], frozen: Any = None, *, model, tx, config
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One step: the discriminators on detached fakes, then the generators against them.

  Args:
    state: `params` and `opt_state` each hold 'generators' and 'discriminators'.
    batch: source_image, target_image uint8 [B, H, W, 3]; source_label [B, H, W].
    frozen: VGG-19's parameters for the perceptual term; None leaves the term out.
    model: {'vgg': module} | `networks(...)`.
    tx: an optimizer for each of the two.
    config: `translator` with the weights of the terms.
  """
  s, t = normalise(batch['source_image']), normalise(batch['target_image'])
  weights = config.translator

  def apply(params, name, x):
    return model[name].apply({'params': params[name]}, x)

  def fakes(generators):
    content_s, content_t = apply(generators, 'enc_s', s), apply(generators, 'enc_t', t)
    return (
      content_s,
      content_t,
      apply(generators, 'dec_s2t', content_s),
      apply(generators, 'dec_t2s', content_t),
    )

  def discriminator_loss(discriminators, s2t, t2s):
    return sum(
      losses.adversarial_discriminator(
        apply(discriminators, name, real), apply(discriminators, name, fake)
      )
      for name, real, fake in (('dis_s2t', t, s2t), ('dis_t2s', s, t2s))
    )

  def generator_loss(generators, discriminators):
    content_s, content_t, s2t, t2s = fakes(generators)
    back_s = apply(generators, 'dec_t2s', apply(generators, 'enc_t', s2t))
    back_t = apply(generators, 'dec_s2t', apply(generators, 'enc_s', t2s))
    terms = {
      'adversarial': losses.adversarial_generator(apply(discriminators, 'dis_s2t', s2t))
      + losses.adversarial_generator(apply(discriminators, 'dis_t2s', t2s)),
      'cycle': l1(back_s, s) + l1(back_t, t),
      'edge': losses.edge(s2t, s, batch['source_label']),
      'reconstruction': l1(apply(generators, 'dec_t2s', content_s), s)
      + l1(apply(generators, 'dec_s2t', content_t), t),
    }
    if frozen is not None:
      features = [model['vgg'].apply({'params': frozen}, x) for x in (s2t, s, t2s, t)]
      terms['perceptual'] = losses.perceptual(*features[:2]) + losses.perceptual(*features[2:])
    return sum(weights[name] * term for name, term in terms.items()), terms

  params, opt_state = dict(state.params), dict(state.opt_state)
  _, _, s2t, t2s = fakes(params['generators'])
  metrics = {}
  metrics['discriminator'], grads = jax.value_and_grad(discriminator_loss)(
    params['discriminators'], s2t, t2s
  )
  updates, opt_state['discriminators'] = tx['discriminators'].update(
    grads, opt_state['discriminators'], params['discriminators']
  )
  params['discriminators'] = optax.apply_updates(params['discriminators'], updates)

  (metrics['loss'], terms), grads = jax.value_and_grad(generator_loss, has_aux=True)(
    params['generators'], params['discriminators']
  )
  updates, opt_state['generators'] = tx['generators'].update(
    grads, opt_state['generators'], params['generators']
  )
  params['generators'] = optax.apply_updates(params['generators'], updates)
  state = state.replace(step=state.step + 1, params=params, opt_state=opt_state)
  return state, {**metrics, **terms}
