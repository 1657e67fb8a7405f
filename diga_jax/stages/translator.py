"""The translator learns to repaint source images like target ones (docs/method.md section 4)."""

from typing import Any

import jax
import jax.numpy as jnp

from diga_jax import losses, models, optimizer
from diga_jax.parallel import collectives
from diga_jax.pixels import normalise
from diga_jax.stages.setup import Setup, schedule
from diga_jax.state import TrainState, update
from diga_jax.types import PyTree, SegmentationNet, StepConfig, Variables

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


def set_up(network: SegmentationNet, config: StepConfig, variables: Variables) -> Setup:
  """The setup of the translator's stage, which trains no segmentation network.

  Args:
    network: not used.
    config: the stage's settings and the translator's.
    variables: {'params'} as from `initial_params`, or their shapes.
  """
  settings = schedule(config.stage.optimizer, config.stage.steps)
  tx = {half: optimizer.build(settings, tree) for half, tree in variables['params'].items()}
  model = {'vgg': models.build('vgg19_features')} | networks(config.translator)

  def create(key: jax.Array, variables: Variables, centroids: PyTree) -> TrainState:
    params = variables['params']
    return TrainState(
      step=jnp.int32(0),
      params=params,
      batch_stats=(),
      opt_state={half: tx[half].init(tree) for half, tree in params.items()},
      teacher=(),
      centroids=(),
      discriminator=(),
      key=key,
    )

  return Setup(model, tx, create)


def run(model: dict[str, Any], params: Any, name: str, x: jax.Array) -> Any:
  return model[name].apply({'params': params[name]}, x)


def fakes(model: dict[str, Any], generators: Any, s: jax.Array, t: jax.Array) -> dict[str, Any]:
  """Contents of both domains and their translations; s, t normalised BGR [B, H, W, 3]."""
  content_s, content_t = run(model, generators, 'enc_s', s), run(model, generators, 'enc_t', t)
  return {
    'content_s': content_s,
    'content_t': content_t,
    's2t': run(model, generators, 'dec_s2t', content_s),
    't2s': run(model, generators, 'dec_t2s', content_t),
  }


def discriminator_loss(model, discriminators, fake, s, t) -> jax.Array:
  """Least squares, real against fake, in both directions."""
  pairs = (('dis_s2t', t, fake['s2t']), ('dis_t2s', s, fake['t2s']))
  return sum(
    losses.adversarial_discriminator(
      run(model, discriminators, name, real), run(model, discriminators, name, made)
    )
    for name, real, made in pairs
  )


def generator_terms(model, generators, discriminators, vgg, s, t, labels) -> dict[str, jax.Array]:
  """The terms of the generators' loss, unweighted; 'perceptual' only with VGG-19's parameters."""
  fake = fakes(model, generators, s, t)
  s2t, t2s = fake['s2t'], fake['t2s']
  back = fakes(model, generators, t2s, s2t)
  terms = {
    'adversarial': losses.adversarial_generator(run(model, discriminators, 'dis_s2t', s2t))
    + losses.adversarial_generator(run(model, discriminators, 'dis_t2s', t2s)),
    'cycle': losses.l1(back['t2s'], s) + losses.l1(back['s2t'], t),
    'edge': losses.edge(s2t, s, labels),
    'reconstruction': losses.l1(run(model, generators, 'dec_t2s', fake['content_s']), s)
    + losses.l1(run(model, generators, 'dec_s2t', fake['content_t']), t),
  }
  if vgg is not None:
    features = [model['vgg'].apply({'params': vgg}, x) for x in (s2t, s, t2s, t)]
    terms['perceptual'] = losses.perceptual(*features[:2]) + losses.perceptual(*features[2:])
  return terms


def train_step(
  state: TrainState,
  batch: dict[str, jax.Array],
  frozen: Any = None,
  *,
  model,
  tx,
  config,
  axis_name: str | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One step: the discriminators on detached fakes, then the generators against them.

  Args:
    state: `params` and `opt_state` each hold 'generators' and 'discriminators'.
    batch: source_image, target_image uint8 [B, H, W, 3]; source_label [B, H, W].
    frozen: VGG-19's parameters for the perceptual term; None leaves the term out.
    model: {'vgg': module} | `networks(...)`.
    tx: an optimizer for each of the two.
    config: `translator` with the weights of the terms.
    axis_name: under `jax.pmap`, the axis over which the batch is spread.
  """
  s, t = normalise(batch['source_image']), normalise(batch['target_image'])
  params, opt_state = dict(state.params), dict(state.opt_state)

  def descend(half: str, grads: Any) -> None:
    params[half], opt_state[half] = update(
      params[half], opt_state[half], grads, tx[half], axis_name
    )

  fake = fakes(model, params['generators'], s, t)
  metrics = {}
  metrics['discriminator'], grads = jax.value_and_grad(
    lambda discriminators: discriminator_loss(model, discriminators, fake, s, t)
  )(params['discriminators'])
  descend('discriminators', grads)

  def generator_loss(generators):
    terms = generator_terms(
      model, generators, params['discriminators'], frozen, s, t, batch['source_label']
    )
    return sum(config.translator[name] * term for name, term in terms.items()), terms

  (metrics['loss'], terms), grads = jax.value_and_grad(generator_loss, has_aux=True)(
    params['generators']
  )
  descend('generators', grads)
  state = state.replace(step=state.step + 1, params=params, opt_state=opt_state)
  return state, collectives.mean({**metrics, **terms}, axis_name)
