"""The kinds of stages: the step of each, what it reads, and which of its settings contradict.

A new kind is a file with its train_step, an entry here, and its settings in configs/stages.py.
"""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from ml_collections import ConfigDict

from diga_jax import criteria
from diga_jax.stages import adversarial, hiast, self_training, translator, warmup
from diga_jax.stages.consensus import SELECTORS
from diga_jax.stages.setup import Setup, segmentation
from diga_jax.stages.views import CLASS, COPY_PASTE
from diga_jax.types import SegmentationNet, StepConfig, TrainStep, Variables

# Where a label stage's class centroids are from: its target, its labelled source, an earlier label
# stage, nowhere.
CENTROIDS_FROM = FROM_TARGET, FROM_SOURCE, EARLIER, NO_CENTROIDS = (
  'target', 'source', 'earlier', 'none',
)  # fmt: skip

Problems = Iterator[tuple[bool, str]]  # (whether it is one, why and what to set instead)


class Inputs(NamedTuple):
  """What a stage reads. Names of data sets and stages; '' where it reads none.

  Attributes:
    source: data set whose images and labels are read.
    target: data set whose images alone are read.
    images: another one.
    start: stage whose network it starts from; '' = a file, or random weights.
    weights: without `start`, a file of weights to start from; '' = model.weights.
    labels: label stage whose pseudo-labels it learns from.
    copy_paste: whether hard classes are pasted by the index of these labels.
    centroids: whether it starts from the class centroids of these labels.
    translator: translator stage.
    earlier: label stage whose centroids are kept.
    files: fields of the config that name files of weights.
  """

  source: str = ''
  target: str = ''
  images: str = ''
  start: str = ''
  weights: str = ''
  labels: str = ''
  copy_paste: bool = False
  centroids: bool = False
  translator: str = ''
  earlier: str = ''
  files: tuple[str, ...] = ('model.weights',)

  @property
  def stages(self) -> list[str]:
    """The stages that must be complete before this one."""
    names = (self.start, self.labels, self.translator, self.earlier)
    return [name for name in names if name]

  @property
  def sets(self) -> dict[str, bool]:
    """The data sets, and whether their labels are read."""
    found = {name: False for name in (self.target, self.images) if name}
    return found | ({self.source: True} if self.source else {})


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


def is_chosen(stage: ConfigDict) -> bool:
  """Whether a stage has checkpoints to choose among: it trains a segmentation network."""
  return kind_of(stage).train_step is not None and kind_of(stage).trains == 'segmentation'


def criteria_of(stage: ConfigDict, config: ConfigDict) -> tuple[str, ...]:
  """The criteria by which the checkpoints of a stage are scored; () for one that has no choice."""
  if not is_chosen(stage):
    return ()
  wanted = {*config.criteria.record, config.checkpoint_choice}
  if not inputs(stage, config).centroids:
    wanted -= {criteria.CONSENSUS}
  return tuple(name for name in criteria.NAMES if name in wanted)


def _translator_if(wanted: bool, stage: ConfigDict, config: ConfigDict) -> str:
  return stage.translator if wanted and config.translator.kind == 'network' else ''


def _of_translator(stage: ConfigDict, config: ConfigDict) -> Inputs:
  files = ('translator.vgg', 'translator.enc_s', 'translator.dec_s2t')
  return Inputs(stage.batch.source, stage.batch.target, files=files)


def _of_warmup(stage: ConfigDict, config: ConfigDict) -> Inputs:
  mixes = stage.method == warmup.DISTILL and stage.mixing == CLASS
  swaps = mixes and config.translator.kind == 'fourier'
  return Inputs(
    source=stage.batch.source,
    target=stage.batch.target if stage.target_statistics or swaps else '',
    start=stage.start,
    weights=stage.weights,
    translator=_translator_if(mixes, stage, config),
  )


def _of_adversarial(stage: ConfigDict, config: ConfigDict) -> Inputs:
  source, target = stage.batch.source, stage.batch.target
  return Inputs(source, target, start=stage.start, weights=stage.weights)


def _of_hiast(stage: ConfigDict, config: ConfigDict) -> Inputs:
  return Inputs(
    source=stage.batch.source if stage.target_mixing == CLASS else '',
    target=stage.batch.target,
    start=stage.start,
    weights=stage.weights,
    labels=stage.labels,
    copy_paste=stage.target_mixing == COPY_PASTE,
    centroids=stage.selector == 'consensus',
  )


def _of_self_training(stage: ConfigDict, config: ConfigDict) -> Inputs:
  translator = _translator_if(stage.mixing == CLASS, stage, config)
  return _of_hiast(stage, config)._replace(source=stage.batch.source, translator=translator)


def _of_label(stage: ConfigDict, config: ConfigDict) -> Inputs:
  made_from = stage.centroids_from
  return Inputs(
    source=(stage.centroid_set or 'source') if made_from == FROM_SOURCE else '',
    target=stage.target,
    images=stage.centroid_set if made_from == FROM_TARGET else '',
    start=stage.start,
    weights=stage.weights,
    translator=_translator_if(made_from == FROM_SOURCE, stage, config),
    earlier=stage.earlier if made_from == EARLIER else '',
  )


def problems(stage: ConfigDict, config: ConfigDict) -> Problems:
  """The contradictions among the settings of a stage, and names of stages that are not such."""
  yield from kind_of(stage).problems(stage, config)
  reads = inputs(stage, config)
  for field, trained in (('start', 'segmentation'), ('translator', 'translator')):
    name = getattr(reads, field)
    other = kind_of(config.stages[name]) if name in config.stages else None
    yield (
      bool(name) and (other is None or other.train_step is None or other.trains != trained),
      f'{field} is {name!r}: name a stage that trains a {trained} network',
    )


def _translator_problems(stage: ConfigDict, config: ConfigDict) -> Problems:
  settings, side = config.translator, min(config.data.crop)
  halved = settings.discriminator_scales - 1 + settings.discriminator_layers
  yield (
    -(-side // 2 ** (settings.discriminator_scales - 1)) < 2**settings.discriminator_layers,
    f'the discriminators halve crops of {side} pixels {halved} times: lower '
    'translator.discriminator_scales or discriminator_layers',
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
    not stage.start and (stage.weights or config.model.weights) in ('', 'random'),
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
  earlier = config.stages.get(stage.earlier)
  yield (
    stage.centroids_from == EARLIER
    and (earlier is None or earlier.kind != 'label' or earlier.centroids_from == NO_CENTROIDS),
    f"centroids_from is 'earlier' and earlier {stage.earlier!r}: name a label stage that makes "
    'centroids',
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
    stage.selector == 'consensus' and labels is not None and labels.centroids_from == NO_CENTROIDS,
    f"selector 'consensus' compares with centroids, and {stage.labels!r} makes none: set its "
    "centroids_from to 'target'",
  )
  classes = config.data.classes
  yield not 1 <= stage.rank <= classes, f'rank is {stage.rank}: give 1 to {classes}'
  pastes = stage.target_mixing == COPY_PASTE
  yield (
    pastes and {*range(classes)} <= {*stage.copy_paste.excluded_classes},
    'copy_paste.excluded_classes holds every class: leave some to paste',
  )
  yield (
    pastes and labels is not None and labels.target != wanted,
    f'copy-paste among {wanted!r} needs their labels, but {stage.labels!r} is of '
    f'{labels.target if labels else None!r}',
  )


KINDS: dict[str, Kind] = {
  'translator': Kind(
    _of_translator,
    translator.train_step,
    set_up=translator.set_up,
    trains='translator',
    problems=_translator_problems,
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
