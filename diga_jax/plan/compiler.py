"""Memory, FLOPs and collectives of a step, compiled by XLA for devices you do not have.

They follow from the optimised program, before machine code is generated, which is nine tenths of a
TPU compilation. So the compiler runs in a process of its own and dumps the program (XLA's option
`xla_dump_to`); the process is ended when it begins to generate code.
"""

import importlib
import math
import multiprocessing
import multiprocessing.process
import os
import pathlib
import re
import signal
import tempfile
import threading
from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data_pipelines.errors import BadInput, one_line
from diga_jax.parallel.mesh import AXIS, make_mesh, mesh_over
from diga_jax.plan import chips
from diga_jax.types import PyTree

Make = Callable[[], tuple[PyTree, ...]]  # -> (step, state, batch, frozen)


class StepCost(NamedTuple):
  """What one step costs on one chip. Memory is without the program itself, some tens of MB.

  XLA counts one turn of a loop. On TPUs those seen are sums that do not matter (centroids, parts of
  attention); on CPU the gradient of depthwise kernels is a loop, and is left out.
  """

  arguments: int  # bytes: state, batch, frozen networks
  temporaries: int  # bytes
  total: int  # bytes: all buffers
  flops: float
  accessed: float  # bytes of operands and results, without the padding that fills a TPU's tiles
  collectives: dict[str, tuple[int, int]]  # kind -> (how many, bytes of their results)


# Devices.


def mesh(topology: str) -> Mesh:
  """A mesh of the devices that a topology names, of CPU devices in the place of GPUs.

  To be called before JAX initialises its own.

  Raises:
    BadInput: there is no such topology, or libtpu is not installed.
  """
  kind, layout, count = chips.parse_topology(topology)
  jax.config.update('jax_platforms', 'cpu')
  if kind not in chips.TPUS:
    jax.config.update('jax_num_cpu_devices', count)
    return make_mesh(count)
  # Without these libtpu asks a metadata server that is not there.
  os.environ.update({'TPU_SKIP_MDS_QUERY': '1', 'TPU_WORKER_HOSTNAMES': 'localhost'})
  os.environ.pop('XLA_FLAGS', None)  # for the devices that are here: libtpu may not know them
  # A lock keeps two programs from one TPU; a compiler alone holds none.
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v4-8')
  from jax.experimental import topologies

  # The two cores of these chips act as one device, as they do when JAX runs on them.
  options = {'chip_config_name': 'megacore'} if kind in ('v4', 'v5p') else {}
  try:
    devices = topologies.get_topology_desc(
      platform='tpu', topology_name=f'{kind}:{layout}', **options
    ).devices
  except Exception as error:  # libtpu's own kinds
    raise BadInput(
      f"--topology={topology}: {one_line(error)} (the TPU compiler: pip install '.[plan]')"
    ) from error
  return mesh_over(devices)


# Compiling.


def compile_cost(make: Make, topology: str) -> StepCost:
  """What a step costs on each chip of a topology.

  Args:
    make: -> (step, state, batch, frozen), the last three as shapes; must be picklable.
    topology: see `chips.parse_topology`; for GPUs the program is the CPU's.

  Raises:
    BadInput: there is no such topology, or libtpu is not installed.
    RuntimeError: the compiler failed.
  """
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    child = multiprocessing.get_context('spawn').Process(
      target=compile_into, args=(folder, make, topology), daemon=True
    )
    child.start()
    try:
      while child.is_alive() and not dump_complete(folder):
        child.join(0.1)
      stopped = child.is_alive()
    finally:
      child.kill()
      child.join()
    if (folder / 'refusal').exists():
      raise BadInput((folder / 'refusal').read_text())
    if not stopped and child.exitcode:
      raise RuntimeError(f'the compiler for {topology} ended with status {child.exitcode}')
    return parse_dump(folder)


def compile_into(folder: pathlib.Path, make: Make, topology: str) -> None:
  """Compiles a step, in a process without JAX devices yet; the dumps go to `folder`."""
  # The process that waits for this one ends it, also by its own end.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  threading.Thread(target=end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
  try:
    devices = mesh(topology)
  except BadInput as refusal:
    (folder / 'refusal').write_text(str(refusal))
    return
  jax.config.update('jax_enable_compilation_cache', False)  # a program from it is not dumped
  step, *shapes = make()
  everywhere, split = (NamedSharding(devices, PartitionSpec(*axes)) for axes in ((), (AXIS,)))
  places = {'in_shardings': (everywhere, split, everywhere), 'out_shardings': everywhere}
  jitted = jax.jit(step, donate_argnums=0, **places)
  jitted.lower(*shapes).compile({'xla_dump_to': str(folder)})


def end_with(parent: multiprocessing.process.BaseProcess) -> None:
  """Ends this process once its parent has ended."""
  parent.join()
  os._exit(1)


def dump_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """The optimised program and its buffers, as far as they have been dumped."""
  names = ('*after_optimizations.txt', '*after_optimizations-buffer-assignment.txt')
  return [path for name in names for path in folder.glob(name)]


def dump_complete(folder: pathlib.Path) -> bool:
  """Whether both files are whole: the compiler's options are written again after them."""
  times = [path.stat().st_mtime_ns for path in dump_files(folder)]
  options = [path.stat().st_mtime_ns for path in folder.glob('*.debug_options')]
  return len(times) == 2 and max(times) < max(options, default=0)


_ALLOCATION = re.compile(r'^allocation \d+: size (\d+), (?!color)(.*)$', re.MULTILINE)


def parse_dump(folder: pathlib.Path) -> StepCost:
  """The cost of the program that was dumped to a folder."""
  program, buffers = dump_files(folder)
  # A color is another memory than the chip's large one, which has none.
  sizes = [(int(size), what) for size, what in _ALLOCATION.findall(buffers.read_text())]
  text = program.read_text()
  client = jax.devices('cpu')[0].client
  # XLA's cost analysis of a program's text has no public name.
  hlo, xla = (importlib.import_module(f'jaxlib.{name}') for name in ('_hlo', '_jax'))
  cost = xla.hlo_module_cost_analysis(client, hlo.hlo_module_from_text(make_readable(text)))
  return StepCost(
    arguments=sum(size for size, what in sizes if 'parameter ' in what),
    temporaries=sum(size for size, what in sizes if 'preallocated-temp' in what),
    total=sum(size for size, _ in sizes),
    flops=cost.get('flops', 0.0),
    accessed=cost.get('bytes accessed', 0.0),
    collectives=collectives(text),
  )


_BEGUN = re.compile(r'^ *(%[\w.-]+) = .* async-start\(\)(, .*)\n', re.MULTILINE)
_UPDATED = re.compile(r' async-update\((%[\w.-]+), (.*?)\).*')
_IN_FLIGHT = re.compile(r'(%[\w.-]+) = .* async-(?:start|update)\(')
_DONE = re.compile(r' async-done\((%[\w.-]+)\).*')


def make_readable(text: str) -> str:
  """A program's text as jaxlib can read it, with the same operations and results.

  libtpu may begin an operation on the sparse cores before its operands are there, and bring them
  by an update; and begin one in one turn of a loop, to end it in the next. jaxlib does not know
  that: for it, the first begins where the update is, and the second's result is picked out of what
  the loop carries.
  """
  begun = dict(_BEGUN.findall(text))

  def begin(update: re.Match) -> str:
    start, operands = update.groups()
    return f' async-start({operands}){begun[start]}' if start in begun else update[0]

  text = _UPDATED.sub(begin, _BEGUN.sub('', text))
  in_flight = set(_IN_FLIGHT.findall(text))

  def pick(done: re.Match) -> str:
    # An operation in flight is a tuple of operands, results and context.
    return done[0] if done[1] in in_flight else f' get-tuple-element({done[1]}), index=1'

  return _DONE.sub(pick, text)


_EXCHANGES = 'all-(?:reduce|gather|to-all)|reduce-scatter|collective-(?:permute|broadcast)'
_COLLECTIVE = re.compile(rf' = (.*?) ({_EXCHANGES})(?:-start)?\(')
_ARRAY = re.compile(r'\b(pred|[a-z]+(\d+)[a-z0-9]*)\[([\d,]*)\]')


def collectives(text: str) -> dict[str, tuple[int, int]]:
  """The exchanges in a compiled program's text: kind -> (how many, bytes of their results)."""
  found = {}
  for line in text.splitlines():
    match = _COLLECTIVE.search(line)
    if match:
      size = sum(
        math.prod(int(n) for n in dims.split(',') if n) * max(int(bits or 8) // 8, 1)
        for _, bits, dims in _ARRAY.findall(match[1])
      )
      count, total = found.get(match[2], (0, 0))
      found[match[2]] = count + 1, total + size
  return found
