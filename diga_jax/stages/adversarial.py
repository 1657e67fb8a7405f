"""Adversarial warm-up: what DiGA replaces, and HIAST's own start.

The network learns on the source, and to give target images predictions that a discriminator takes
for the source's and that are certain. Source: HIAST (arXiv 2302.06992), after AdaptSegNet;
docs/method.md section 10.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from diga_jax import ema, losses, models, optimizer
from diga_jax import state as states
from diga_jax.parallel import collectives
from diga_jax.parallel.example_keys import example_keys
from diga_jax.pixels import normalise
from diga_jax.stages import forward, objective
from diga_jax.stages.setup import Setup, schedule, segmentation
from diga_jax.state import TrainState, descend
from diga_jax.types import PyTree, SegmentationNet, StepConfig, Variables

SOURCE, TARGET = 0.0, 1.0


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
  """One step of the network and one of the discriminator, which sees the same predictions.

  Args:
    state: the state after i steps, with `discriminator`.
    batch: source_image, target_image uint8 [B, H, W, 3]; source_label [B, H, W].
    frozen: not used.
    model, tx: {'network', 'discriminator'} and their optimizers.
    config: `stage` (this stage's settings).
    axis_name: under `jax.pmap`, the axis over which the batch is spread.

  Returns:
    The state after i + 1 steps and the losses.
  """
  stage, labels = config.stage, batch['source_label']
  source, target = normalise(batch['source_image']), normalise(batch['target_image'])
  teacher = ema.update(state.teacher, state.params, ema.decay(state.step, stage.ema_decay_max))
  names = ('student_dropout', 'target_dropout')
  keys = [example_keys(state.key, state.step, name, len(source), axis_name) for name in names]

  def judge(params: Any, probabilities: jax.Array) -> jax.Array:
    return model['discriminator'].apply({'params': params}, probabilities)

  def loss_fn(params):
    network = model['network']
    logits, _, stats = forward.forward(network, params, state.batch_stats, source, keys[0])
    on_target, _, stats = forward.forward(network, params, stats, target, keys[1])
    seen = jax.nn.softmax(logits), jax.nn.softmax(on_target)
    fooled = judge(state.discriminator['params'], seen[1])
    terms = {
      'cross_entropy': objective.supervised_loss(logits, labels, stage, axis_name),
      'adversarial': jnp.mean((fooled - SOURCE) ** 2),
      'entropy': losses.entropy(on_target),
    }
    settings = stage.adversarial
    loss = terms['cross_entropy']
    loss += (
      settings.adversarial_weight * terms['adversarial']
      + settings.entropy_weight * terms['entropy']
    )
    return loss, (stats, seen, {'loss': loss, **terms})

  grads, (batch_stats, seen, metrics) = jax.grad(loss_fn, has_aux=True)(state.params)
  discriminator, metrics['discriminator'] = learn_to_tell(
    state.discriminator, seen, judge, tx['discriminator'], axis_name
  )
  moved = {'batch_stats': batch_stats, 'teacher': teacher, 'discriminator': discriminator}
  state = descend(state, grads, tx['network'], axis_name, **moved)
  return state, collectives.mean(metrics, axis_name)


def learn_to_tell(
  discriminator: dict[str, Any],
  seen: tuple[jax.Array, jax.Array],
  judge: Callable[[Any, jax.Array], jax.Array],
  tx: Any,
  axis_name: str | None,
) -> tuple[dict[str, Any], jax.Array]:
  """The discriminator one step on, and its loss, from probabilities of source and target."""

  def loss_fn(params):
    apart = zip(seen, (SOURCE, TARGET), strict=True)
    return sum(jnp.mean((judge(params, x) - wanted) ** 2) for x, wanted in apart) / 2

  loss, grads = jax.value_and_grad(loss_fn)(discriminator['params'])
  params, opt_state = states.update(
    discriminator['params'], discriminator['opt_state'], grads, tx, axis_name
  )
  return {'params': params, 'opt_state': opt_state}, loss


def set_up(network: SegmentationNet, config: StepConfig, variables: Variables) -> Setup:
  """The setup of a stage with a discriminator beside the network; see `setup.segmentation`."""
  model, tx, create_network = segmentation(network, config, variables)
  stage = config.stage
  discriminator = models.build(
    'output_discriminator',
    classes=network.classes,
    width=stage.adversarial.width,
    dtype=network.dtype,
  )
  settings = schedule(stage.adversarial.optimizer, stage.steps)
  discriminator_tx = optimizer.build(settings, models.shapes(discriminator)['params'])

  def create(key: jax.Array, variables: Variables, centroids: PyTree) -> TrainState:
    image = jnp.zeros((1, 64, 64, network.classes))
    params = discriminator.init(jax.random.fold_in(key, 3), image)['params']
    begun = {'params': params, 'opt_state': discriminator_tx.init(params)}
    return create_network(key, variables, centroids).replace(discriminator=begun)

  both = {'network': model, 'discriminator': discriminator}
  return Setup(both, {'network': tx, 'discriminator': discriminator_tx}, create)
