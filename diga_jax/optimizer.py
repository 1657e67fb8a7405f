"""SGD, Adam and AdamW as in PyTorch, with a decaying rate, a faster head and frozen parts.

Source: docs/diga.md sections 4, 6.2 and 7; docs/hiast.md.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from diga_jax.rules import search
from diga_jax.types import Params, PyTree

Settings: TypeAlias = Mapping[str, Any]  # those that `build` reads
Rate: TypeAlias = Callable[[jax.Array], jax.Array]  # step -> learning rate


def poly(
  step: int | jax.Array, base: float, total: int, power: float, warmup: int = 0
) -> jax.Array:
  """base * (1 - (step - warmup) / total) ** power after a linear warm-up from 0.

  `total` does not include the warm-up, as published; past the end the rate is 0.

  Args:
    step: the step, from 0; any shape, which is that of the result, float32.
    base: the rate at the end of the warm-up.
    total: steps over which the rate would fall to 0.
    power: exponent of the decay.
    warmup: steps of linear growth.
  """
  step = jnp.asarray(step)
  # The difference is taken first: near the end, 1 - step / total would lose its digits in float32.
  left = jnp.clip((total + warmup - step).astype(jnp.float32) / total, 0, 1)
  decayed = base * left**power
  return jnp.where(step < warmup, base * step / max(warmup, 1), decayed)


def cosine(
  step: int | jax.Array, base: float, total: int, final: float, warmup: int = 0
) -> jax.Array:
  """Half a cosine from base to the rate `final` over `total` steps, after a linear warm-up from 0.

  Other arguments and result as `poly`'s.
  """
  step = jnp.asarray(step)
  done = jnp.clip((step - warmup).astype(jnp.float32) / total, 0, 1)
  decayed = final + (base - final) * 0.5 * (1 + jnp.cos(jnp.pi * done))
  return jnp.where(step < warmup, base * step / max(warmup, 1), decayed)


def _poly(config: Settings, step: int | jax.Array, base: float) -> jax.Array:
  power, warmup = config.get('power', 0.9), config.get('warmup', 0)
  return poly(step, base, config['decay_steps'], power, warmup)


def _cosine(config: Settings, step: int | jax.Array, base: float) -> jax.Array:
  whole = config['learning_rate'] if config.get('common_final_lr', False) else base
  final = config.get('final_lr_ratio', 0.0) * whole
  return cosine(step, base, config['decay_steps'], final, config.get('warmup', 0))


# (config, step, base: the rate after the warm-up) -> the rate at the step.
DECAYS = {'poly': _poly, 'cosine': _cosine}


def learning_rate(config: Settings, step: int | jax.Array, multiplier: float = 1.0) -> jax.Array:
  """The rate at a step of the parameters whose rate is `multiplier` times the body's.

  Raises:
    ValueError: an unknown decay.
  """
  decay = config.get('decay', 'poly')
  if decay not in DECAYS:
    raise ValueError(f'decay is {decay!r}; it must be {" or ".join(map(repr, DECAYS))}')
  return DECAYS[decay](config, step, multiplier * config['learning_rate'])


UNDECAYED = '_undecayed'


class SgdState(NamedTuple):
  """Steps taken and the momentum buffers."""

  count: jax.Array
  buffer: Params


def sgd(
  rate: Rate,
  momentum: float,
  weight_decay: float,
  repeats: int = 1,
  first_step_momentum: bool = True,
) -> optax.GradientTransformation:
  """SGD as PyTorch's, which may step a parameter several times with one gradient.

  A parameter that stands `repeats` times in PyTorch's list is stepped as often; each time decays
  the weights anew, and the momentum, which all of its entries share.

  Args:
    rate: step -> learning rate.
    momentum, weight_decay: as in PyTorch.
    repeats: how often each parameter stands in the list.
    first_step_momentum: whether the later entries find the first one's momentum in the very first
      step too, as in PyTorch 1.7.1. False: each then starts a buffer of its own, as newer ones do.
  """

  def init(params: Params) -> SgdState:
    return SgdState(jnp.int32(0), jax.tree.map(jnp.zeros_like, params))

  def update(grads: Params, state: SgdState, params: Params) -> tuple[Params, SgdState]:
    later = jnp.where(state.count > 0, momentum, 0.0)

    def leaf(grad, buffer, param):
      moved = jnp.zeros_like(param)
      for entry in range(repeats):
        keep = momentum if entry and first_step_momentum else later
        buffer = keep * buffer + grad + weight_decay * (param + moved)
        moved = moved - rate(state.count) * buffer
      return moved, buffer

    leaves, tree = jax.tree.flatten(grads)
    both = list(map(leaf, leaves, jax.tree.leaves(state.buffer), jax.tree.leaves(params)))
    moved, buffer = (tree.unflatten([pair[i] for pair in both]) for i in (0, 1))
    return moved, SgdState(state.count + 1, buffer)

  return optax.GradientTransformation(init, update)


def _sgd(config: Settings, rate: Rate, repeats: int) -> optax.GradientTransformation:
  momentum, decay = config.get('momentum', 0.9), config.get('weight_decay', 0.0)
  return sgd(rate, momentum, decay, repeats, config.get('first_step_momentum', True))


def _adam(
  config: Settings, rate: Rate, repeats: int, decoupled: bool = False
) -> optax.GradientTransformation:
  if repeats > 1:
    raise ValueError("optimizer repeats are for kind 'sgd'")
  decayed = optax.add_decayed_weights(config.get('weight_decay', 0.0))
  moments = optax.scale_by_adam(*config.get('betas', (0.9, 0.999)), eps=1e-8)
  # Decay that joins the gradient goes through the moments, AdamW's does not.
  rules = (moments, decayed) if decoupled else (decayed, moments)
  return optax.chain(*rules, optax.scale_by_learning_rate(rate))


KINDS = {'sgd': _sgd, 'adam': _adam, 'adamw': functools.partial(_adam, decoupled=True)}


def _rule(config: Settings, group: str) -> optax.GradientTransformation:
  """The update rule of one of `groups`, other than 'frozen'."""
  part = group.removesuffix(UNDECAYED)
  settings = {**config, 'weight_decay': 0.0} if part != group else config
  head = part == 'head'
  multiplier = config.get('head_lr_multiplier', 1.0) if head else 1.0
  repeats = 1 if head else int(part.removeprefix('body_'))
  kind = config.get('kind', 'sgd')
  if kind not in KINDS:
    raise ValueError(f'optimizer kind is {kind!r}; it must be {" or ".join(map(repr, KINDS))}')
  return KINDS[kind](settings, lambda step: learning_rate(config, step, multiplier), repeats)


_path = functools.partial(jax.tree_util.keystr, simple=True, separator='/')  # such as a/b/kernel


def groups(config: Settings, params: Params) -> PyTree:
  """The tree of 'frozen', 'head' or 'body_N' (N = repeats); the first that fits, in this order.

  What is not to be decayed is in a group of its own: 'head_undecayed', 'body_N_undecayed'.

  Raises:
    ValueError: a pattern matches no parameter.
  """
  frozen, head = tuple(config.get('frozen', ())), config.get('head_pattern', '')
  repeats, undecayed = tuple(config.get('repeats', ())), config.get('undecayed_pattern', '')
  rules = [(pattern, 'frozen') for pattern in frozen] + [(head, 'head')] * bool(head)
  rules += [(pattern, f'body_{count}') for pattern, count in repeats]
  paths = [_path(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(params)]
  for pattern in [pattern for pattern, _ in rules] + [undecayed] * bool(undecayed):
    if not any(search(pattern, path) for path in paths):
      raise ValueError(
        f'optimizer pattern {pattern!r} matches no parameter; they are named like {paths[0]!r}'
      )

  def group(keys, _):
    path = _path(keys)
    name = next((name for pattern, name in rules if search(pattern, path)), 'body_1')
    without = undecayed and name != 'frozen' and search(undecayed, path)
    return f'{name}{UNDECAYED}' if without else name

  return jax.tree_util.tree_map_with_path(group, params)


def freezes_norms(config: Settings, params: Params) -> bool:
  """Whether a pattern of `frozen` matches the scale of a normalisation."""
  paths = [_path(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(params)]
  scales = [path for path in paths if path.endswith('/scale')]
  return any(search(pattern, s) for pattern in config.get('frozen', ()) for s in scales)


def build(config: Settings, params: Params) -> optax.GradientTransformation:
  """The optimizer for a tree of parameters.

  Frozen parameters get no update, no weight decay and no optimizer state, and their gradients
  are not read, so that XLA drops the computation of them.

  Args:
    config: learning_rate, decay_steps and, with defaults, kind ('sgd', 'adam' or 'adamw'),
      momentum (0.9), betas ((0.9, 0.999)), weight_decay (0), undecayed_pattern (''), decay
      ('poly' or 'cosine') with power (0.9) or final_lr_ratio (0) and common_final_lr
      (False), warmup (0), head_lr_multiplier (1), head_pattern, frozen (patterns), and repeats
      ((pattern, count) pairs) with first_step_momentum (True; see `sgd`). Patterns are regular
      expressions searched in 'a/b/kernel'.
    params: the tree, or its shapes.

  Raises:
    ValueError: an unknown kind, or a pattern that matches no parameter.
  """
  labels = groups(config, params)
  rules = {'frozen': optax.set_to_zero(), 'head': _rule(config, 'head')}
  # Sorted: every process, and every start, must trace the same program.
  for group in sorted(set(jax.tree.leaves(labels)) - rules.keys()):
    rules[group] = _rule(config, group)
  return optax.partition(rules, labels)
