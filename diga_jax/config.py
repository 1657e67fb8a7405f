"""Configs: read from the command line, and checked field by field."""

import argparse
import difflib
import importlib.resources
import os
import re
from collections.abc import Iterable, Mapping

from absl import flags
from ml_collections import ConfigDict, config_dict, config_flags

from data_pipelines import label_files, label_tables, pipeline, sets
from data_pipelines.errors import BadInput
from data_pipelines.scenes import render
from diga_jax import models, optimizer, strong_augment
from diga_jax.inference import image_batches, selectors
from diga_jax.rules import boolean, either, number, pattern, text, tuple_as, tuple_of, whole, words
from diga_jax.stages import consensus, kinds, objective, views
from diga_jax.types import PyTree


def read_config(argv: list[str]) -> ConfigDict:
  """The config of --config=FILE with every --config.FIELD=VALUE applied.

  Raises:
    BadInput: for a file that cannot be loaded, an unknown field, or a value that it may not have.
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
    check(config)
    return config
  except BadInput:
    raise
  except (
    flags.Error, AttributeError, ImportError, KeyError, OSError, TypeError, ValueError
  ) as error:  # fmt: skip
    lines = [line for line in str(error).strip().strip('"\'').splitlines() if line.strip()]
    reason = lines[-1].removeprefix('ValueError: ') if lines else type(error).__name__
    field = unknown_field(error, argv)
    if field:
      near = '' if field_of(field) in FIELDS else did_you_mean(field)
      raise BadInput(f'config.{field}: there is no such field{near}') from None
    raise BadInput(f'--config: {reason}') from None


def unknown_field(error: Exception, argv: list[str]) -> str:
  """The field of the command line that an error is about, which names its last part at most."""
  word = re.search(r'\w+', str(error))
  if word and isinstance(error, AttributeError | KeyError):
    for argument in argv:
      field = argument.removeprefix('--config.').partition('=')[0]
      if word[0] in field.split('.'):
        return field
  return ''


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


_OPTIMIZER = {
  'kind': words(*optimizer.KINDS),
  'learning_rate': number(0),
  'momentum': number(0, 1, below=True),
  'betas': tuple_of(number(0, 1, below=True), 2),
  'weight_decay': number(0),
  'undecayed_pattern': pattern,
  'decay': words(*optimizer.DECAYS),
  'power': number(0),
  'final_lr_ratio': number(0),
  'common_final_lr': boolean,
  'warmup': whole(0),
  'decay_steps': whole(0),
  'head_lr_multiplier': number(0),
  'head_pattern': pattern,
  'frozen': tuple_of(pattern),
  'repeats': tuple_of(tuple_as(pattern, whole(1))),
  'first_step_momentum': boolean,
}
_SIDES = tuple_of(whole(1), 0, 2)  # (height, width), or () for a size that is not changed
_TRAIN_ID = whole(0, 255)
_COLOUR = tuple_of(whole(0, 255), 3)
_PAIRS = tuple_of(tuple_as(either(_TRAIN_ID, _COLOUR), _TRAIN_ID))

NAMED = re.compile(r'^(stages|data\.sets)\.([^.]+)\.')  # where names are free

# What every field may be; '*' is the name of a stage or of a data set. Which of them a stage has is
# a matter of its kind; which options a network has, `models.build` knows.
FIELDS = {
  'seed': whole(0, bits=63),
  'devices': whole(0),
  'parallel': words('jit', 'pmap'),
  'remat': boolean,
  'recipe': tuple_of(text),
  'checkpoint_choice': words('last', 'oracle'),
  'save_every': whole(1),
  'log_every': whole(1),
  'profile_steps': tuple_of(whole(0), 0, 2),
  'compilation_cache': text,
  'stages.*.kind': words(*kinds.KINDS),
  'stages.*.start': text,
  'stages.*.weights': text,
  'stages.*.translator': text,
  'stages.*.steps': whole(0),
  'stages.*.method': words('distill', 'source_only'),
  'stages.*.mixing': words('class', 'none'),
  'stages.*.distillation': number(0),
  'stages.*.reverse': number(0),
  'stages.*.auxiliary': number(0),
  'stages.*.ema_decay_max': number(0, 1),
  'stages.*.loss': words(*objective.LOSSES),
  'stages.*.target_loss': words(*objective.LOSSES),
  'stages.*.ohem_threshold': number(0, 1),
  'stages.*.ohem_min_kept': whole(0),
  'stages.*.target_statistics': boolean,
  'stages.*.adversarial_weight': number(0),
  'stages.*.entropy_weight': number(0),
  'stages.*.discriminator_width': whole(1),
  **{f'stages.*.discriminator_optimizer.{field}': rule for field, rule in _OPTIMIZER.items()},
  **{f'stages.*.optimizer.{field}': rule for field, rule in _OPTIMIZER.items()},
  'stages.*.view.jitter': number(0, 1),
  'stages.*.view.grayscale': number(0, 1),
  'stages.*.view.blur': number(0, 1),
  'stages.*.view.sharpness': number(0, 1),
  'stages.*.view.beta': number(0, 1),
  'stages.*.batch.low_rows': whole(0),
  'stages.*.batch.full_rows': whole(0),
  'stages.*.batch.source': text,
  'stages.*.batch.target': text,
  'stages.*.batch.source_crop': words(*pipeline.CUTS),
  'stages.*.batch.target_crop': words(*pipeline.CUTS),
  'stages.*.batch.redraw': boolean,
  # Label stages, and the selector of those that learn from labels.
  'stages.*.network': words('student', 'teacher'),
  'stages.*.source': text,
  'stages.*.target': text,
  'stages.*.scales': tuple_of(number(0, above=True), least=1),
  'stages.*.image_size': _SIDES,
  'stages.*.resizing': words(*image_batches.RESIZERS),
  'stages.*.selector': words(*(consensus.SELECTORS | selectors.SELECTORS)),
  'stages.*.selector_batch': whole(1),
  'stages.*.threshold': number(0, 1),
  'stages.*.share': number(0, 1),
  'stages.*.alpha': number(0, 1),
  'stages.*.beta': number(0, 1),
  'stages.*.gamma': number(0),
  'stages.*.centroids_from': words('target', 'source', 'none'),
  'stages.*.passes': whole(1),
  'stages.*.cap': whole(1),
  # Stages that learn from labels.
  'stages.*.labels': text,
  'stages.*.rank': whole(1),
  'stages.*.target_mixing': words('class', 'copy_paste', 'none'),
  'stages.*.centroid_momentum': number(0, 1),
  'stages.*.copy_paste.hard_classes': whole(1),
  'stages.*.copy_paste.excluded_classes': tuple_of(_TRAIN_ID),
  'stages.*.copy_paste.max_donors': whole(0),
  'stages.*.copy_paste.leave_out': number(0, 1),
  'stages.*.strong': whole(0, strong_augment.CHOICES),
  'stages.*.ema_decay': number(0, 1),
  'stages.*.smoothing': number(0),
  'stages.*.sharpening': number(0),
  'stages.*.consistency': number(0),
  'model.name': words(*models.SEGMENTATION),
  'model.dtype': words('float32', 'bfloat16'),
  'model.weights': text,
  'model.partial_weights': boolean,
  **{f'model.options.{option}': words(*allowed) for option, allowed in models.CHOICES.items()},
  **{f'model.options.{option}': number(0, 1, below=True) for option in models.PROBABILITIES},
  **{
    f'model.options.{option}': tuple_of(whole(1), least=1)
    for option in ('blocks', *models.PER_STAGE)
  },
  **{f'model.options.{option}': whole(1) for option in ('width', 'feature', 'stem', 'key')},
  'translator.kind': words(*views.TRANSLATORS),
  'translator.width': whole(1),
  'translator.blocks': whole(0),
  'translator.discriminator_width': whole(1),
  'translator.discriminator_layers': whole(1),
  'translator.discriminator_scales': whole(1),
  'translator.vgg': text,
  'translator.enc_s': text,
  'translator.dec_s2t': text,
  'translator.adversarial': number(0),
  'translator.cycle': number(0),
  'translator.edge': number(0),
  'translator.perceptual': number(0),
  'translator.reconstruction': number(0),
  'translator.beta': number(0, 0.5),
  'data.root': text,
  'data.cache': text,
  'data.classes': whole(1, 255),
  'data.names': words(*label_tables.NAMES),
  'data.class_names': tuple_of(text),
  'data.palette': tuple_of(_COLOUR),
  'data.on_bad_file': words('stop', 'skip'),
  'data.crop': tuple_of(whole(1), 2),
  'data.sets.*.kind': words(*sets.KINDS),
  'data.sets.*.images': text,
  'data.sets.*.labels': text,
  'data.sets.*.list': text,
  'data.sets.*.without': text,
  'data.sets.*.label_format': words(*label_files.FORMATS),
  'data.sets.*.table': either(
    words(*label_tables.TABLES), _PAIRS._replace(text='pairs of an id, or a colour, and a train id')
  ),
  'data.sets.*.shards': text,
  'data.sets.*.look': words(*render.LOOKS),
  'data.sets.*.first': whole(0),
  'data.sets.*.count': whole(0),
  'data.sets.*.size': tuple_of(whole(16), 2),
  'data.sets.*.low_size': _SIDES,
  'data.sets.*.zoom_heights': tuple_of(whole(1), 2),
  'data.sets.*.evaluation_size': _SIDES,
  'evaluation.name': text,
  'evaluation.stages': tuple_of(text),
  'evaluation.sets': tuple_of(text),
  'evaluation.scales': tuple_of(number(0, above=True), least=1),
  'evaluation.flip': boolean,
  'evaluation.network': words('student', 'teacher'),
  'evaluation.batch_size': whole(1),
  'evaluation.pictures': whole(0),
}


def check(config: ConfigDict) -> None:
  """Refuses settings that no run could mean, before anything is made.

  Raises:
    BadInput: naming the field and what it may be.
  """
  try:
    values = flatten(config.to_dict())
  except config_dict.RequiredValueError:
    raise BadInput('config: a placeholder that needs a value has none') from None
  stages = config.get('stages', {})
  check_fields(values, stages)
  for name, stage in stages.items():
    for wrong, reason in kinds.kind_of(stage).problems(stage, config):
      if wrong:
        raise BadInput(f'config.stages.{name}: {reason}')
    rows = [values.get(f'stages.{name}.batch.{size}_rows', 0) for size in ('low', 'full')]
    if 'batch' in stage and not any(rows):
      raise BadInput(
        f'config.stages.{name}.batch has no rows: give low_rows or full_rows at least 1'
      )
  for field in ('class_names', 'palette'):
    if len(config.data[field]) not in (0, config.data.classes):
      raise BadInput(
        f'config.data.{field} has {len(config.data[field])} entries for {config.data.classes} '
        'classes: give one for each, or none'
      )
  if config.checkpoint_choice == 'oracle' and not config.evaluation.sets:
    raise BadInput("config.evaluation.sets is (): checkpoint_choice 'oracle' needs its first set")
  if config.translator.kind == 'network' and any(side % 4 for side in config.data.crop):
    raise BadInput(
      f'config.data.crop is {tuple(config.data.crop)}: the translator needs multiples of 4'
    )


def check_fields(values: Mapping[str, object], stages: Iterable[str]) -> None:
  """Refuses fields that do not exist, values that their rules do not accept, and missing fields.

  Args:
    values: dotted path -> value.
    stages: names of the stages, each of which needs a kind.

  Raises:
    BadInput: naming the first such field.
  """
  for path, value in values.items():
    rule = FIELDS.get(field_of(path))
    if rule is None:
      raise BadInput(f'config.{path}: there is no such field{did_you_mean(path)}')
    if not rule.accepts(value):
      shown = ' '.join(repr(value).split())[:200]
      raise BadInput(f'config.{path} is {shown}: it may be {rule.text}')
  needed = [field for field in FIELDS if '*' not in field and 'model.options' not in field]
  for path in (*needed, *(f'stages.{name}.kind' for name in stages)):
    if path not in values:
      raise BadInput(f'config.{path} is missing: it may be {FIELDS[field_of(path)].text}')


def field_of(path: str) -> str:
  """The key of `FIELDS` for the path of a field: stages.warmup.steps -> stages.*.steps."""
  return NAMED.sub(r'\1.*.', path)


def did_you_mean(path: str) -> str:
  """The end of a message on a field that does not exist: the fields whose names are nearest."""
  own = NAMED.match(path)
  near = difflib.get_close_matches(field_of(path), FIELDS)
  near = [field.replace('*', own[2]) if own else field for field in near]
  return f'; the nearest are {", ".join(near)}' if near else ''


def flatten(tree: Mapping[str, PyTree], prefix: str = '') -> dict[str, PyTree]:
  """Nested dicts -> one dict with dotted keys."""
  flat = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      flat |= flatten(value, f'{prefix}{key}.')
    else:
      flat[f'{prefix}{key}'] = value
  return flat
