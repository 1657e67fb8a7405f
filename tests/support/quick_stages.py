"""Stages that are made in no time, in real folders: later ones are better, consensus more so."""

import json
import zlib
from typing import Any

import numpy as np

from diga_jax.inference import evaluate
from diga_jax.recipe import checks, evaluation, graph, labels, training
from diga_jax.recipe.experiment import class_names
from diga_jax.stages import kinds


def without_training(patch: Any) -> list[tuple[str, str]]:
  """Replaces training, label passes and evaluation; returns where what was made, as it grows."""
  made: list[tuple[str, str]] = []

  def make(run, name, directory):
    made.append((str(run.workdir), name))
    return {'step': 5, 'steps': 5, 'chosen_by': 'last'}

  def measure(run, name, key, directory):
    made.append((str(run.workdir), f'{name} on {key}'))
    fields = graph.identity(run, name)
    random = np.random.default_rng([run.config.seed, zlib.crc32(json.dumps(fields).encode())])
    classes, stage = run.config.data.classes, run.stage(name)
    gain = 0.1 * len(kinds.inputs(stage, run.config).stages) + 0.05 * (
      stage.get('selector') == 'consensus'
    )
    own = {}
    for place in run.images(key).ids:
      hits = np.diag((900 * (0.4 + gain) + random.integers(-90, 90, classes)).astype(int))
      own[place] = hits + random.integers(0, 25, (classes, classes))
    evaluation.save_counts(directory / 'images.npz', run.images(key).ids, own)
    facts = {**evaluation.protocol(run, name, key), 'scales': [1.0], 'fusion': 'max'}
    confusion = sum(own.values())
    means = evaluation.class_means(run)
    found = evaluate.summarise(
      confusion, names=class_names(run), means=means, images=len(own), protocol=facts
    )
    return {'name': name, **found}

  def measure_labels(run, name, key, directory):
    made.append((str(run.workdir), f'{name} on {key}'))
    shares = dict.fromkeys(('kept', 'coverage', 'accuracy', 'accuracy_kept'), 0.5)
    shares |= {'accuracy_rejected': None, 'pixels': 9}
    return {
      'kind': 'labels', 'name': name, 'selector': 'none', **shares, 'images': 4,
      'per_class': dict.fromkeys(class_names(run), shares),
      'protocol': evaluation.protocol(run, name, key),
    }  # fmt: skip

  patch.setattr(training, 'train_stage', make)
  patch.setattr(labels, 'label_stage', make)
  patch.setattr(evaluation, 'evaluate_network', measure)
  patch.setattr(evaluation, 'measure_labels', measure_labels)
  for name in ('check_weights', 'check_steps'):  # which compile for seconds
    patch.setattr(checks, name, lambda *_: {})
  return made
