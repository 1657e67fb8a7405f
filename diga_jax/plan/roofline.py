"""Memory, FLOPs and time of each training step on hardware you do not have.

The hardware's own compiler compiles each step for shapes alone; memory, FLOPs and collectives are
read off its program. The time is the roofline's, a lower bound: what the slowest of arithmetic,
memory and interconnect takes at its peak.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from data_pipelines.errors import BadInput
from diga_jax import progress
from diga_jax.plan import compiler
from diga_jax.plan.chips import CHIPS, GIB, GPUS, Chip, parse_topology
from diga_jax.plan.compiler import StepCost
from diga_jax.recipe import training
from diga_jax.recipe.experiment import Experiment
from diga_jax.recipe.graph import stages_of
from diga_jax.report import tables
from diga_jax.stages.kinds import inputs, kind_of
from diga_jax.types import PyTree


def batch_rows(stage: ConfigDict, chips: int) -> int:
  """The rows of a stage's batch, rounded up to what divides over the chips."""
  return math.ceil((stage.batch.low_rows + stage.batch.full_rows) / chips) * chips


def abstract_step(config: ConfigDict, name: str, rows: int) -> tuple[PyTree, ...]:
  """(step, state, batch, frozen) of a training stage, the last three as shapes."""
  experiment = Experiment(config)
  stage = experiment.stage(name)
  arrays = jax.eval_shape(functools.partial(training.random_arrays, experiment, stage))
  step, state = training.start(experiment, name, arrays, make=jax.eval_shape)
  reads = inputs(stage, config)
  image = jax.ShapeDtypeStruct((rows, *config.data.crop, 3), jnp.uint8)
  label = jax.ShapeDtypeStruct(image.shape[:3], jnp.uint8)
  batch = {}
  if reads.source:
    batch |= {'source_image': image, 'source_label': label}
  if reads.target:
    batch['target_image'] = image
  if reads.labels:
    batch['target_label'] = label
  return step, state, batch, arrays.frozen


def program_key(stage: ConfigDict) -> str:
  """Equal for stages whose steps are one program but for constants and what they start from."""
  settings = stage.to_dict()
  del settings['steps'], settings['optimizer']['learning_rate']
  return str(
    {k: v for k, v in settings.items() if k not in ('start', 'weights', 'labels', 'data_stream')}
  )


def stage_cost(experiment: Experiment, name: str, topology: str, rows: int) -> StepCost:
  """The cost of a stage's step on one chip."""
  make = functools.partial(abstract_step, experiment.config, name, rows)
  return compiler.compile_cost(make, topology)


def passes(model: ConfigDict, trains: str, chip: Chip) -> float:
  """How many times as long as in bfloat16 the arithmetic of a step takes.

  `trains` is the kind's: the translator is float32 whatever `model.dtype` says.
  """
  wide = model.dtype == 'float32' or trains == 'translator'
  return chip.passes[model.precision] if wide else 1


def bounds(cost: StepCost, chip: Chip, chips: int, passes: float = 1) -> dict[str, float]:
  """Seconds per step at the peak of each resource; the step takes the largest at least."""
  exchanged = sum(size for _, size in cost.collectives.values())
  return {
    'arithmetic': passes * cost.flops / chip.flops,
    'memory': cost.accessed / chip.bandwidth,
    # A ring sends every byte of an all-reduce twice, but for each chip's own part.
    'interconnect': 2 * (chips - 1) / chips * exchanged / chip.interconnect,
  }


def plan(experiment: Experiment, topology: str) -> list[dict[str, Any]]:
  """One row for each training stage of the recipe; stages with the same step share a compilation.

  A row: stage, steps, chips, rows, cost, and, but for CPUs, seconds per step by resource, hours,
  and whether it fits; if it does not, `remedies`: [(change, cost)] of what was tried.

  Raises BadInput if no stage of the recipe trains.
  """
  kind, _, chips = parse_topology(topology)
  chip = CHIPS.get(kind)
  names = [n for n in stages_of(experiment) if kind_of(experiment.stage(n)).train_step]
  if not names:
    raise BadInput('config.recipe: none of its stages trains: there is nothing to plan')
  rows, known = [], {}
  with progress.bar(len(names), f'compiling for {topology}', unit='stages') as bar:
    for name in names:
      stage = experiment.stage(name)
      size = batch_rows(stage, chips)
      key = program_key(stage)
      if key not in known:
        cost = stage_cost(experiment, name, topology, size)
        known[key] = {'cost': cost}
        if chip and cost.total > chip.memory:
          known[key]['remedies'] = remedies(experiment, name, topology, size, chips)
      asked = stage.batch.low_rows + stage.batch.full_rows
      row = {'stage': name, 'steps': stage.steps, 'chips': chips, 'rows': size, 'asked': asked}
      row |= known[key]
      if chip:
        times = passes(experiment.config.model, kind_of(stage).trains, chip)
        row |= on_chip(row['cost'], chip, chips, stage.steps, times)
      rows.append(row)
      bar.update(1)
  return rows


def on_chip(
  cost: StepCost, chip: Chip, chips: int, steps: int, passes: float = 1
) -> dict[str, Any]:
  """The part of a row that depends on the kind of chip."""
  seconds = bounds(cost, chip, chips, passes)
  hours = steps * max(seconds.values()) / 3600
  return {'memory': chip.memory, 'bounds': seconds, 'hours': hours}


def remedies(
  experiment: Experiment, name: str, topology: str, rows: int, chips: int
) -> list[tuple[str, StepCost]]:
  """The cost of a step with less kept, narrower numbers, or fewer images on a chip."""
  found, less_kept, narrower = [], {'remat': True}, {'model.dtype': 'bfloat16'}
  for fields in (less_kept, narrower, less_kept | narrower):
    config = experiment.config.copy_and_resolve_references()
    config.update_from_flattened_dict(fields)
    words = ', '.join(f'{field}={value!r}' for field, value in fields.items())
    found.append((words, stage_cost(Experiment(config), name, topology, rows)))
  if rows > chips:
    fewer = stage_cost(experiment, name, topology, chips)
    found.append((f'a batch of {chips} (one image a chip)', fewer))
  return found


def table(topology: str, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
  """What `plan` found, for `tables.render_tables`: a line, a Markdown table, remedies."""
  result = tables.markdown_table(
    'stage', 'batch', 'arguments GiB', 'temporaries GiB', 'total GiB', 'of', 'TFLOP', 'GB accessed',
    'exchanged MB', 'ms/step', 'bound by', 'steps', 'hours',
  )  # fmt: skip
  lines = []
  for row in rows:
    cost = row['cost']
    exchanged = sum(size for _, size in cost.collectives.values())
    bound = max(row['bounds'], key=row['bounds'].get) if 'bounds' in row else '-'
    result.add_row(
      row['stage'],
      str(row['rows']) + '*' * (row['rows'] != row['asked']),
      *(f'{size / GIB:.2f}' for size in (cost.arguments, cost.temporaries, cost.total)),
      f'{row["memory"] / GIB:.0f}' if 'memory' in row else '-',
      f'{cost.flops / 1e12:.3f}',
      f'{cost.accessed / 1e9:.2f}',
      f'{exchanged / 1e6:.1f}',
      f'{1000 * row["bounds"][bound]:.2f}' if 'bounds' in row else '-',
      bound,
      str(row['steps']),
      f'{row["hours"]:.1f}' if 'hours' in row else '-',
    )
    kinds = (f'{n} {kind} ({size / 1e6:.1f} MB)' for kind, (n, size) in cost.collectives.items())
    lines.append(f'- {row["stage"]}: {", ".join(kinds) or "nothing is exchanged"}')
    for words, other in row.get('remedies', ()):
      fits = 'fits' if other.total <= row['memory'] else 'does not fit'
      lines.append(
        f'  - does not fit; with {words}: {other.total / GIB:.2f} GiB, which {fits} '
        f'({other.flops / 1e12:.3f} TFLOP)'
      )
  title = f'{topology}: {rows[0]["chips"]} chips; memory, arithmetic and traffic of one chip'
  if any(row['rows'] != row['asked'] for row in rows):
    lines.append("\n\\* the config's batch does not divide over the chips: rounded up")
  if parse_topology(topology)[0] in GPUS:
    lines.append(
      "\nNo GPU's compiler was asked: FLOPs, bytes and memory are those of the CPU's program, "
      'which keeps and moves more than a GPU has to'
    )
  if all('hours' in row for row in rows):
    total = sum(row['hours'] for row in rows)
    lines.append(f'\nWhole recipe: {total:.1f} hours of training at the roofline, passes apart')
  return [title, result, *lines]
