"""Devices: a mesh with one axis, batches split over it, everything else on every device."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from data_pipelines.errors import BadInput


def make_mesh(devices: int = 0) -> Mesh:
  """A mesh over the first `devices` devices (0: all of them) with the axis 'data'.

  Raises:
    BadInput: if the machine has fewer devices.
  """
  available = jax.devices()
  if devices > len(available):
    raise BadInput(f'config.devices is {devices} but this machine has {len(available)}: lower it')
  chosen = available[: devices or len(available)]
  return jax.make_mesh((len(chosen),), ('data',), axis_types=(AxisType.Auto,), devices=chosen)


def replicate(tree: Any, mesh: Mesh) -> Any:
  """Puts every array of a tree on every device."""
  return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """Splits the leading axis of every array over the devices.

  Raises:
    BadInput: if a batch does not divide by the number of devices.
  """
  for name, array in batch.items():
    if len(array) % mesh.size:
      raise BadInput(
        f'a batch of {len(array)} ({name}) does not divide over {mesh.size} devices: change the '
        f"stage's low + full, or set config.devices to a divisor"
      )
  sharding = NamedSharding(mesh, PartitionSpec('data'))
  return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}
