"""README.md of a card: metadata that the Hub reads, and a page for people."""

import functools
import importlib.resources
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jinja2
import yaml

from data_pipelines.errors import printable
from diga_jax.card.facts import Facts, Measured
from diga_jax.card.sample import Sample
from diga_jax.report import tables
from diga_jax.types import PyTree, Size

UNKNOWN = 'unknown'  # the Hub's word where nobody has chosen a licence
TASK = 'image-segmentation'
METRICS = {'mean_iou': 'mean_iou', 'pixel_accuracy': 'accuracy'}  # of a row -> the Hub's type
SHOWN = ('diga_jax', 'commit', 'jax', 'flax', 'devices', 'processor')  # of the conditions
MARKDOWN = re.compile(r'([\\`*{}\[\]<>|#~&$]|(?<!\w)_|_(?!\w))')  # '_' in a word has none


class Onnx(NamedTuple):
  """An ONNX file: the (height, width) that it takes, and how far its logits are from Flax's."""

  size: Size
  difference: float


class Contents(NamedTuple):
  """What is in the folder beside config.json and the weights; None for what is not there.

  Attributes:
    pytorch: whether the network has a form in PyTorch.
    picture: images and predictions.
    onnx: the network as an ONNX file.
  """

  pytorch: bool
  picture: Sample | None
  onnx: Onnx | None


def write(config: Mapping[str, PyTree], facts: Facts, contents: Contents, licence: str) -> str:
  """The text of the file; `config` is what config.json holds, `licence` the Hub's word for one."""
  head = yaml.safe_dump(
    metadata(config, facts, contents, licence), allow_unicode=True, sort_keys=False, width=1000
  )
  page = (
    environment()
    .get_template('README.md.jinja')
    .render(
      config=config,
      facts=facts,
      contents=contents,
      licence=licence,
      title=title(config, facts),
      unknown=UNKNOWN,
      groups=groups(facts.measured),
      conditions=conditions(facts),
      warnings=[text for made in facts.stages.values() for text in made['warnings']],
    )
  )
  return f'---\n{head}---\n\n{page}'


@functools.cache
def environment() -> jinja2.Environment:
  """What fills the template; nothing is escaped but by the filter `plain`."""
  made = jinja2.Environment(
    loader=jinja2.FunctionLoader(template),
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
    autoescape=False,
  )
  made.filters |= {'plain': plain, 'percent': percent}
  return made


def template(name: str) -> str:
  """A file of templates/."""
  place = importlib.resources.files('diga_jax.card') / 'templates' / name
  return place.read_text(encoding='utf-8')


def plain(value: object) -> str:
  """A value as text in which no character has a meaning for Markdown or HTML."""
  return MARKDOWN.sub(r'\\\1', printable(str(value)))


def percent(value: float | None) -> str:
  """A fraction in per cent; '-' for None."""
  return '-' if value is None else f'{100 * value:.1f}'


def title(config: Mapping[str, PyTree], facts: Facts) -> str:
  """The name of the card: of the network and its stage."""
  return f'{config["model"]["name"]}, {facts.stage}'


# Metadata.


def metadata(
  config: Mapping[str, PyTree], facts: Facts, contents: Contents, licence: str
) -> dict[str, PyTree]:
  """The front matter, as https://huggingface.co/docs/hub/model-cards has it."""
  tags = ['semantic-segmentation', 'domain-adaptation', 'jax', 'flax']
  tags += ['pytorch'] * contents.pytorch + ['onnx'] * (contents.onnx is not None)
  found: dict[str, PyTree] = {
    'license': licence,
    'library_name': config['library_name'],
    'pipeline_tag': TASK,
    'tags': [*tags, config['model']['name']],
  }
  if facts.sets:
    found['datasets'] = [name.lower().replace(' ', '-') for name in facts.sets]
  if facts.measured:
    found['metrics'] = list(METRICS.values())
    name = re.sub(r'[^\w.@-]+', '-', f'{config["model"]["name"]}-{facts.stage}')
    results = [result(each) for each in facts.measured]
    found['model-index'] = [{'name': name, 'results': [each for each in results if each]}]
  return found


def result(measured: Measured) -> dict[str, PyTree]:
  """One entry of model-index: a data set under a protocol, in per cent; {} without any number."""
  scores, protocol = measured.content['scores'], measured.content['protocol']
  how = tables.describe(protocol) + ', chosen with target labels (oracle)' * measured.oracle
  numbers = {('mean_iou', f'mIoU {name}'): x for name, x in scores['mean_iou_subsets'].items()}
  numbers[('accuracy', 'pixel accuracy')] = scores['pixel_accuracy']
  metrics = [
    {'type': kind, 'value': round(100 * value, 2), 'name': f'{name}, per cent; {how}'}
    for (kind, name), value in numbers.items()
    if value is not None
  ]
  if not metrics:
    return {}
  key = measured.folder.name
  return {
    'task': {'type': TASK, 'name': 'Semantic segmentation'},
    'dataset': {'type': key, 'name': f'{key}, protocol {measured.folder.parents[1].name}'},
    'metrics': metrics,
  }


# The page.


def groups(measured: Sequence[Measured]) -> list[dict[str, PyTree]]:
  """What the tables of results show, one for each measurement."""
  return [
    {
      'title': f'{each.folder.name}, protocol {each.folder.parents[1].name}',
      'how': tables.describe(each.content['protocol']),
      'means': each.content['scores']['mean_iou_subsets'],
      'pixel_accuracy': each.content['scores']['pixel_accuracy'],
      'iou': each.content['scores']['iou'],
      'protocol': each.content['protocol'],
      'oracle': each.oracle,
      'file': f'passports/{each.name}.json',
    }
    for each in measured
  ]


def conditions(facts: Facts) -> dict[str, PyTree]:
  """The conditions under which the network was trained that are worth a line."""
  made_under = list(facts.stages.values())[-1]['made_under']
  return {key: made_under[key] for key in SHOWN if made_under.get(key) not in (None, '', 'absent')}
