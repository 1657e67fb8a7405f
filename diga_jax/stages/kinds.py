"""The kinds of training stages."""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from diga_jax.stages import adversarial, hiast, self_training, translator, warmup

STEPS = {
  'translator': translator.train_step,
  'warmup': warmup.train_step,
  'self_training': self_training.train_step,
  'hiast': hiast.train_step,
}


def train_step(stage: ConfigDict) -> Callable[..., Any]:
  """The step of a training stage."""
  return adversarial.train_step if is_adversarial(stage) else STEPS[stage.kind]


def is_adversarial(stage: ConfigDict) -> bool:
  return stage.kind == 'warmup' and stage.method == 'adversarial'
