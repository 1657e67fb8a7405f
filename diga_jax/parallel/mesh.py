"""Devices: a mesh with one axis, batches split over it, everything else on every device."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from data_pipelines.errors import BadInput
from diga_jax.parallel import processes
from diga_jax.types import Metrics, Params, PyTree

AXIS = 'data'
Step = Callable[..., tuple[PyTree, Metrics]]
CompiledStep = Callable[[PyTree, Mapping[str, np.ndarray], Params | None], tuple[PyTree, Metrics]]


def make_mesh(devices: int = 0) -> Mesh:
  """A mesh over the first `devices` devices (0: all of them, of all processes) with one axis.

  Raises:
    BadInput: if there are fewer devices, or several processes are to use only some of them.
  """
  available = jax.devices()
  if devices > len(available):
    raise BadInput(f'config.devices is {devices} but there are {len(available)}: lower it')
  if jax.process_count() > 1 and devices not in (0, len(available)):
    raise BadInput(
      f'config.devices is {devices}, but {jax.process_count()} processes share all '
      f'{len(available)} devices: set it to 0'
    )
  return mesh_over(available[: devices or len(available)])


def check_memory(needed: int, what: str, remedy: str) -> None:
  """Refuses what cannot fit into a device, before it is tried: on a CPU the kernel ends a process.

  Args:
    needed: bytes on one device: a part of what will be needed, such as one array, will do.
    what, remedy: for the message: what needs them, and what to change.

  Raises:
    BadInput: the device has less; a CPU has the machine's memory.
  """
  stats = jax.local_devices()[0].memory_stats() or {}
  memory = stats.get('bytes_limit') or os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  if needed > memory:
    needs, has = (f'{size / 2**30:,.1f} GiB' for size in (needed, memory))
    raise BadInput(f'{what}: at least {needs} of memory are needed, there are {has}: {remedy}')


def local_mesh(mesh: Mesh) -> Mesh:
  """The part of a mesh that belongs to this process."""
  return mesh if jax.process_count() == 1 else mesh_over(list(mesh.local_devices))


def mesh_over(devices: Sequence[object]) -> Mesh:
  """A mesh over given devices with one axis."""
  return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
  """Puts every array of a tree on every device; all processes give the same values."""
  everywhere = NamedSharding(mesh, PartitionSpec())
  if jax.process_count() == 1:
    return jax.device_put(tree, everywhere)

  def place(x: jax.Array | np.ndarray) -> jax.Array:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
      return jax.random.wrap_key_data(place(jax.random.key_data(x)))
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, everywhere, lambda index: x[index])

  return jax.tree.map(place, tree)


def to_local_mesh(tree: PyTree, mesh: Mesh) -> PyTree:
  """Replicated arrays of a mesh of all processes, on a mesh of this one alone."""
  if jax.process_count() == 1:
    return tree
  local = jax.tree.map(lambda x: x.addressable_data(0), tree)
  return jax.device_put(local, NamedSharding(mesh, PartitionSpec()))


def local_rows(rows: int, mesh: Mesh) -> slice:
  """Which of a global batch's rows this process has to make.

  Raises:
    BadInput: if a batch does not divide by the number of devices.
  """
  if rows % mesh.size:
    raise BadInput(
      f"a batch of {rows} does not divide over {mesh.size} devices: change the stage's "
      'batch.low_rows + batch.full_rows, or set config.devices to a divisor'
    )
  count = rows // mesh.size * len(mesh.local_devices)
  return slice(jax.process_index() * count, (jax.process_index() + 1) * count)


def compile_step(step: Step, mesh: Mesh, parallel: str) -> CompiledStep:
  """A training step (state, batch of this process, frozen) -> (state, metrics) on the devices.

  Args:
    step: pure; takes `axis_name`. The state is donated.
    mesh: the devices. State and frozen variables are on all of them.
    parallel: a key of `PARALLEL`.

  Raises:
    BadInput: 'pmap' with several processes.
  """
  return PARALLEL[parallel][0](step, mesh)


def _jit(step: Step, mesh: Mesh) -> CompiledStep:
  step, sharding = jax.jit(step, donate_argnums=0), NamedSharding(mesh, PartitionSpec(AXIS))
  place = functools.partial(jax.make_array_from_process_local_data, sharding)
  compiled = jax.process_count() == 1

  def run(
    state: PyTree, batch: Mapping[str, np.ndarray], frozen: Params | None
  ) -> tuple[PyTree, Metrics]:
    nonlocal compiled
    arguments = (state, jax.tree.map(place, dict(batch)), frozen)
    if not compiled:  # a collective would wait for the slowest compiler for minutes only
      step.lower(*arguments).compile()
      processes.barrier('the step is compiled')
      compiled = True
    return step(*arguments)

  return run


def _pmap(step: Step, mesh: Mesh) -> CompiledStep:
  if jax.process_count() > 1:
    raise BadInput("config.parallel is 'pmap', which is for one process: use 'jit'")
  axes = {'axis_name': AXIS, 'in_axes': (None, 0, None), 'out_axes': None}
  step, devices = functools.partial(step, axis_name=AXIS), list(mesh.devices.flat)
  step = jax.pmap(step, devices=devices, donate_argnums=0, **axes)

  def split(x: np.ndarray) -> np.ndarray:
    return x.reshape(mesh.size, -1, *x.shape[1:])

  return lambda state, batch, frozen: step(state, jax.tree.map(split, dict(batch)), frozen)


# What `parallel` may be: (how a step is compiled, the axis that the step and its network reduce
# over). Under 'jit' a step sees the global batch, and the compiler splits it; under 'pmap' it sees
# one device's share and exchanges by itself (one process only).
PARALLEL = {'jit': (_jit, None), 'pmap': (_pmap, AXIS)}
