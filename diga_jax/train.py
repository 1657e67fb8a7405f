"""The only training loop.

Its order, which resuming relies on: restore; then for every step: batch (a function of the seed and
the step), step, log, save. A stop at any moment loses at most the steps since the last save, and
those are repeated exactly.
"""

import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from clu import metric_writers
from jax.sharding import Mesh

from diga_jax import checkpoint, sharding
from diga_jax.progress import bar
from diga_jax.state import TrainState


def train(
  step_fn: Callable[..., tuple[TrainState, dict[str, jax.Array]]],
  state: TrainState,
  frozen: Any,
  batches: Callable[[int], Iterator[dict[str, np.ndarray]]],
  *,
  name: str,
  steps: int,
  directory: pathlib.Path,
  mesh: Mesh,
  learning_rate: Callable[[int], float],
  save_every: int,
  log_every: int,
  score: Callable[[TrainState], float] | None = None,
) -> int:
  """Trains to step `steps`, resuming from the newest checkpoint in `directory`.

  Args:
    step_fn: (state, batch, frozen) -> (state, metrics), pure.
    state: where to start if there is no checkpoint, on the mesh.
    frozen: variables that the step reads but does not change, on the mesh.
    batches: start step -> the batches from there on.
    name: the stage, for the progress bar.
    steps: the step to stop at.
    directory: holds checkpoints/ and the metrics for TensorBoard.
    mesh: the devices.
    learning_rate: step -> rate, for the log.
    save_every, log_every: in steps.
    score: chooses the best checkpoint instead of the last (state -> higher is better).

  Returns:
    The step of the checkpoint to use: the last, or the one with the best score.
  """
  step_fn = jax.jit(step_fn, donate_argnums=0)
  saved = checkpoint.open_manager(directory / 'checkpoints', scored=score is not None)
  with jax.set_mesh(mesh), saved as manager:
    state = checkpoint.restore(manager, state)
    start = int(state.step)
    stream = batches(start)
    writer = metric_writers.SummaryWriter(str(directory))
    with bar(steps, name, unit='steps', initial=start) as shown:
      for step in range(start, steps):
        state, metrics = step_fn(state, sharding.put_batch(next(stream), mesh), frozen)
        done = step + 1
        if done % log_every == 0 or done == steps:
          values = {k: float(v) for k, v in jax.device_get(metrics).items()}
          writer.write_scalars(done, {**values, 'learning_rate': float(learning_rate(step))})
          shown.set_postfix(loss=f'{values["loss"]:.3f}', refresh=False)
        shown.update()
        if done % save_every == 0 or done == steps:
          value = score and score(state)
          checkpoint.save(manager, state, done, value)
          if score:
            writer.write_scalars(done, {'score': value})
            shown.write(f'{name}: step {done}, score {value:.4f}', file=sys.stderr)
    writer.close()
    manager.wait_until_finished()
    return manager.best_step() if score else manager.latest_step()
