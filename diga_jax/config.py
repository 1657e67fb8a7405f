"""Configs: read from the command line, and checked."""

import argparse
import importlib.resources
import os
from collections.abc import Iterator
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from data_pipelines import label_files, label_tables, pipeline
from data_pipelines.errors import BadInput


def read_config(argv: list[str]) -> ConfigDict:
  """The config of --config=FILE with every --config.FIELD=VALUE applied.

  Raises:
    BadInput: for a file that cannot be loaded, an unknown field, or a value of the wrong type.
  """
  values = flags.FlagValues()
  holder = config_flags.DEFINE_config_file(
    'config', flag_values=values, sys_argv=['diga_jax', *argv]
  )
  try:
    left = values(['diga_jax', *argv])[1:]
    if left:
      raise BadInput(f'not understood: {left[0]} (see --help)')
    config = holder.value
    config.lock()  # a file that could not be loaded says so only when it is touched
    return config
  except BadInput:
    raise
  except (
    flags.Error, AttributeError, ImportError, KeyError, OSError, TypeError, ValueError
  ) as error:  # fmt: skip
    lines = [line for line in str(error).strip().strip('"\'').splitlines() if line.strip()]
    raise BadInput(f'--config: {lines[-1] if lines else type(error).__name__}') from None


def config_file(name: str) -> str:
  """The file that --config=NAME means: itself, or the shipped config of that name.

  What follows a colon goes to its get_config: 'cityscapes_semi:1_16'.

  Raises:
    BadInput: if there is neither; lists the shipped names.
  """
  file, colon, argument = name.partition(':')
  if os.path.isfile(file):
    return name
  shipped = {
    entry.name.removesuffix('.py'): entry
    for entry in importlib.resources.files('diga_jax.configs').iterdir()
    if entry.name.endswith('.py') and '\ndef get_config(' in entry.read_text(encoding='utf-8')
  }
  if file not in shipped:
    raise BadInput(
      f'--config: {file} is no file and no shipped config; these are: {", ".join(sorted(shipped))}'
    )
  return f'{shipped[file]}{colon}{argument}'


def config_of(arguments: argparse.Namespace, overrides: list[str]) -> ConfigDict | None:
  """The config of a command that has one; raises BadInput for what neither understands."""
  if getattr(arguments, 'config', None):
    return read_config([f'--config={config_file(arguments.config)}', *overrides])
  if overrides:
    raise BadInput(f'not understood: {overrides[0]} (see --help)')
  return None


# The fields that hold one of a few words.
CHOICES = {
  'checkpoint_choice': ('last', 'oracle'),
  'network': ('student', 'teacher'),
  'names': tuple(label_tables.NAMES),
  'label_format': tuple(label_files.FORMATS),
  'on_bad_file': ('stop', 'skip'),
  'method': ('distill', 'source_only', 'adversarial'),
  'mixing': ('class', 'none'),
  'target_mixing': ('class', 'copy_paste', 'none'),
  'loss': ('cross_entropy', 'labelled_cross_entropy', 'ohem'),
  'selector': ('consensus', 'none', 'constant', 'cbst', 'ias'),
  'centroids_from': ('target', 'source', 'none'),
  'source_crop': pipeline.CUTS,
  'target_crop': pipeline.CUTS,
  'decay': ('poly', 'cosine'),
  'parallel': ('jit', 'pmap'),
}


def check(config: ConfigDict) -> None:
  """Refuses settings that no run could mean, before anything is made.

  Raises:
    BadInput: naming the field and what it may be.
  """
  for field, value in flatten(config.to_dict()).items():
    allowed = CHOICES.get(field.rpartition('.')[2])
    if field == 'translator.kind':
      allowed = ('network', 'fourier', 'none')
    if allowed and value not in allowed:
      raise BadInput(f'config.{field} is {value!r}: it may be {", ".join(allowed)}')
  for name, stage in config.stages.items():
    for wrong, reason in contradictions(config, stage):
      if wrong:
        raise BadInput(f'config.stages.{name}: {reason}')
  for field in ('class_names', 'palette'):
    if len(config.data[field]) not in (0, config.data.classes):
      raise BadInput(
        f'config.data.{field} has {len(config.data[field])} entries for {config.data.classes} '
        'classes: give one for each, or none'
      )
  if len(config.profile_steps) not in (0, 2):
    raise BadInput(f'config.profile_steps is {config.profile_steps}: give (first, last) or ()')
  if config.translator.kind == 'network' and any(side % 4 for side in config.data.crop):
    raise BadInput(
      f'config.data.crop is {tuple(config.data.crop)}: the translator needs multiples of 4'
    )


def contradictions(config: ConfigDict, stage: ConfigDict) -> Iterator[tuple[bool, str]]:
  """(whether a stage's settings make no sense together, why and what to set instead)."""
  if stage.kind == 'label':
    yield (
      stage.selector == 'consensus',
      "selector 'consensus' follows the teacher while it trains: set it in the self-training "
      "stage, and here 'none' or a selector by confidence",
    )
    shares = {name: stage[name] for name in ('threshold', 'share', 'alpha', 'beta')}
    for name, value in shares.items():
      yield not 0 <= value <= 1, f'{name} is {value}: give a share between 0 and 1'
    yield (
      stage.selector_batch < 1,
      f'selector_batch is {stage.selector_batch}: give at least 1 image',
    )
  if stage.kind in ('self_training', 'hiast'):
    yield (
      stage.selector not in ('consensus', 'none'),
      f'selector {stage.selector!r} looks at confidences, which the stored labels lack: set it in '
      f"the label stage {stage.labels!r}, and here 'none'",
    )
    labels = config.stages.get(stage.labels)
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
      stage.target_mixing == 'copy_paste'
      and labels is not None
      and labels.target != stage.batch.target,
      f'copy-paste among {stage.batch.target!r} needs their labels, but {stage.labels!r} is of '
      f'{labels.target if labels else None!r}',
    )


def flatten(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  """Nested dicts -> one dict with dotted keys."""
  flat = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      flat |= flatten(value, f'{prefix}{key}.')
    else:
      flat[prefix + key] = value
  return flat
