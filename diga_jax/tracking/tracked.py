"""The names of the trackers, and what is said of a tracked run."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from diga_jax.types import PyTree

TENSORBOARD = 'tensorboard'
# Services, each an extra in setup.cfg and a package of the same name.
SERVICES = {'wandb': 'Weights & Biases', 'mlflow': 'MLflow'}
TRACKERS = (TENSORBOARD, *SERVICES)


class Tracked(NamedTuple):
  """A folder that has curves: a stage, or a measurement.

  Attributes:
    trackers: names of `TRACKERS`.
    group: the working directory.
    name: of the folder below it.
    config: field -> value, flat.
  """

  trackers: Sequence[str] = (TENSORBOARD,)
  group: str = ''
  name: str = ''
  config: Mapping[str, PyTree] = {}
