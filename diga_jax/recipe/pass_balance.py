"""How a label pass's labels are spread over the classes, against the first pass before it."""

import contextlib
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from diga_jax import class_balance
from diga_jax.inference.pseudo_labels import Statistics
from diga_jax.recipe.experiment import Experiment, Run, say
from diga_jax.stages.kinds import inputs, kind_of
from diga_jax.storage import stage_folder
from diga_jax.types import PyTree


def describe(found: Statistics, names: Sequence[str]) -> dict[str, PyTree]:
  """Shares and confidences of a pass, for its record.

  Returns:
    'kept', the share of all pixels that are labelled; 'confidence', the mean one of all pixels;
    'classes', the number of classes in the labels; 'entropy' of the labels and
    'predicted_entropy', over ln C (`class_balance.entropy`); and 'by_class' the class's share of
    all pixels ('predicted') and of the labelled ones ('labels'), how much of it is labelled
    ('kept'), and the mean confidences ('confidence', 'label_confidence'), None without a pixel.
  """
  labels, predicted = found.counts.sum(0), found.predicted
  columns = {
    'predicted': class_balance.shares(predicted),
    'labels': class_balance.shares(labels),
    'kept': np.where(predicted > 0, labels / np.maximum(predicted, 1), np.nan),
    'confidence': np.where(predicted > 0, found.predicted_confidence, np.nan),
    'label_confidence': np.where(labels > 0, found.label_confidence, np.nan),
  }
  by_class = {
    name: {what: None if np.isnan(x[index]) else float(x[index]) for what, x in columns.items()}
    for index, name in enumerate(names)
  }
  return {
    'kept': float(labels.sum() / max(predicted.sum(), 1)),
    'confidence': float(found.predicted_confidence @ columns['predicted']),
    'classes': class_balance.classes_present(labels),
    'entropy': class_balance.entropy(labels),
    'predicted_entropy': class_balance.entropy(predicted),
    'by_class': by_class,
  }


def warnings(run: Run, name: str, found: Statistics, names: Sequence[str]) -> list[str]:
  """What is odd about a pass's labels, against those of the first pass or its own predictions."""
  first = first_pass(run, name)
  reference, before = found.predicted, 'of the predictions'
  if first and (run.workdir / first).exists():
    reference = stage_folder.read_record(run.workdir / first)['result']['pixels']
    before = f'in {first}'
  labels = found.counts.sum(0)
  texts = class_balance.oddities(labels, reference, names, 'pseudo-labels', before)
  return [f'{name}: {text}' for text in texts.values()]


def first_pass(experiment: Experiment, name: str) -> str:
  """The first label pass that a label pass follows from; '' if it is the first itself.

  It starts from a network that has learnt from another pass's labels, and so on.
  """
  found, at, seen = '', name, set()
  while at and at not in seen:
    seen.add(at)
    stage = experiment.stage(at)
    if kind_of(stage).train_step is None and at != name:
      found = at
    reads = inputs(stage, experiment.config)
    at = reads.labels or reads.start
  return found


def histograms(found: Statistics, names: Sequence[str]) -> dict[str, np.ndarray]:
  """Values by tag: confidences of the pixels of each class and of all, kept shares of the images.

  A class without a pixel has none.
  """
  counts = {'all': found.confidences.sum(0), **dict(zip(names, found.confidences, strict=True))}
  values = {f'confidence_histogram/{what}': class_balance.samples(x) for what, x in counts.items()}
  for name, column in zip(names, found.kept.T, strict=True):
    values[f'kept_histogram/{name}'] = column[np.isfinite(column)]
  return {tag: array for tag, array in values.items() if len(array)}


def tell(
  run: Run,
  name: str,
  directory: pathlib.Path,
  balance: Mapping[str, PyTree],
  arrays: Mapping[str, np.ndarray],
) -> None:
  """Prints a pass's numbers as one line, its warnings, and writes them for the trackers.

  Args:
    run, name: the pass.
    directory: its folder.
    balance: `describe`, with its warnings.
    arrays: `histograms`.
  """
  by_class = balance['by_class']
  say(
    f'{name}: labels of {balance["kept"]:.1%} of the pixels and {balance["classes"]} of '
    f'{len(by_class)} classes, entropy {balance["entropy"]:.2f} (1: all equally frequent), '
    f'{balance["predicted_entropy"]:.2f} before selection, mean confidence '
    f'{balance["confidence"]:.2f}'
  )
  for text in balance['warnings']:
    logging.warning('%s', text)
  scalars = {
    f'labels/{key}': value for key, value in balance.items() if isinstance(value, float | int)
  }
  for shown, columns in by_class.items():
    scalars |= {f'{what}/{shown}': value for what, value in columns.items() if value is not None}
  with contextlib.closing(run.writer(directory)) as writer:
    writer.write_scalars(0, scalars)
    writer.write_histograms(0, arrays)
