"""The teacher as an exponential moving average of the student (docs/diga.md section 6.1).

The decay is a setting of each stage: `ema_decay_max` and `ema_decay` in configs/stages.py (0.999).
"""

import jax
import jax.numpy as jnp

from diga_jax.types import Params


def decay(step: int | jax.Array, maximum: float = 0.999) -> jax.Array:
  """min(1 - 1 / (step + 1), maximum): a plain average of the student at first, 0 at step 0."""
  return jnp.minimum(1 - 1 / (jnp.asarray(step, jnp.float32) + 1), maximum)


def update(teacher: Params, student: Params, decay: float | jax.Array) -> Params:
  """decay * teacher + (1 - decay) * student over two trees of parameters of the same structure.

  With decay 0 the result equals the student to the bit.
  """
  return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, teacher, student)
