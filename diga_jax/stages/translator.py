"""The translator learns to repaint source images like target ones (docs/diga.md section 4)."""

import functools

import jax
import jax.numpy as jnp
import optax

from diga_jax import losses, models, optimizer
from diga_jax.models.translator import networks
from diga_jax.parallel import collectives
from diga_jax.stages.setup import Setup, schedule
from diga_jax.stages.views import normalise_images
from diga_jax.state import TrainState, update_params
from diga_jax.types import Batch, Metrics, Params, PyTree, SegmentationNet, StepConfig, Variables

Networks = dict[str, SegmentationNet]


def set_up(network: SegmentationNet, config: StepConfig, variables: Variables) -> Setup:
  """The setup of the translator's stage, which trains no segmentation network.

  Args:
    network: not used.
    config: the stage's settings and the translator's.
    variables: {'params'} as models.translator.initial_params gives them, or their shapes.
  """
  settings = schedule(config.stage.optimizer, config.stage.steps)
  tx = {half: optimizer.build(settings, tree) for half, tree in variables['params'].items()}
  precision = config.precision
  vgg = models.build('vgg19_features', precision=precision)
  model = {'vgg': vgg} | networks(config.translator, precision)

  def create(key: jax.Array, variables: Variables, centroids: PyTree) -> TrainState:
    params = variables['params']
    opt_state = {half: tx[half].init(tree) for half, tree in params.items()}
    return TrainState(step=jnp.int32(0), params=params, opt_state=opt_state, key=key)

  return Setup(model, tx, create)


def train_step(
  state: TrainState,
  batch: Batch,
  frozen: Params | None = None,
  *,
  model: Networks,
  tx: dict[str, optax.GradientTransformation],
  config: StepConfig,
  axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
  """One step: the discriminators on detached fakes, then the generators against them.

  See `types.TrainStep`.

  Args:
    state: `params` and `opt_state` each hold 'generators' and 'discriminators'.
    batch: source_image, source_label, target_image.
    frozen: VGG-19's parameters for the perceptual term; None leaves the term out.
    model: {'vgg': module} | `networks(...)` of diga_jax/models/translator.py.
    tx: an optimizer for each of the two halves.
  """
  batch = normalise_images(batch)
  s, t, labels = batch['source_image'], batch['target_image'], batch['source_label']
  params, opt_state = dict(state.params), dict(state.opt_state)

  def move(half: str, grads: Params) -> None:
    params[half], opt_state[half] = update_params(
      params[half], opt_state[half], grads, tx[half], axis_name
    )

  fake = translate_both(model, params['generators'], s, t)
  loss_fn = functools.partial(discriminator_loss, model, fake=fake, s=s, t=t)
  discriminator, grads = jax.value_and_grad(loss_fn)(params['discriminators'])
  move('discriminators', grads)  # 4, the first item

  def generator_loss(generators: Params) -> tuple[jax.Array, Metrics]:
    terms = generator_terms(model, generators, params['discriminators'], frozen, s, t, labels)
    weighted = (config.translator[name] * term for name, term in terms.items())
    return functools.reduce(jnp.add, weighted), terms

  (loss, terms), grads = jax.value_and_grad(generator_loss, has_aux=True)(params['generators'])
  move('generators', grads)  # 4, the second item
  metrics = {'loss': loss, 'discriminator': discriminator, **terms}
  state = state.replace(step=state.step + 1, params=params, opt_state=opt_state)
  return state, collectives.mean(metrics, axis_name)


def translate_both(
  model: Networks, generators: Params, s: jax.Array, t: jax.Array
) -> dict[str, jax.Array]:
  """Contents of both domains and their translations; s, t normalised BGR [B, H, W, 3]."""
  net = functools.partial(apply, model, generators)
  content_s, content_t = net('enc_s', s), net('enc_t', t)
  return {
    'content_s': content_s,
    'content_t': content_t,
    's2t': net('dec_s2t', content_s),
    't2s': net('dec_t2s', content_t),
  }


def discriminator_loss(
  model: Networks, discriminators: Params, fake: dict[str, jax.Array], s: jax.Array, t: jax.Array
) -> jax.Array:
  """Least squares, real against fake (of `translate_both`), in both directions."""
  net = functools.partial(apply, model, discriminators)
  s2t = losses.adversarial_discriminator(net('dis_s2t', t), net('dis_s2t', fake['s2t']))
  return s2t + losses.adversarial_discriminator(net('dis_t2s', s), net('dis_t2s', fake['t2s']))


def generator_terms(
  model: Networks,
  generators: Params,
  discriminators: Params,
  vgg: Params | None,
  s: jax.Array,
  t: jax.Array,
  labels: jax.Array,
) -> Metrics:
  """The terms of the generators' loss, unweighted; 'perceptual' only with VGG-19's parameters."""
  generator = functools.partial(apply, model, generators)
  discriminator = functools.partial(apply, model, discriminators)
  fake = translate_both(model, generators, s, t)
  s2t, t2s = fake['s2t'], fake['t2s']
  back = translate_both(model, generators, t2s, s2t)
  terms = {
    'adversarial': losses.adversarial_generator(discriminator('dis_s2t', s2t))
    + losses.adversarial_generator(discriminator('dis_t2s', t2s)),
    'cycle': losses.l1(back['t2s'], s) + losses.l1(back['s2t'], t),
    'edge': losses.edge(s2t, s, labels),
    'reconstruction': losses.l1(generator('dec_t2s', fake['content_s']), s)
    + losses.l1(generator('dec_s2t', fake['content_t']), t),
  }
  if vgg is not None:
    features = [model['vgg'].apply({'params': vgg}, x) for x in (s2t, s, t2s, t)]
    terms['perceptual'] = losses.perceptual(features[0], features[1])
    terms['perceptual'] += losses.perceptual(features[2], features[3])
  return terms


def apply(model: Networks, params: Params, name: str, x: jax.Array) -> PyTree:
  """The network called `name`: a content [B, h, w, D], an image, or a discriminator's maps."""
  return model[name].apply({'params': params[name]}, x)
