"""SGD and Adam as PyTorch computes them, with a polynomial rate, a faster head and frozen parts.

Source: docs/method.md sections 4, 6.2 and 7.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax


def poly(
  step: int | jax.Array, base: float, total: int, power: float, warmup: int = 0
) -> jax.Array:
  """base * (1 - (step - warmup) / total) ** power after a linear warm-up from 0.

  `total` does not include the warm-up, as published; past the end the rate is 0.

  Args:
    step: the step, from 0; any shape.
    base: the rate at the end of the warm-up.
    total: steps over which the rate would fall to 0.
    power: exponent of the decay.
    warmup: steps of linear growth.

  Returns:
    float32, the shape of `step`.
  """
  step = jnp.asarray(step)
  # The difference is taken first: near the end, 1 - step / total would lose its digits in float32.
  left = jnp.clip((total + warmup - step).astype(jnp.float32) / total, 0, 1)
  decayed = base * left**power
  return jnp.where(step < warmup, base * step / max(warmup, 1), decayed)


def learning_rate(config: Mapping[str, Any], step: int | jax.Array) -> jax.Array:
  """The rate of the body at a step, for the log; the head's is config['head'] times it."""
  return poly(
    step,
    config['learning_rate'],
    config['total'],
    config.get('power', 0.9),
    config.get('warmup', 0),
  )


def _rule(config: Mapping[str, Any], multiplier: float) -> optax.GradientTransformation:
  """One update rule. Weight decay joins the gradient before the moments, as in PyTorch."""
  kind = config.get('kind', 'sgd')
  if kind == 'sgd':
    momentum = config.get('momentum', 0.9)
    moments = optax.trace(momentum) if momentum else optax.identity()
  elif kind == 'adam':
    moments = optax.scale_by_adam(*config.get('betas', (0.9, 0.999)), eps=1e-8)
  else:
    raise ValueError(f"optimizer kind is {kind!r}; it must be 'sgd' or 'adam'")
  return optax.chain(
    optax.add_decayed_weights(config.get('weight_decay', 0.0)),
    moments,
    optax.scale_by_learning_rate(lambda step: multiplier * learning_rate(config, step)),
  )


def _path(keys: Iterable[Any]) -> str:
  return '/'.join(str(getattr(k, 'key', getattr(k, 'idx', getattr(k, 'name', k)))) for k in keys)


def groups(config: Mapping[str, Any], params: Any) -> Any:
  """The tree of 'frozen', 'head' or 'body', one for each parameter; frozen wins over head.

  Raises:
    ValueError: a pattern matches no parameter.
  """
  frozen = tuple(config.get('frozen', ()))
  head = config.get('head_pattern', '')
  paths = [_path(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(params)]
  for pattern in (*frozen, *([head] if head else [])):
    if not any(re.search(pattern, path) for path in paths):
      raise ValueError(
        f'optimizer pattern {pattern!r} matches no parameter; they are named like {paths[0]!r}'
      )

  def group(keys, _):
    path = _path(keys)
    if any(re.search(pattern, path) for pattern in frozen):
      return 'frozen'
    return 'head' if head and re.search(head, path) else 'body'

  return jax.tree_util.tree_map_with_path(group, params)


def build(config: Mapping[str, Any], params: Any) -> optax.GradientTransformation:
  """The optimizer for a tree of parameters.

  Frozen parameters get no update, no weight decay and no optimizer state, and their gradients
  are not read, so that XLA drops the computation of them.

  Args:
    config: learning_rate, total (steps) and, with defaults, kind ('sgd' or 'adam'), momentum
      (0.9), betas ((0.9, 0.999)), weight_decay (0), power (0.9), warmup (0), head (rate
      multiplier, 1), head_pattern and frozen (regular expressions searched in 'a/b/kernel').
    params: the tree, or its shapes.

  Raises:
    ValueError: an unknown kind, or a pattern that matches no parameter.
  """
  rules = {
    'body': _rule(config, 1.0),
    'head': _rule(config, config.get('head', 1.0)),
    'frozen': optax.set_to_zero(),
  }
  return optax.partition(rules, groups(config, params))
