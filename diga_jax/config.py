"""Configs: read from the command line, and checked field by field."""

import argparse
import ast
import contextlib
import difflib
import functools
import importlib
import importlib.resources
import inspect
import os
import re
import runpy
import traceback
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources.abc import Traversable

from absl import flags
from ml_collections import ConfigDict, config_dict, config_flags

from data_pipelines import image_files, label_tables, pipeline, sets
from data_pipelines.errors import BadInput, one_line
from data_pipelines.scenes import render
from diga_jax import criteria, metrics, models, optimizer, signals, strong_augment
from diga_jax.inference import image_batches, selectors
from diga_jax.parallel import mesh
from diga_jax.rules import (
  boolean,
  different,
  either,
  number,
  pattern,
  rising,
  simple_name,
  text,
  title,
  tuple_as,
  tuple_of,
  whole,
  words,
)
from diga_jax.stages import consensus, kinds, objective, views, warmup
from diga_jax.state import NETWORKS
from diga_jax.tracking.tracked import TRACKERS
from diga_jax.types import PyTree


def read_config(argv: list[str]) -> ConfigDict:
  """The config of --config=FILE with every --config.FIELD=VALUE applied.

  Raises:
    BadInput: for a file that cannot be loaded, an unknown field, or a value that it may not have.
  """
  (file, *overrides), values = argv, flags.FlagValues()
  given = list(map(split_override, overrides))
  config, line = load(file.removeprefix('--config=')), ['diga_jax', *overrides]
  try:
    holder = config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=line)
    values(line)
    config = holder.value
    set_tables(config, [field for field, _ in given])
    check(config)
    return config
  except BadInput:
    raise
  except (
    flags.Error, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError,
  ) as error:  # fmt: skip
    lines = [line for line in str(error).strip().strip('"\'').splitlines() if line.strip()]
    reason = lines[-1].removeprefix('ValueError: ') if lines else type(error).__name__
    if fields := unknown_of(error, [field for field, _ in given]):
      raise BadInput(unknown_fields(fields, FIELDS)) from None
    for field, value in given:
      if reason.startswith(f'flag --config.{field}={value}: '):  # of another type than the file's
        raise BadInput(refusal(field, value)) from None
    raise BadInput(f'--config: {reason}') from None


def set_tables(config: ConfigDict, given: Iterable[str]) -> None:
  """Takes label tables from the command line as a name or as pairs, whichever the file has.

  What is neither is left for `check` to refuse.
  """
  for name in (match[1] for match in map(TABLE.fullmatch, given) if match):
    settings = config.data.sets[name]
    value = settings.table
    if isinstance(value, str):  # the file has a name
      with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
        found = ast.literal_eval(value)
        value = found if isinstance(found, tuple | list | str) else value
    elif len(value) == 1 and isinstance(value[0], str):  # it has pairs
      value = value[0]
    with settings.ignore_type():
      settings.table = tuple(value) if isinstance(value, list) else value


def split_override(text: str) -> tuple[str, str]:
  """(field, value) of --config.FIELD=VALUE; raises BadInput for any other argument."""
  if found := re.fullmatch(r'--?config\.([^=]+)=(.*)', text, re.DOTALL):
    return found[1], found[2]
  if '=' not in text and text.startswith(('--config.', '-config.')):
    raise BadInput(f'{text} has no value: write {text}=VALUE, with = and no blank')
  raise BadInput(f'not understood: {text} (see --help)')


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
  except signals.Stopped:
    raise
  except BaseException as error:  # the file is a program: it may raise anything, and end itself
    said = error.args[0] if isinstance(error, KeyError) and error.args else error
    reason = f'{type(error).__name__}: {one_line(said)}'
    raise BadInput(f'--config: {line_of(error, file)}: {reason}') from None
  if not isinstance(config, ConfigDict):
    raise BadInput(f'--config: {file}: get_config() returns {type(config).__name__}, not a config')
  return config


def line_of(error: BaseException, file: str) -> str:
  """Where in a file an error was raised, or in what the file calls: 'FILE, line N'."""
  if isinstance(error, SyntaxError) and error.filename:  # of the file, or of one that it imports
    return f'{error.filename}, line {error.lineno}'
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno for frame in frames if frame.filename == file]
  return f'{file}, line {lines[-1]}' if lines else file


def unknown_of(error: Exception, given: Sequence[str]) -> list[str]:
  """The given fields that do not exist: those of no config, or the one at fault.

  The error names the last part of a field at most.
  """
  word = re.search(r'\w+', str(error))
  at_fault = [field for field in given if word and word[0] in field.split('.')]
  known = isinstance(error, AttributeError | LookupError)
  return [field for field in given if field_of(field) not in FIELDS] or at_fault * known


def config_file(name: str) -> str:
  """The file that --config=NAME means: itself, or the shipped config of that name.

  What follows a colon goes to its get_config: 'cityscapes_semi:1_16'.

  Raises:
    BadInput: if there is neither; lists the shipped names.
  """
  file, colon, argument = name.partition(':')
  if os.path.isfile(file):
    return name
  shipped = shipped_configs()
  if file not in shipped:
    raise BadInput(
      f'--config: {file} is no file and no shipped config; these are: {", ".join(sorted(shipped))}'
    )
  return f'{shipped[file]}{colon}{argument}'


def shipped_configs() -> dict[str, Traversable]:
  """The files of configs/ that hold a config, by name."""
  return {
    entry.name.removesuffix('.py'): entry
    for entry in importlib.resources.files('diga_jax.configs').iterdir()
    if entry.name.endswith('.py') and '\ndef get_config(' in entry.read_text(encoding='utf-8')
  }


def config_of(arguments: argparse.Namespace, overrides: list[str]) -> ConfigDict | None:
  """The config of a command that has one; raises BadInput for what neither understands."""
  if getattr(arguments, 'config', None):
    return read_config([f'--config={config_file(arguments.config)}', *overrides])
  if overrides:
    raise BadInput(f'not understood: {overrides[0]} (see --help)')
  return None


_SIDE = whole(1, 2**14)  # pixels; an area is checked where its images are made
_SIDES = tuple_of(_SIDE, 0, 2)  # (height, width), or () for a size that is not changed
_SCALES = tuple_of(number(0, 16, above=True), least=1)
_CHANNELS = whole(1, 2**14)
_STEPS = whole(0, 10**9)  # the sum of two is an int32
_WEIGHT = number(0, 10**6)
_SHARE = number(0, 1)
_BELOW_1 = number(0, 1, below=True)
_NAMES = different(tuple_of(title))
_TRAIN_ID = whole(0, 254)
_TRAIN_ID_OR_IGNORED = whole(0, 255)
_COLOUR = tuple_of(whole(0, 255), 3)
_PAIRS = tuple_of(tuple_as(either(whole(0, 255), _COLOUR), _TRAIN_ID_OR_IGNORED), least=1)
_OPTIMIZER = {
  'kind': words(*optimizer.KINDS), 'decay': words(*optimizer.DECAYS),
  'learning_rate': number(0, 1000, above=True), 'final_lr_ratio': _SHARE,
  'weight_decay head_lr_multiplier': _WEIGHT, 'power': number(0, 100), 'momentum': _BELOW_1,
  'betas': tuple_of(_BELOW_1, 2), 'warmup decay_steps': _STEPS,
  'undecayed_pattern head_pattern': pattern, 'frozen': tuple_of(pattern),
  'repeats': tuple_of(tuple_as(pattern, whole(1, 16))),
  'common_final_lr first_step_momentum': boolean,
}  # fmt: skip

RESERVED = ('evaluation', 'study', 'wandb')  # folders of a working directory that are no stages
SHOWN = 5  # fields that do not exist, in one message
TABLE = re.compile(r'data\.sets\.([^.]+)\.table')
NAMED = re.compile(r'^(stages|data\.sets)\.([^.]+)\.')  # where names are free

# Group -> fields -> what each of them may be; '*' is the name of a stage or of a data set. Which of
# the fields a stage has is a matter of its kind; which options a network has, `models.build` knows.
_GROUPS = {
  '': {
    'seed': whole(0, bits=63), 'devices': whole(0), 'programs': whole(0, 2**10),
    'parallel': words(*mesh.PARALLEL), 'remat': boolean,
    'recipe': different(tuple_of(title, least=1)),
    'checkpoint_choice': words(criteria.LAST, *criteria.NAMES),
    'keep_checkpoints': words('networks', 'all'),
    'save_every log_every': whole(1), 'evaluate_every': whole(0),
    'trackers': different(tuple_of(words(*TRACKERS))),
    'profile_steps': rising(tuple_of(whole(1), 0, 2)),
    'compilation_cache': text,
    'variants': tuple_of(tuple_as(simple_name, tuple_of(title))),
  },
  'stages.*.': {
    'kind': words(*kinds.KINDS), 'data_stream start weights labels earlier centroid_set': text,
    'translator target': title,
    'method': words(*warmup.METHODS), 'loss target_loss': words(*objective.LOSSES),
    'mixing': words(*views.MIXINGS), 'target_mixing': words(*views.TARGET_MIXINGS),
    'network': words(*NETWORKS), 'centroids_from': words(*kinds.CENTROIDS_FROM),
    'selector': words(*(consensus.SELECTORS | selectors.SELECTORS)),
    'steps': _STEPS, 'ohem_min_kept': whole(0), 'strong': whole(0, strong_augment.CHOICES),
    'distillation reverse auxiliary adversarial_weight entropy_weight': _WEIGHT,
    'smoothing sharpening consistency': _WEIGHT, 'gamma': number(0, 1000),
    'target_statistics centroid_crops': boolean, 'ema_decay': _BELOW_1,
    'ema_decay_max ohem_threshold centroid_momentum': _SHARE,
    'threshold share alpha beta': _SHARE, 'scales': _SCALES, 'image_size': _SIDES,
    'resizing': words(*image_batches.RESIZERS), 'discriminator_width': _CHANNELS,
    'selector_batch': whole(1, 1024), 'passes': whole(1, 1000), 'cap': whole(1),
    'rank': whole(1, 255),
  },
  'stages.*.optimizer.': _OPTIMIZER,
  'stages.*.discriminator_optimizer.': _OPTIMIZER,
  'stages.*.view.': {'jitter grayscale blur sharpness beta': _SHARE},
  'stages.*.batch.': {
    'low_rows full_rows': whole(0, 2**16), 'source target': title, 'redraw': boolean,
    'source_crop target_crop': words(*pipeline.CUTS),
  },
  'stages.*.copy_paste.': {
    'hard_classes': whole(1, 255), 'excluded_classes': tuple_of(_TRAIN_ID),
    'max_donors': whole(0, 255), 'leave_out': _BELOW_1,
  },
  'model.': {
    'name': words(*models.SEGMENTATION), 'dtype': words('float32', 'bfloat16'),
    'precision': words(*models.PRECISIONS), 'weights': text,
    'partial_weights': tuple_of(pattern),
  },
  'model.options.': {
    **{option: words(*allowed) for option, allowed in models.CHOICES.items()},
    ' '.join(models.PROBABILITIES): _BELOW_1,
    ' '.join(models.PER_STAGE): tuple_of(_CHANNELS, least=1),
    'blocks': tuple_of(whole(1, 256), 1, 2, 3, 4), 'width feature stem key': _CHANNELS,
  },
  'translator.': {
    'kind': words(*views.TRANSLATORS), 'vgg enc_s dec_s2t': text,
    'width discriminator_width': _CHANNELS, 'blocks': whole(0, 64),
    'discriminator_layers discriminator_scales': whole(1, 8),
    'adversarial cycle edge perceptual reconstruction': _WEIGHT, 'beta': number(0, 0.5),
  },
  'data.': {
    'root cache': text, 'classes': whole(1, 255), 'names': words(*label_tables.NAMES),
    'class_names': _NAMES, 'palette': tuple_of(_COLOUR), 'on_bad_file': words('stop', 'skip'),
    'max_pixels': whole(1), 'crop': tuple_of(whole(32, 2**14), 2),
  },
  'data.sets.*.': {
    'kind': words(*sets.KINDS), 'images labels list without shards': text,
    'label_format': words(*image_files.LABEL_FORMATS), 'look': words(*render.LOOKS),
    'table': either(
      words(*label_tables.TABLES),
      _PAIRS._replace(text='pairs of an id, or a colour, and a train id'),
    ),
    'first count': whole(0, 10**6), 'size': tuple_of(whole(16, 4096), 2),
    'zoom_heights': rising(tuple_of(_SIDE, 2)), 'low_size full_size evaluation_size': _SIDES,
  },
  'criteria.': {'record': different(tuple_of(words(*criteria.NAMES))), 'set': text},
  'evaluation.': {
    'checkpoints': different(tuple_of(words(criteria.LAST, *criteria.NAMES))),
    'name': simple_name, 'stages sets': _NAMES, 'scales': _SCALES, 'flip': boolean,
    'network': words(*NETWORKS), 'batch_size': whole(1, 1024), 'pictures': whole(0),
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
    values = flatten(config.to_dict(), empty=True)
  except config_dict.RequiredValueError:
    raise BadInput('config: a placeholder that needs a value has none') from None
  check_fields(values)
  check_names(config)
  check_classes(config)
  for name, stage in config.stages.items():
    for wrong, reason in kinds.problems(stage, config):
      if wrong:
        raise BadInput(f'config.stages.{name}: {reason}')
    if 'batch' in stage and not stage.batch.low_rows + stage.batch.full_rows:
      raise BadInput(
        f'config.stages.{name}.batch has no rows: give low_rows or full_rows at least 1'
      )
  try:
    models.build(config.model.name, config.data.classes, **config.model.options.to_dict())
  except BadInput as error:
    raise BadInput(f'config.model.options: {error}') from None
  check_criteria(config)
  check_curve(config)
  if config.translator.kind == 'network' and any(side % 4 for side in config.data.crop):
    raise BadInput(
      f'config.data.crop is {tuple(config.data.crop)}: the translator needs multiples of 4'
    )


def check_names(config: ConfigDict) -> None:
  """Refuses names of what there is not, that cannot name a folder, and sets without a scene.

  Raises:
    BadInput: naming the field.
  """
  for group, names in (('stages', config.stages), ('data.sets', config.data.sets)):
    for name in names:
      if not simple_name.accepts(name):
        raise BadInput(f'config.{group} has {name!r}: it may be {simple_name.text}')
      if group == 'stages' and name in RESERVED:
        raise BadInput(f'config.stages has {name!r}, the folder of what is measured: rename it')
  stages, sets, settings = config.stages, config.data.sets, config.evaluation
  read = {name: kinds.inputs(stages[name], config).sets for name in config.recipe if name in stages}
  named = [
    ('recipe', config.recipe, 'stages', stages),
    ('evaluation.stages', settings.stages, 'stages', stages),
    ('evaluation.sets', settings.sets, 'data.sets', sets),
    ('criteria.set', [config.criteria.set] if config.criteria.set else [], 'data.sets', sets),
    *((f'stages.{name}', names, 'data.sets', sets) for name, names in read.items()),
  ]
  for field, names, group, known in named:
    for name in names:
      if name not in known:
        raise BadInput(
          f'config.{field} names {name!r}, but config.{group} has '
          f'{"only " * bool(known)}{", ".join(known) or "none"} '
          "(several names are written ('a', 'b'))"
        )
  for name, settings in sets.items():
    if settings.kind == 'scenes' and not settings.count:
      raise BadInput(f'config.data.sets.{name}.count is 0: give the number of scenes')
  for name, stage in stages.items():
    if stage.get('data_stream') and stage.data_stream not in stages:
      raise BadInput(
        f'config.stages.{name}.data_stream is {stage.data_stream!r}: name a stage, or nothing'
      )


def check_criteria(config: ConfigDict) -> None:
  """Refuses criteria that stages of the recipe cannot have, and choices that are not kept.

  Raises:
    BadInput: naming the field.
  """
  choice, record = config.checkpoint_choice, config.criteria.record
  wanted, recipe = {*record, choice}, {name: config.stages[name] for name in config.recipe}
  has_centroids = {
    name: kinds.inputs(stage, config).centroids
    for name, stage in recipe.items()
    if kinds.is_chosen(stage)
  }
  if criteria.ORACLE in wanted and not config.evaluation.sets:
    raise BadInput("config.evaluation.sets is (): the criterion 'oracle' needs its first set")
  without = [name for name, has in has_centroids.items() if not has]
  nowhere = criteria.CONSENSUS in record and len(without) == len(has_centroids)
  if without and (nowhere or choice == criteria.CONSENSUS):
    raise BadInput(
      f"config.stages.{without[0]} has no centroids for the criterion 'consensus': name another, "
      "or a recipe of stages whose selector is 'consensus'"
    )
  check_held_out(config, [name for name in criteria.UNLABELLED if name in wanted])
  kept = {choice, *((criteria.LAST, *record) if record else ())}
  for name in config.evaluation.checkpoints:
    if name not in kept:
      raise BadInput(
        f'config.evaluation.checkpoints names {name!r}, which is not kept: name it in '
        'config.criteria.record'
      )


def check_curve(config: ConfigDict) -> None:
  """Refuses evaluations while a stage trains that have no data set, or come too late for any.

  Raises:
    BadInput: naming the field.
  """
  every, stages = config.evaluate_every, [config.stages[name] for name in config.recipe]
  if every and not config.evaluation.sets:
    raise BadInput(f'config.evaluate_every is {every}, and config.evaluation.sets (): name a set')
  longest = max((stage.steps for stage in stages if kinds.is_chosen(stage)), default=every)
  if every > longest:
    raise BadInput(
      f'config.evaluate_every is {every}, and the longest stage has {longest} steps: give at most '
      'that, or 0 for no curve'
    )


def check_held_out(config: ConfigDict, unlabelled: Sequence[str]) -> None:
  """Refuses criteria without labels that have no images, or none of their own; raises BadInput."""
  key = config.criteria.set
  if unlabelled and not key:
    raise BadInput(
      f"config.criteria.set is '': the criterion {unlabelled[0]!r} needs held-out target images, "
      'name a set in config.data.sets'
    )
  used = {'evaluation.sets': config.evaluation.sets} | {
    f'stages.{name}': kinds.inputs(config.stages[name], config).sets for name in config.recipe
  }
  for place, names in used.items():
    if key and key in names:
      raise BadInput(
        f'config.criteria.set is {key!r}, which config.{place} names too: name images that no '
        'stage learns from and no number is measured on'
      )


def check_classes(config: ConfigDict) -> None:
  """Refuses names, colours and means that the classes do not have; raises BadInput."""
  data, settings = config.data, config.evaluation
  for field, known in (('class_names', label_tables.NAMES), ('palette', label_tables.PALETTE)):
    own = len(data[field])
    if own not in (0, data.classes):
      raise BadInput(
        f'config.data.{field} has {own} entries for {data.classes} classes: give one for each, or '
        'none'
      )
    count = len(known[data.names])
    if not own and (count < data.classes or (field == 'class_names' and count > data.classes)):
      raise BadInput(
        f'config.data.names is {data.names!r}, which has {count} classes, and config.data.classes '
        f'is {data.classes}: choose other names, or give config.data.{field}, one for each class'
      )
  class_set = label_tables.class_set(data.names, data.class_names)
  if settings.class_means == 'hiast' and class_set != 'cityscapes19':
    raise BadInput("config.evaluation.class_means: 'hiast' is for data.names 'cityscapes19' alone")
  means = metrics.class_means(class_set, data.classes, settings.class_means).subsets
  if settings.mean and settings.mean not in means:
    raise BadInput(
      f'config.evaluation.mean is {settings.mean!r}: it may be {", ".join(means)}, or empty for '
      'the mean over all classes'
    )


def check_fields(values: Mapping[str, object]) -> None:
  """Refuses fields that do not exist, missing ones, and values that their rules do not accept.

  Args:
    values: dotted path -> value; {} for a group without fields.

  Raises:
    BadInput: naming all fields that do not exist, or the first of the others.
  """
  known = fields_of(values)
  unknown = [path for path in values if path not in known and not is_group(path, values, known)]
  if unknown:
    raise BadInput(unknown_fields(unknown, known))
  for group in ('stages', 'data.sets'):
    if not any(f'{path}.'.startswith(f'{group}.') for path in values):
      raise BadInput(f'config.{group} is missing: start from default.get_config()')
  for path in known:
    if isinstance(values.get(path, {}), dict) and not path.startswith('model.options.'):
      raise BadInput(f'config.{path} is missing: it may be {FIELDS[field_of(path)].text}')
  for path in filter(known.__contains__, values):
    if not FIELDS[field_of(path)].accepts(values[path]):
      raise BadInput(refusal(path, values[path]))


def refusal(path: str, value: object) -> str:
  """A message that a field may not have a value."""
  shown = ' '.join(repr(value).split())[:200]
  return f'config.{path} is {shown}: it may be {FIELDS[field_of(path)].text}'


def fields_of(values: Mapping[str, object]) -> dict[str, None]:
  """The paths of all fields that a config with these stages and data sets has.

  A kind of stage has the fields of KIND_stage in configs/stages.py; one without such a function has
  whichever fields of `FIELDS` it is given.
  """
  found = [field for field in FIELDS if '*' not in field]
  for group, name in dict.fromkeys(m.groups() for m in map(NAMED.match, _with_dot(values)) if m):
    start = f'{group}.{name}.'
    given = [path.removeprefix(start) for path in values if path.startswith(start)]
    of_kind = fields_of_kind(group, str(values.get(f'{start}kind')))
    own = of_kind or [field for field in given if field_of(start + field) in FIELDS]
    found += [f'{start}{field}' for field in ('kind', *own)]
  return dict.fromkeys(found)


def _with_dot(paths: Iterable[str]) -> Iterable[str]:
  return (f'{path}.' for path in paths)


@functools.cache
def fields_of_kind(group: str, kind: str) -> list[str]:
  """The fields of a data set, or of a kind of stage as configs/stages.py makes it; [] unknown."""
  module, name = ('datasets', 'dataset') if group == 'data.sets' else ('stages', f'{kind}_stage')
  make = getattr(importlib.import_module(f'diga_jax.configs.{module}'), name, None)
  if make is None:
    return []
  parameters = inspect.signature(make).parameters.values()
  names = [p for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
  return list(flatten(make(*[''] * len(names)).to_dict()))


def is_group(path: str, values: Mapping[str, object], known: Iterable[str]) -> bool:
  """Whether a path is that of an empty group, such as `model.options` may be."""
  places = [*known, 'stages.', 'data.sets.']
  return values[path] == {} and any(place.startswith(f'{path}.') for place in places)


@functools.cache
def field_of(path: str) -> str:
  """The key of `FIELDS` for the path of a field: stages.warmup.steps -> stages.*.steps."""
  return NAMED.sub(r'\1.*.', path)


def unknown_fields(paths: Sequence[str], known: Iterable[str]) -> str:
  """A message that fields do not exist; names the known ones nearest to each."""
  known, lines = list(known), []
  for path in paths[:SHOWN]:
    own = NAMED.match(path)
    alike = [field.replace('*', own[2]) if own else field for field in known]
    near = difflib.get_close_matches(path, [k for k in alike if not own or k.startswith(own[0])])
    end = f'; the nearest are {", ".join(near)}' if near else ''
    if field_of(path) in known:
      end = ' in this config: stages and data sets, with all their fields, come from its file'
    lines.append(f'config.{path}: there is no such field{end}')
  more = len(paths) - SHOWN
  return '; '.join(lines + [f'and {more} more'] * (more > 0))


def flatten(
  tree: Mapping[str, PyTree], prefix: str = '', *, empty: bool = False
) -> dict[str, PyTree]:
  """Nested dicts -> one dict with dotted keys; with `empty` also those of dicts without keys."""
  flat = {}
  for key, value in tree.items():
    if isinstance(value, dict) and (value or not empty):
      flat |= flatten(value, f'{prefix}{key}.', empty=empty)
    else:
      flat[f'{prefix}{key}'] = value
  return flat
