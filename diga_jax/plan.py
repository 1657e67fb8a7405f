"""Know before you pay: what every training step needs on devices that are not there.

The devices' own compiler compiles each step for shapes alone: it knows the memory, counts the
arithmetic, and its program says what is exchanged. The time is the roofline's, a bound from below:
what the slowest of arithmetic, memory and interconnect takes at its peak.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diga_jax import build, compiler, models, optimizer, progress, report
from diga_jax.compiler import GIB, Chip, Need
from diga_jax.experiment import Experiment
from diga_jax.stages import translator

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


def stage_need(experiment: Experiment, name: str, topology: str, rows: int) -> Need:
  """What the step of a stage needs on one chip."""
  return compiler.need(functools.partial(make_step, experiment.config, name, rows), topology)


def make_step(config: ConfigDict, name: str, rows: int) -> tuple[Any, Any, Any, Any]:
  """`abstract_step` for another process."""
  return abstract_step(Experiment(config, None), name, rows)


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
  kind, _, chips = compiler.parsed(topology)
  chip = compiler.CHIPS.get(kind)
  names, rows, known = trained_stages(experiment), [], {}
  with progress.bar(len(names), f'compiling for {topology}', unit='stages') as bar:
    for name in names:
      stage = experiment.stage(name)
      size = batch_rows(stage, chips)
      key = program_key(stage)
      if key not in known:
        needed = stage_need(experiment, name, topology, size)
        known[key] = {'need': needed}
        if chip and needed.total > chip.memory:
          known[key]['mends'] = mends(experiment, name, topology, size, chips)
      asked = stage.batch.low + stage.batch.full
      row = {'stage': name, 'steps': stage.steps, 'rows': size, 'asked': asked}
      row |= {'chips': chips} | known[key]
      if chip:
        row |= on_chip(row['need'], chip, chips, stage.steps)
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


def mends(
  experiment: Experiment, name: str, topology: str, rows: int, chips: int
) -> list[tuple[str, Need]]:
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
    found.append((words, stage_need(Experiment(config, None), name, topology, rows)))
  if rows > chips:
    fewer = stage_need(experiment, name, topology, chips)
    found.append((f'a batch of {chips} (one image a chip)', fewer))
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
        f'  - does not fit; with {words}: {other.total / GIB:.2f} GiB, which {fits} '
        f'({other.flops / 1e12:.3f} TFLOP)'
      )
  title = f'{topology}: {rows[0]["chips"]} chips; memory, arithmetic and traffic of one chip'
  if any(row['rows'] != row['asked'] for row in rows):
    lines.append("\n\\* the config's batch does not divide over the chips: rounded up")
  if all('hours' in row for row in rows):
    total = sum(row['hours'] for row in rows)
    lines.append(f'\nWhole recipe: {total:.1f} hours of training at the roofline, passes apart')
  return [title, result, *lines]
