"""Adversarial warm-up: what DiGA replaces, and HIAST's own start.

The network learns on the source, and to give target images predictions that a discriminator takes
for the source's and that are certain. Source: HIAST (arXiv 2302.06992), after AdaptSegNet;
docs/hiast.md.
"""

import functools

import jax
import jax.numpy as jnp
import optax

from data_pipelines.errors import BadInput
from diga_jax import ema, losses, models, optimizer
from diga_jax.parallel import collectives
from diga_jax.parallel.example_keys import example_keys
from diga_jax.stages.forward import forward
from diga_jax.stages.objective import supervised_loss
from diga_jax.stages.setup import Setup, schedule, segmentation
from diga_jax.stages.views import normalise_images
from diga_jax.state import TrainState, apply_gradients, update_params
from diga_jax.types import Batch, Metrics, Params, PyTree, SegmentationNet, StepConfig, Variables

SOURCE, TARGET = 0.0, 1.0  # what the discriminator is to say


def train_step(
  state: TrainState,
  batch: Batch,
  frozen: Params | None = None,
  *,
  model: dict[str, SegmentationNet],
  tx: dict[str, optax.GradientTransformation],
  config: StepConfig,
  axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
  """One step of the network and one of the discriminator, which sees the same predictions.

  See `types.TrainStep`.

  Args:
    state: with `discriminator`.
    batch: source_image, source_label, target_image.
    model, tx: {'network', 'discriminator'} and their optimizers.
  """
  stage, batch = config.stage, normalise_images(batch)
  network, discriminator = model['network'], model['discriminator']
  rows = len(batch['source_image'])
  keys = functools.partial(example_keys, state.key, state.step, batch=rows, axis_name=axis_name)
  decay = ema.decay(state.step, stage.ema_decay_max)
  teacher = ema.update(state.teacher, state.params, decay)  # 6.1

  def loss_fn(params: Params) -> tuple[jax.Array, tuple[PyTree, ...]]:
    stats, dropout = state.batch_stats, keys('student_dropout')
    source = forward(network, params, stats, batch['source_image'], dropout)
    stats, dropout = source.batch_stats, keys('target_dropout')
    target = forward(network, params, stats, batch['target_image'], dropout)
    probabilities = [jax.nn.softmax(output.heads[0]) for output in (source, target)]
    target_scores = discriminator.apply({'params': state.discriminator['params']}, probabilities[1])
    terms = {
      'cross_entropy': supervised_loss(source.heads[0], batch['source_label'], stage, axis_name),
      'adversarial': jnp.mean((target_scores - SOURCE) ** 2),
      'entropy': losses.entropy(target.heads[0]),
    }
    loss = terms['cross_entropy'] + (
      stage.adversarial_weight * terms['adversarial'] + stage.entropy_weight * terms['entropy']
    )
    return loss, (target.batch_stats, probabilities, {'loss': loss, **terms})

  grads, (stats, probabilities, metrics) = jax.grad(loss_fn, has_aux=True)(state.params)
  trained, metrics['discriminator'] = discriminator_step(
    state.discriminator, probabilities, discriminator, tx['discriminator'], axis_name
  )
  moved = {'batch_stats': stats, 'teacher': teacher, 'discriminator': trained}
  state = apply_gradients(state, grads, tx['network'], axis_name, **moved)
  return state, collectives.mean(metrics, axis_name)


def discriminator_step(
  state: dict[str, PyTree],
  probabilities: list[jax.Array],
  discriminator: SegmentationNet,
  tx: optax.GradientTransformation,
  axis_name: str | None,
) -> tuple[dict[str, PyTree], jax.Array]:
  """The discriminator's {'params', 'opt_state'} one step on, and its loss.

  `probabilities` [B, H, W, C] are the network's on the source and on the target images.
  """

  def loss_fn(params: Params) -> jax.Array:
    pairs = zip(probabilities, (SOURCE, TARGET), strict=True)
    scores = ((discriminator.apply({'params': params}, x), domain) for x, domain in pairs)
    return sum((jnp.mean((score - domain) ** 2) for score, domain in scores), jnp.float32(0)) / 2

  loss, grads = jax.value_and_grad(loss_fn)(state['params'])
  params, opt_state = update_params(state['params'], state['opt_state'], grads, tx, axis_name)
  return {'params': params, 'opt_state': opt_state}, loss


def set_up(network: SegmentationNet, config: StepConfig, variables: Variables) -> Setup:
  """The setup of a stage with a discriminator beside the network; see `setup.segmentation`.

  Raises:
    BadInput: a pattern of the discriminator's optimizer matches none of its parameters.
  """
  model, tx, create_network = segmentation(network, config, variables)
  stage = config.stage
  discriminator = models.build(
    'output_discriminator',
    classes=network.classes,
    width=stage.discriminator_width,
    dtype=network.dtype,
    precision=network.precision,
  )
  settings = schedule(stage.discriminator_optimizer, stage.steps)
  try:
    discriminator_tx = optimizer.build(settings, models.shapes(discriminator)['params'])
  except ValueError as error:
    raise BadInput(f"the stage's discriminator_optimizer: {error}") from error

  def create(key: jax.Array, variables: Variables, centroids: PyTree) -> TrainState:
    image = jnp.zeros((1, 64, 64, network.classes))
    # No step folds this number into the key.
    params = discriminator.init(jax.random.fold_in(key, 2**32 - 1), image)['params']
    begun = {'params': params, 'opt_state': discriminator_tx.init(params)}
    return create_network(key, variables, centroids).replace(discriminator=begun)

  both = {'network': model, 'discriminator': discriminator}
  return Setup(both, {'network': tx, 'discriminator': discriminator_tx}, create)
