"""Know before you pay: what every training step needs on devices that are not there.

The devices' own compiler compiles each step for shapes alone: it knows the memory, counts the
arithmetic, and its program says what is exchanged. The time is the roofline's, a bound from below:
what the slowest of arithmetic, memory and interconnect takes at its peak.
"""

import functools
import math
import os
import re
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from data_pipelines.errors import BadInput
from diga_jax import build, models, optimizer, progress, report, sharding
from diga_jax.experiment import Experiment
from diga_jax.stages import translator

GIB = 2**30


class Chip(NamedTuple):
  """One chip, as its maker publishes it."""

  memory: float  # bytes
  flops: float  # bfloat16, per second
  bandwidth: float  # of the memory, bytes per second
  interconnect: float  # all links together, bytes per second


# cloud.google.com/tpu/docs/system-architecture-tpu-vm
CHIPS = {
  'v4': Chip(32 * GIB, 275e12, 1228e9, 300e9),
  'v5e': Chip(16 * GIB, 197e12, 819e9, 200e9),
  'v5p': Chip(95 * GIB, 459e12, 2765e9, 600e9),
  'v6e': Chip(32 * GIB, 918e12, 1640e9, 448e9),
}
# Slices by the names they are rented by (v4 and v5p count cores, two on a chip).
SLICES = {
  'v4-8': 'v4:2x2x1',
  'v5e-8': 'v5e:2x4',
  'v5e-64': 'v5e:8x8',
  'v5p-8': 'v5p:2x2x1',
  'v6e-8': 'v6e:2x4',
}


class Need(NamedTuple):
  """What one step needs on one chip."""

  arguments: int  # bytes: state, batch, frozen networks
  temporaries: int  # bytes
  total: int  # bytes at the worst moment
  flops: float
  accessed: float  # bytes read and written
  collectives: dict[str, tuple[int, int]]  # kind -> (how many, bytes of their results)


# Devices.


def mesh(topology: str) -> Mesh:
  """A mesh of the devices that a topology names.

  Args:
    topology: 'v5e:4x4' (a kind of TPU and its chips), a slice of `SLICES`, or 'cpu' or 'cpu:N'.

  Raises:
    BadInput: there is no such topology, or libtpu is not installed.
  """
  if topology.partition(':')[0] == 'cpu':
    return sharding.make_mesh(int(topology.partition(':')[2] or 1))
  name = SLICES.get(topology, topology)
  if name.partition(':')[0] not in CHIPS:
    raise BadInput(
      f'--topology={topology}: give cpu, {", ".join(SLICES)}, or a kind of TPU and its chips, such '
      f'as v5e:4x4 (kinds: {", ".join(CHIPS)})'
    )
  # Without these libtpu asks a metadata server that is not there.
  os.environ.update({'TPU_SKIP_MDS_QUERY': '1', 'TPU_WORKER_HOSTNAMES': 'localhost'})
  # A lock keeps two programs from one TPU; a compiler alone holds none.
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v4-8')
  from jax.experimental import topologies

  # The two cores of these chips act as one device, as they do when JAX runs on them.
  options = {'chip_config_name': 'megacore'} if name[:3] in ('v4:', 'v5p') else {}
  try:
    devices = topologies.get_topology_desc(platform='tpu', topology_name=name, **options).devices
  except Exception as error:  # libtpu's own kinds
    reason = ' '.join(str(error).split())[:200]
    raise BadInput(
      f"--topology={topology}: {reason} (the TPU compiler: pip install 'diga_jax[plan]')"
    ) from error
  return jax.make_mesh(
    (len(devices),), (sharding.AXIS,), axis_types=(AxisType.Auto,), devices=devices
  )


# Steps as shapes.


def batch_rows(stage: ConfigDict, chips: int) -> int:
  """The rows of a stage's batch, rounded up to what divides over the chips."""
  return math.ceil((stage.batch.low + stage.batch.full) / chips) * chips


def abstract_step(experiment: Experiment, name: str, rows: int) -> tuple[Any, Any, Any, Any]:
  """(step, state, batch, frozen) of a training stage, the last three as shapes."""
  config, stage = experiment.config, experiment.stage(name)
  start = abstract_translator if stage.kind == 'translator' else abstract_network
  model, tx, initial, frozen = start(experiment, stage)
  settings = SimpleNamespace(stage=stage, translator=config.translator)
  step = functools.partial(build.train_step(stage), model=model, tx=tx, config=settings)
  image = jax.ShapeDtypeStruct((rows, *config.data.crop, 3), jnp.uint8)
  label = jax.ShapeDtypeStruct(image.shape[:3], jnp.uint8)
  batch = {}
  if experiment.uses_source(stage):
    batch |= {'source_image': image, 'source_label': label}
  if experiment.uses_target(stage):
    batch['target_image'] = image
  if experiment.uses_labels(stage):
    batch['target_label'] = label
  return step, initial, batch, frozen


def abstract_translator(experiment: Experiment, stage: ConfigDict) -> tuple[Any, Any, Any, Any]:
  """(networks, optimizers, state, VGG-19's parameters or None)."""
  settings, vgg = experiment.config.translator, models.build('vgg19_features')
  params = generator_shapes(experiment)
  decay = build.schedule(stage.optimizer, stage.steps)
  tx = {half: optimizer.build(decay, tree) for half, tree in params.items()}
  initial = jax.eval_shape(lambda p: translator.create_state(jax.random.key(0), p, tx), params)
  frozen = models.shapes(vgg)['params'] if settings.vgg else None
  return {'vgg': vgg} | translator.networks(settings), tx, initial, frozen


def abstract_network(experiment: Experiment, stage: ConfigDict) -> tuple[Any, Any, Any, Any]:
  """(network, optimizer, state, the translator's parameters or None)."""
  config = experiment.config
  variables = experiment.shapes
  centroids = ()
  if experiment.uses_centroids(stage):
    image = jax.ShapeDtypeStruct((1, 65, 65, 3), jnp.float32)
    depth = jax.eval_shape(experiment.model.apply, variables, image)['feature'].shape[-1]
    centroids = jax.ShapeDtypeStruct((config.data.classes, depth), jnp.float32)
  model, tx, create = build.segmentation(experiment, stage, variables['params'])
  frozen = None
  if config.translator.kind == 'network' and experiment.uses_translation(stage):
    frozen = generator_shapes(experiment)['generators']
  return model, tx, jax.eval_shape(create, variables, centroids), frozen


def generator_shapes(experiment: Experiment) -> Any:
  """The translator's parameters as shapes."""
  settings = experiment.config.translator
  return jax.eval_shape(
    lambda key: translator.initial_params(key, settings, (64, 64)), jax.random.key(0)
  )


# What they need.


def compiled(experiment: Experiment, name: str, devices: Mesh, rows: int) -> Any:
  """The step of a stage, compiled for the devices."""
  step, *shapes = abstract_step(experiment, name, rows)
  everywhere = NamedSharding(devices, PartitionSpec())
  split = NamedSharding(devices, PartitionSpec(sharding.AXIS))

  def placed(tree: Any, where: NamedSharding) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree)

  initial, batch, frozen = (
    placed(tree, where) for tree, where in zip(shapes, (everywhere, split, everywhere), strict=True)
  )
  jitted = jax.jit(step, donate_argnums=0, out_shardings=everywhere)
  lowered = jitted.lower(initial, batch, frozen)
  # On a CPU nobody runs the program: machine code made in haste counts as much.
  on_cpu = devices.devices.flat[0].platform == 'cpu'
  return lowered.compile({'xla_backend_optimization_level': 0} if on_cpu else None)


def need(program: Any) -> Need:
  """What a compiled step needs on one chip."""
  memory, cost = program.memory_analysis(), program.cost_analysis()
  arguments = memory.argument_size_in_bytes
  outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
  return Need(
    arguments=arguments,
    temporaries=memory.temp_size_in_bytes,
    total=arguments + outputs + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes,
    flops=cost.get('flops', 0.0),
    accessed=cost.get('bytes accessed', 0.0),
    collectives=collectives(program.as_text()),
  )


_KINDS = 'all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute|collective-broadcast'
_COLLECTIVE = re.compile(rf' = (.*?) ({_KINDS})(?:-start)?\(')
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


def bounds(needed: Need, chip: Chip, chips: int) -> dict[str, float]:
  """Seconds per step at the peak of each resource; the step takes the largest at least."""
  exchanged = sum(size for _, size in needed.collectives.values())
  return {
    'arithmetic': needed.flops / chip.flops,
    'memory': needed.accessed / chip.bandwidth,
    # A ring sends every byte of an all-reduce twice, but for each chip's own part.
    'interconnect': 2 * (chips - 1) / chips * exchanged / chip.interconnect,
  }


# The plan.


def plan(experiment: Experiment, topology: str) -> list[dict[str, Any]]:
  """One row for each training stage of the recipe; stages with the same step share a compilation.

  A row: stage, steps, chips, rows, need, and, for TPUs, seconds per step by resource, hours, and
  whether it fits; if it does not, `mends`: [(change, need)] of what was tried.
  """
  devices = mesh(topology)
  chip = CHIPS.get(SLICES.get(topology, topology).partition(':')[0])
  names, rows, known = trained_stages(experiment), [], {}
  with progress.bar(len(names), f'compiling for {topology}', unit='stages') as bar:
    for name in names:
      stage = experiment.stage(name)
      size = batch_rows(stage, devices.size)
      key = program_key(stage)
      if key not in known:
        needed = need(compiled(experiment, name, devices, size))
        known[key] = {'need': needed}
        if chip and needed.total > chip.memory:
          known[key]['mends'] = mends(experiment, name, devices, size)
      asked = stage.batch.low + stage.batch.full
      row = {'stage': name, 'steps': stage.steps, 'rows': size, 'asked': asked}
      row |= {'chips': devices.size} | known[key]
      if chip:
        row |= on_chip(row['need'], chip, devices.size, stage.steps)
      rows.append(row)
      bar.update(1)
  return rows


def program_key(stage: ConfigDict) -> str:
  """Equal for stages whose steps are one program but for constants and what they start from."""
  settings = stage.to_dict()
  del settings['steps'], settings['optimizer']['learning_rate']
  return str({k: v for k, v in settings.items() if k not in ('start', 'labels')})


def trained_stages(experiment: Experiment) -> list[str]:
  """The recipe's stages that have a step: no label passes, no translator that is not trained."""
  config = experiment.config
  kinds = set(build.STEPS) - (set() if config.translator.kind == 'network' else {'translator'})
  return [name for name in config.recipe if experiment.stage(name).kind in kinds]


def on_chip(needed: Need, chip: Chip, chips: int, steps: int) -> dict[str, Any]:
  """The part of a row that depends on the kind of chip."""
  seconds = bounds(needed, chip, chips)
  return {
    'memory': chip.memory,
    'bounds': seconds,
    'hours': steps * max(seconds.values()) / 3600,
  }


def mends(experiment: Experiment, name: str, devices: Mesh, rows: int) -> list[tuple[str, Need]]:
  """What a step would need with less kept, narrower numbers, or fewer images on a chip."""
  changes = {
    'remat=True': {'remat': True},
    "model.dtype='bfloat16'": {'model.dtype': 'bfloat16'},
    "remat=True, model.dtype='bfloat16'": {'remat': True, 'model.dtype': 'bfloat16'},
  }
  found = []
  for words, fields in changes.items():
    config = experiment.config.copy_and_resolve_references()
    config.update_from_flattened_dict(fields)
    found.append((words, need(compiled(Experiment(config, None), name, devices, rows))))
  if rows > devices.size:
    fewer = need(compiled(experiment, name, devices, devices.size))
    found.append((f'a batch of {devices.size} (one image a chip)', fewer))
  return found


def table(topology: str, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
  """What `plan` found, for `report.rendered`: a line, a Markdown table, what would mend it."""
  result = report.markdown_table(
    'stage', 'batch', 'arguments GiB', 'temporaries GiB', 'total GiB', 'of', 'TFLOP', 'GB accessed',
    'exchanged MB', 'ms/step', 'bound by', 'steps', 'hours',
  )  # fmt: skip
  lines = []
  for row in rows:
    needed = row['need']
    exchanged = sum(size for _, size in needed.collectives.values())
    bound = max(row['bounds'], key=row['bounds'].get) if 'bounds' in row else '-'
    result.add_row(
      row['stage'],
      str(row['rows']) + '*' * (row['rows'] != row['asked']),
      *(f'{size / GIB:.2f}' for size in (needed.arguments, needed.temporaries, needed.total)),
      f'{row["memory"] / GIB:.0f}' if 'memory' in row else '-',
      f'{needed.flops / 1e12:.3f}',
      f'{needed.accessed / 1e9:.2f}',
      f'{exchanged / 1e6:.1f}',
      f'{1000 * row["bounds"][bound]:.2f}' if 'bounds' in row else '-',
      bound,
      str(row['steps']),
      f'{row["hours"]:.1f}' if 'hours' in row else '-',
    )
    kinds = (f'{n} {kind} ({size / 1e6:.1f} MB)' for kind, (n, size) in needed.collectives.items())
    lines.append(f'- {row["stage"]}: {", ".join(kinds) or "nothing is exchanged"}')
    for words, other in row.get('mends', ()):
      fits = 'fits' if other.total <= row['memory'] else 'does not fit'
      lines.append(
        f'  does not fit; with {words}: {other.total / GIB:.2f} GiB, which {fits} '
        f'({other.flops / 1e12:.3f} TFLOP)'
      )
  title = f'{topology}: {rows[0]["chips"]} chips; memory, arithmetic and traffic of one chip'
  if any(row['rows'] != row['asked'] for row in rows):
    lines.append("\\* the config's batch does not divide over the chips: rounded up")
  if all('hours' in row for row in rows):
    total = sum(row['hours'] for row in rows)
    lines.append(f'Whole recipe: {total:.1f} hours of training at the roofline, passes apart')
  return [title, result, *lines]
