"""The kinds of stages: the step of each, what it reads, and which of its settings contradict.

A new kind is a file with its train_step, an entry here, and its settings in configs/stages.py.
"""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from ml_collections import ConfigDict

from diga_jax.stages import adversarial, hiast, self_training, translator, warmup
from diga_jax.stages.consensus import SELECTORS
from diga_jax.stages.setup import Setup, segmentation
from diga_jax.types import SegmentationNet, StepConfig, TrainStep, Variables

Problems = Iterator[tuple[bool, str]]  # (whether it is one, why and what to set instead)


class Inputs(NamedTuple):
  """What a stage reads. Names of data sets and stages; '' where it reads none.

  Attributes:
    source: data set whose images and labels are read.
    target: data set whose images alone are read.
    start: stage whose network it starts from; '' = a file, or random weights.
    weights: without `start`, a file of weights to start from; '' = model.weights.
    labels: label stage whose pseudo-labels it learns from.
    copy_paste: whether hard classes are pasted by the index of these labels.
    centroids: whether it starts from the class centroids of these labels.
    translator: translator stage.
    files: fields of the config that name files of weights.
  """

  source: str = ''
  target: str = ''
  start: str = ''
  weights: str = ''
  labels: str = ''
  copy_paste: bool = False
  centroids: bool = False
  translator: str = ''
  files: tuple[str, ...] = ('model.weights',)

  @property
  def stages(self) -> list[str]:
    """The stages that must be complete before this one."""
    return [name for name in (self.start, self.labels, self.translator) if name]

  @property
  def sets(self) -> dict[str, bool]:
    """The data sets, and whether their labels are read."""
    target = {self.target: False} if self.target else {}
    return target | ({self.source: True} if self.source else {})


class Kind(NamedTuple):
  """One kind of stage.

  Attributes:
    inputs: (stage, config) -> what it reads.
    train_step: its step; None for a pass over images.
    set_up: (network, settings, variables or their shapes) -> what the step starts from.
    trains: which network.
    problems: (stage, config) -> contradictions among its settings.
  """

  inputs: Callable[[ConfigDict, ConfigDict], Inputs]
  train_step: TrainStep | None = None
  set_up: Callable[[SegmentationNet, StepConfig, Variables], Setup] = segmentation
  trains: Literal['segmentation', 'translator'] = 'segmentation'
  problems: Callable[[ConfigDict, ConfigDict], Problems] = lambda stage, config: iter(())


def inputs(stage: ConfigDict, config: ConfigDict) -> Inputs:
  """What a stage of the config reads."""
  return kind_of(stage).inputs(stage, config)


def kind_of(stage: ConfigDict) -> Kind:
  """The kind of a stage."""
  return KINDS[stage.kind]


def _translator_if(wanted: bool, stage: ConfigDict, config: ConfigDict) -> str:
  return stage.translator if wanted and config.translator.kind == 'network' else ''


def _of_translator(stage: ConfigDict, config: ConfigDict) -> Inputs:
  files = ('translator.vgg', 'translator.enc_s', 'translator.dec_s2t')
  return Inputs(stage.batch.source, stage.batch.target, files=files)


def _of_warmup(stage: ConfigDict, config: ConfigDict) -> Inputs:
  mixes = stage.method == 'distill' and stage.mixing == 'class'
  swaps = mixes and config.translator.kind == 'fourier'
  return Inputs(
    source=stage.batch.source,
    target=stage.batch.target if stage.target_statistics or swaps else '',
    start=stage.start,
    weights=stage.weights,
    translator=_translator_if(mixes, stage, config),
  )


def _of_adversarial(stage: ConfigDict, config: ConfigDict) -> Inputs:
  return Inputs(stage.batch.source, stage.batch.target, stage.start, stage.weights)


def _of_self_training(stage: ConfigDict, config: ConfigDict) -> Inputs:
  return Inputs(
    source=stage.batch.source,
    target=stage.batch.target,
    start=stage.start,
    weights=stage.weights,
    labels=stage.labels,
    copy_paste=stage.target_mixing == 'copy_paste',
    centroids=stage.selector == 'consensus',
    translator=_translator_if(stage.mixing == 'class', stage, config),
  )


def _of_hiast(stage: ConfigDict, config: ConfigDict) -> Inputs:
  return Inputs(
    source=stage.batch.source if stage.target_mixing == 'class' else '',
    target=stage.batch.target,
    start=stage.start,
    weights=stage.weights,
    labels=stage.labels,
    copy_paste=stage.target_mixing == 'copy_paste',
    centroids=stage.selector == 'consensus',
  )


def _of_label(stage: ConfigDict, config: ConfigDict) -> Inputs:
  from_source = stage.centroids_from == 'source'
  return Inputs(
    source=stage.source if from_source else '',
    target=stage.target,
    start=stage.start,
    weights=stage.weights,
    translator=_translator_if(from_source, stage, config),
  )


def _start_problems(stage: ConfigDict, config: ConfigDict) -> Problems:
  yield (
    bool(stage.start and stage.weights),
    f'start is {stage.start!r} and weights {stage.weights!r}: a stage starts from one of them, set '
    "the other to ''",
  )


def _label_problems(stage: ConfigDict, config: ConfigDict) -> Problems:
  yield from _start_problems(stage, config)
  yield (
    not (stage.start or stage.weights or config.model.weights),
    'it has no network that labels: set start to a stage, or weights or model.weights to a file',
  )
  yield (
    stage.network == 'teacher' and not stage.start,
    "network is 'teacher', which a file of weights lacks: set it to 'student'",
  )
  yield (
    stage.selector == 'consensus',
    "selector 'consensus' follows the teacher while it trains: set it in the self-training stage, "
    "and here 'none' or a selector by confidence",
  )


def _self_training_problems(stage: ConfigDict, config: ConfigDict) -> Problems:
  yield from _start_problems(stage, config)
  labels, wanted = config.stages.get(stage.labels), stage.batch.target
  yield (
    stage.selector not in SELECTORS,
    f'selector {stage.selector!r} needs confidences, which the stored labels lack: set it in the '
    f"label stage {stage.labels!r}, and here 'none'",
  )
  yield (
    labels is None or labels.kind != 'label',
    f'labels is {stage.labels!r}: name a stage of kind label',
  )
  yield (
    stage.selector == 'consensus' and labels is not None and labels.centroids_from == 'none',
    f"selector 'consensus' compares with centroids, and {stage.labels!r} makes none: set its "
    "centroids_from to 'target'",
  )
  classes = config.data.classes
  yield not 1 <= stage.rank <= classes, f'rank is {stage.rank}: give 1 to {classes}'
  yield (
    stage.target_mixing == 'copy_paste' and labels is not None and labels.target != wanted,
    f'copy-paste among {wanted!r} needs their labels, but {stage.labels!r} is of '
    f'{labels.target if labels else None!r}',
  )


KINDS: dict[str, Kind] = {
  'translator': Kind(
    _of_translator, translator.train_step, set_up=translator.set_up, trains='translator'
  ),
  'warmup': Kind(_of_warmup, warmup.train_step, problems=_start_problems),
  'adversarial': Kind(
    _of_adversarial, adversarial.train_step, set_up=adversarial.set_up, problems=_start_problems
  ),
  'label': Kind(_of_label, problems=_label_problems),
  'self_training': Kind(
    _of_self_training, self_training.train_step, problems=_self_training_problems
  ),
  'hiast': Kind(_of_hiast, hiast.train_step, problems=_self_training_problems),
}
