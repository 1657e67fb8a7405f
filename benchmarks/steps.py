"""What a training step costs: times as ratios, and FLOPs against the sum of the step's parts.

  python benchmarks/steps.py [--config=configs/quickstart.py] [--repeats=10]

Everything is measured in one run, in turns, because only then do two times have a ratio that means
something. The network starts at random, and of rendered data sets a few scenes are drawn: times
depend on neither. Compiling takes most of the minutes that this runs for.
"""

import argparse
import dataclasses
import functools
import pathlib
import runpy
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.table
from ml_collections import ConfigDict

from diga_jax import optimizer, state
from diga_jax.inference import evaluate, pseudo_labels
from diga_jax.inference.feature_centroids import image_means, running_mean
from diga_jax.inference.forward import Predictor
from diga_jax.parallel.mesh import compile_step, replicate
from diga_jax.recipe import starts, training
from diga_jax.recipe.experiment import Experiment, class_names
from diga_jax.stages import views
from diga_jax.stages.forward import forward
from diga_jax.types import Params, PyTree, SegmentationNet, StepConfig, Variables

SCENES = 8  # of every rendered data set
BATCHES = 8  # that the input pipeline is timed over, each repeat
# FLOPs are counted on XLA's optimised program; slow machine code halves the time to compile it.
QUICK: dict[str, str | bool] = {'xla_backend_optimization_level': '0'}


def run_compiled(function: Callable[..., PyTree], *args: PyTree) -> PyTree:
  """The function's result; compiled in haste, for what runs once."""
  return jax.jit(function).lower(*args).compile(compiler_options=QUICK)(*args)


class Setup(NamedTuple):
  """A training step and what it starts from."""

  step: Callable[..., PyTree]  # (state, batch, frozen) -> (state, metrics)
  model: SegmentationNet
  settings: StepConfig
  state: state.TrainState
  frozen: Params | None  # the translator's parameters or None


def set_up(experiment: Experiment, name: str, make: Callable[..., PyTree] = run_compiled) -> Setup:
  """A stage's step at its beginning, everything at random.

  Args:
    experiment: the config.
    name: a warm-up or self-training stage.
    make: (function, *args) -> its result; jax.eval_shape gives a state of shapes, which is enough
      to count FLOPs.
  """
  stage = experiment.stage(name)
  arrays = make(functools.partial(training.random_arrays, experiment, stage))
  step, initial = training.start(experiment, name, arrays, make)
  settings = StepConfig(stage, experiment.config.translator, experiment.config.model.precision)
  return Setup(step, experiment.model, settings, initial, arrays.frozen)


# FLOPs.


def flops(function: Callable[..., PyTree], *args: PyTree) -> float:
  """FLOPs of the program that XLA compiles for these arguments (or their shapes)."""
  compiled = jax.jit(function).lower(*args).compile(compiler_options=QUICK)
  return (compiled.cost_analysis() or {})['flops']


def shapes(tree: PyTree) -> PyTree:
  """The arrays of a tree as shapes, on no device in particular."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def student_flops(setup: Setup, images: jax.ShapeDtypeStruct) -> float:
  """A forward pass in training mode, and the backward pass to the parameters that are trained."""
  groups = optimizer.groups(setup.settings.stage.optimizer.to_dict(), setup.state.params)

  def student(params, batch_stats, images, keys, grad):
    def of_params(params):
      output = forward(setup.model, params, batch_stats, images, keys)
      return output.heads[0], output.batch_stats

    logits, backward, moved = jax.vjp(of_params, params, has_aux=True)
    pairs = zip(jax.tree.leaves(backward(grad)[0]), jax.tree.leaves(groups), strict=True)
    return logits, moved, [leaf for leaf, group in pairs if group != 'frozen']

  args = pass_shapes(setup, images)
  grad = jax.ShapeDtypeStruct((*images.shape[:3], setup.model.classes), jnp.float32)
  return flops(student, *args, grad)


def teacher_flops(setup: Setup, images: jax.ShapeDtypeStruct) -> float:
  """A forward pass in training mode whose moved statistics are dropped."""

  def teacher(*args):
    return forward(setup.model, *args)[:3]

  return flops(teacher, *pass_shapes(setup, images))


def pass_shapes(setup: Setup, images: jax.ShapeDtypeStruct) -> tuple[PyTree, ...]:
  """(params, batch_stats, images, dropout keys) of a pass, as shapes."""
  keys = jax.ShapeDtypeStruct(images.shape[:1], setup.state.key.dtype)
  return shapes(setup.state.params), shapes(setup.state.batch_stats), images, keys


def part_flops(setup: Setup, batch: Mapping[str, np.ndarray]) -> dict[str, float]:
  """FLOPs of the passes that a step on a batch of B consists of, each compiled on its own.

  Student and teacher see 2B views, in self-training B target images too; the translator sees B.
  What else a step does (views, mixing, losses, optimizer, averages) is small and not counted.
  """
  rows, height, width, _ = batch['source_image'].shape

  def images(count):
    return jax.ShapeDtypeStruct((count, height, width, 3), jnp.float32)

  sizes = {'2B': 2 * rows}
  if setup.settings.stage.kind == 'self_training':
    sizes['B'] = rows
  found = {}
  for name, count in sizes.items():
    found[f'student, {name}'] = student_flops(setup, images(count))
    found[f'teacher, {name}'] = teacher_flops(setup, images(count))
  repaint = functools.partial(views.repaint, translator=setup.settings.translator)
  found['translator, B'] = flops(repaint, images(rows), images(rows), shapes(setup.frozen))
  return found


def step_flops(setup: Setup, batch: Mapping[str, np.ndarray]) -> float:
  """FLOPs of the whole compiled step."""
  return flops(setup.step, *shapes((setup.state, dict(batch), setup.frozen)))


# Times.


def seconds(function: Callable[[], PyTree]) -> float:
  start = time.perf_counter()
  jax.block_until_ready(function())
  return time.perf_counter() - start


def timed_step(
  setup: Setup, batch: Mapping[str, np.ndarray], mesh: jax.sharding.Mesh
) -> Callable[[], PyTree]:
  """Takes the next step, as the training loop does: donated state, batch put on the mesh."""
  step = compile_step(setup.step, mesh, 'jit')
  # The stages share the network they start from, and a step takes its buffers.
  current = replicate(jax.tree.map(jnp.copy, setup.state), mesh)
  frozen = replicate(setup.frozen, mesh)

  def advance():
    nonlocal current
    current, metrics = step(current, batch, frozen)
    return metrics

  return advance


def timed_passes(
  experiment: Experiment, variables: Variables, target: str, directory: pathlib.Path
) -> dict[str, tuple[Callable[[], PyTree], int]]:
  """The passes over whole images: name -> (function, number of images)."""
  settings, names = experiment.config.evaluation, class_names(experiment)
  images = experiment.images(target, labelled=False)
  truth = experiment.images(settings.sets[0])
  low_size = tuple(experiment.config.data.sets[target].low_size) or None
  predictor = Predictor(experiment.model, variables, settings.scales)
  evaluator = dataclasses.replace(predictor, flip=settings.flip, batch_size=settings.batch_size)

  def label_pass():
    pseudo_labels.pseudo_labels(predictor, images, directory, len(names), progress=False)
    return running_mean([image_means(predictor, images, size=low_size, progress=False)] * 5)

  def evaluation():
    evaluate.evaluate(evaluator, truth, names, progress=False)

  return {
    'label pass, per image': (label_pass, len(images)),
    'evaluation, per image': (evaluation, len(truth)),
  }


def measure(
  tasks: Mapping[str, tuple[Callable[[], PyTree], int]], repeats: int
) -> dict[str, float]:
  """Median seconds of each task per unit of its work; the tasks take turns."""
  for function, _ in tasks.values():
    jax.block_until_ready(function())  # compiles
  found = {name: [] for name in tasks}
  for _ in range(repeats):
    for name, (function, count) in tasks.items():
      found[name].append(seconds(function) / count)
  return {name: statistics.median(times) for name, times in found.items()}


# The run.


def first_stage(config: ConfigDict, kind: str, **wanted: str) -> str:
  """The first stage of the recipe that is of a kind."""
  for name in config.recipe:
    stage = config.stages[name]
    if stage.kind == kind and all(stage[field] == value for field, value in wanted.items()):
      return name
  raise SystemExit(f'the recipe has no {kind} stage')


def stages(config: ConfigDict) -> dict[str, str]:
  """The stages whose steps are timed; source-only is the warm-up without its second view."""
  warm = first_stage(config, 'warmup', method='distill')
  config.stages.timed_source_only = config.stages[warm].copy_and_resolve_references()
  config.stages.timed_source_only.method = 'source_only'
  return {
    'source-only step': 'timed_source_only',
    'warm-up step': warm,
    'self-training step': first_stage(config, 'self_training'),
  }


def print_times(times: Mapping[str, float], rows: int) -> None:
  table = rich.table.Table(title=f'Times (a step: batch of {rows} + {rows})')
  for heading in ('', 'source-only steps', 'seconds', 'per second'):
    table.add_column(heading, justify='right' if heading else 'left')
  unit = times['source-only step']
  for name, value in times.items():
    table.add_row(name, f'{value / unit:.3f}', f'{value:.4f}', f'{1 / value:.2f}')
  rich.console.Console().print(table)


def print_flops(name: str, total: float, parts: Mapping[str, float]) -> None:
  table = rich.table.Table(title=f'FLOPs of the {name}')
  for heading in ('', 'share of the sum', 'GFLOP'):
    table.add_column(heading, justify='right' if heading else 'left')
  whole = sum(parts.values())
  for part, value in parts.items():
    table.add_row(part, f'{value / whole:.3f}', f'{value / 1e9:.3f}')
  table.add_section()
  table.add_row('sum of the parts', '1.000', f'{whole / 1e9:.3f}')
  table.add_row('compiled step', f'{total / whole:.3f}', f'{total / 1e9:.3f}')
  rich.console.Console().print(table)


def benchmark(config: ConfigDict, repeats: int, directory: pathlib.Path) -> None:
  """Measures and prints; writes only below `directory`."""
  config.model.weights = ''
  config.data.cache = str(directory / 'scenes')
  for images in config.data.sets.values():
    images.count = min(images.count, SCENES)
  wanted = stages(config)
  experiment = Experiment(config)
  variables = starts.initial_variables(experiment)
  setups = {name: set_up(experiment, stage) for name, stage in wanted.items()}
  warm = config.stages[wanted['warm-up step']]
  target = experiment.images(warm.batch.target, labelled=False)
  stream = training.batches(experiment, wanted['warm-up step'], 0, target=target)
  batch = next(stream)
  batch['target_label'] = batch['source_label']  # stands in for pseudo-labels
  tasks = {name: (timed_step(setup, batch, experiment.mesh), 1) for name, setup in setups.items()}
  tasks |= timed_passes(experiment, variables, warm.batch.target, directory / 'labels')
  tasks['input pipeline, per batch'] = (lambda: [next(stream) for _ in range(BATCHES)], BATCHES)
  print_times(measure(tasks, repeats), len(batch['source_image']))
  for name in ('warm-up step', 'self-training step'):
    print_flops(name, step_flops(setups[name], batch), part_flops(setups[name], batch))


def main() -> None:
  parser = argparse.ArgumentParser(description=str(__doc__).partition('\n')[0])
  parser.add_argument('--config', default='configs/quickstart.py', help='a config file')
  parser.add_argument('--repeats', type=int, default=10, help='how often each time is taken')
  args = parser.parse_args()
  config = runpy.run_path(args.config)['get_config']()
  with tempfile.TemporaryDirectory() as directory:
    benchmark(config, args.repeats, pathlib.Path(directory))


if __name__ == '__main__':
  main()
