"""Configs: read from the command line, and checked field by field."""

import argparse
import difflib
import importlib.resources
import os
import re
import runpy
import traceback
from collections.abc import Iterable, Mapping

from absl import flags
from ml_collections import ConfigDict, config_dict, config_flags

from data_pipelines import image_files, label_tables, pipeline, sets
from data_pipelines.errors import BadInput, one_line
from data_pipelines.scenes import render
from diga_jax import metrics, models, optimizer, strong_augment
from diga_jax.inference import image_batches, selectors
from diga_jax.parallel import mesh
from diga_jax.rules import boolean, either, number, pattern, text, tuple_as, tuple_of, whole, words
from diga_jax.stages import consensus, kinds, objective, views, warmup
from diga_jax.state import NETWORKS
from diga_jax.types import PyTree


def read_config(argv: list[str]) -> ConfigDict:
  """The config of --config=FILE with every --config.FIELD=VALUE applied.

  Raises:
    BadInput: for a file that cannot be loaded, an unknown field, or a value that it may not have.
  """
  (file, *overrides), values = argv, flags.FlagValues()
  config, line = load(file.removeprefix('--config=')), ['diga_jax', *overrides]
  try:
    holder = config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=line)
    left = values(line)[1:]
    if left:
      raise BadInput(f'not understood: {left[0]} (see --help)')
    config = holder.value
    check(config)
    return config
  except BadInput:
    raise
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
    lines = [line for line in str(error).strip().strip('"\'').splitlines() if line.strip()]
    reason = lines[-1].removeprefix('ValueError: ') if lines else type(error).__name__
    field = unknown_field(error, argv)
    if field:
      near = '' if field_of(field) in FIELDS else did_you_mean(field)
      raise BadInput(f'config.{field}: there is no such field{near}') from None
    raise BadInput(f'--config: {reason}') from None


def load(name: str) -> ConfigDict:
  """What get_config() of a file returns; FILE:TEXT calls get_config('TEXT').

  Raises:
    BadInput: naming the line of the file at which it went wrong.
  """
  file, colon, text = name.partition(':')
  try:
    found = runpy.run_path(file)
    if 'get_config' not in found:
      raise NameError('it has no function get_config')
    config = found['get_config'](*[text] * bool(colon))
  except Exception as error:  # the file is a program: it may raise anything
    said = error.args[0] if isinstance(error, KeyError) and error.args else error
    reason = f'{type(error).__name__}: {one_line(said)}'
    raise BadInput(f'--config: {line_of(error, file)}: {reason}') from None
  if not isinstance(config, ConfigDict):
    raise BadInput(f'--config: {file}: get_config() returns {type(config).__name__}, not a config')
  return config


def line_of(error: Exception, file: str) -> str:
  """Where in a file an error was raised, or in what the file calls: 'FILE, line N'."""
  if isinstance(error, SyntaxError) and error.filename:  # of the file, or of one that it imports
    return f'{error.filename}, line {error.lineno}'
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno for frame in frames if frame.filename == file]
  return f'{file}, line {lines[-1]}' if lines else file


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


_SIDES = tuple_of(whole(1), 0, 2)  # (height, width), or () for a size that is not changed
_SCALES = tuple_of(number(0, above=True), least=1)
_TRAIN_ID = whole(0, 255)
_COLOUR = tuple_of(whole(0, 255), 3)
_PAIRS = tuple_of(tuple_as(either(_TRAIN_ID, _COLOUR), _TRAIN_ID))
_OPTIMIZER = {
  'kind': words(*optimizer.KINDS), 'decay': words(*optimizer.DECAYS),
  'learning_rate weight_decay power final_lr_ratio head_lr_multiplier': number(0),
  'momentum': number(0, 1, below=True), 'betas': tuple_of(number(0, 1, below=True), 2),
  'warmup decay_steps': whole(0), 'undecayed_pattern head_pattern': pattern,
  'frozen': tuple_of(pattern), 'repeats': tuple_of(tuple_as(pattern, whole(1))),
  'common_final_lr first_step_momentum': boolean,
}  # fmt: skip

NAMED = re.compile(r'^(stages|data\.sets)\.([^.]+)\.')  # where names are free

# Group -> fields -> what each of them may be; '*' is the name of a stage or of a data set. Which of
# the fields a stage has is a matter of its kind; which options a network has, `models.build` knows.
_GROUPS = {
  '': {
    'seed': whole(0, bits=63), 'devices': whole(0), 'parallel': words(*mesh.PARALLEL),
    'remat': boolean, 'recipe': tuple_of(text), 'checkpoint_choice': words('last', 'oracle'),
    'save_every log_every': whole(1), 'profile_steps': tuple_of(whole(0), 0, 2),
    'compilation_cache': text,
  },
  'stages.*.': {
    'kind': words(*kinds.KINDS), 'data_stream start weights translator target labels': text,
    'earlier centroid_set': text,
    'method': words(*warmup.METHODS), 'loss target_loss': words(*objective.LOSSES),
    'mixing': words(*views.MIXINGS), 'target_mixing': words(*views.TARGET_MIXINGS),
    'network': words(*NETWORKS), 'centroids_from': words(*kinds.CENTROIDS_FROM),
    'selector': words(*(consensus.SELECTORS | selectors.SELECTORS)),
    'steps ohem_min_kept': whole(0), 'strong': whole(0, strong_augment.CHOICES),
    'distillation reverse auxiliary adversarial_weight entropy_weight': number(0),
    'gamma smoothing sharpening consistency': number(0),
    'target_statistics centroid_crops': boolean,
    'ema_decay_max ema_decay ohem_threshold centroid_momentum': number(0, 1),
    'threshold share alpha beta': number(0, 1), 'scales': _SCALES, 'image_size': _SIDES,
    'resizing': words(*image_batches.RESIZERS),
    'discriminator_width selector_batch passes cap rank': whole(1),
  },
  'stages.*.optimizer.': _OPTIMIZER,
  'stages.*.discriminator_optimizer.': _OPTIMIZER,
  'stages.*.view.': {'jitter grayscale blur sharpness beta': number(0, 1)},
  'stages.*.batch.': {
    'low_rows full_rows': whole(0), 'source target': text, 'redraw': boolean,
    'source_crop target_crop': words(*pipeline.CUTS),
  },
  'stages.*.copy_paste.': {
    'hard_classes': whole(1), 'excluded_classes': tuple_of(_TRAIN_ID), 'max_donors': whole(0),
    'leave_out': number(0, 1),
  },
  'model.': {
    'name': words(*models.SEGMENTATION), 'dtype': words('float32', 'bfloat16'),
    'precision': words(*models.PRECISIONS), 'weights': text, 'partial_weights': boolean,
  },
  'model.options.': {
    **{option: words(*allowed) for option, allowed in models.CHOICES.items()},
    ' '.join(models.PROBABILITIES): number(0, 1, below=True),
    ' '.join(('blocks', *models.PER_STAGE)): tuple_of(whole(1), least=1),
    'width feature stem key': whole(1),
  },
  'translator.': {
    'kind': words(*views.TRANSLATORS), 'blocks': whole(0), 'vgg enc_s dec_s2t': text,
    'width discriminator_width discriminator_layers discriminator_scales': whole(1),
    'adversarial cycle edge perceptual reconstruction': number(0), 'beta': number(0, 0.5),
  },
  'data.': {
    'root cache': text, 'classes': whole(1, 255), 'names': words(*label_tables.NAMES),
    'class_names': tuple_of(text), 'palette': tuple_of(_COLOUR),
    'on_bad_file': words('stop', 'skip'), 'crop': tuple_of(whole(1), 2),
  },
  'data.sets.*.': {
    'kind': words(*sets.KINDS), 'images labels list without shards': text,
    'label_format': words(*image_files.LABEL_FORMATS), 'look': words(*render.LOOKS),
    'table': either(
      words(*label_tables.TABLES),
      _PAIRS._replace(text='pairs of an id, or a colour, and a train id'),
    ),
    'first count': whole(0), 'size': tuple_of(whole(16), 2), 'zoom_heights': tuple_of(whole(1), 2),
    'low_size full_size evaluation_size': _SIDES,
  },
  'evaluation.': {
    'name': text, 'stages sets': tuple_of(text), 'scales': _SCALES, 'flip': boolean,
    'network': words(*NETWORKS), 'batch_size': whole(1), 'pictures': whole(0),
    'class_means': words(*metrics.WAYS), 'mean': text,
  },
}  # fmt: skip
FIELDS = {
  f'{group}{field}': rule
  for group, fields in _GROUPS.items()
  for names, rule in fields.items()
  for field in names.split()
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
    stream = values.get(f'stages.{name}.data_stream')
    if stream and stream not in stages:
      raise BadInput(f'config.stages.{name}.data_stream is {stream!r}: name a stage, or nothing')
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
  check_means(config)
  if config.checkpoint_choice == 'oracle' and not config.evaluation.sets:
    raise BadInput("config.evaluation.sets is (): checkpoint_choice 'oracle' needs its first set")
  if config.translator.kind == 'network' and any(side % 4 for side in config.data.crop):
    raise BadInput(
      f'config.data.crop is {tuple(config.data.crop)}: the translator needs multiples of 4'
    )


def check_means(config: ConfigDict) -> None:
  """Refuses means that the classes do not have; raises BadInput."""
  data, settings = config.data, config.evaluation
  class_set = '' if data.class_names else data.names
  if settings.class_means == 'hiast' and class_set != 'cityscapes19':
    raise BadInput("config.evaluation.class_means: 'hiast' is for data.names 'cityscapes19' alone")
  means = metrics.class_means(class_set, data.classes, settings.class_means).subsets
  if settings.mean and settings.mean not in means:
    raise BadInput(
      f'config.evaluation.mean is {settings.mean!r}: it may be {", ".join(means)}, or empty for '
      'the mean over all classes'
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
