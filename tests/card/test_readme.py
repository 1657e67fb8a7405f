"""README.md of a card: texts with a meaning in Markdown or YAML, and numbers that are missing."""

import pathlib
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from diga_jax.card import readme
from diga_jax.card.facts import Facts, Measured

CONFIG = {
  'library_name': 'diga_jax',
  'model': {'name': 'deeplab_resnet101'},
  'classes': [{'id': 0, 'name': 'road', 'colour': [1, 2, 3]}],
  'normalization': {'mean': [1.0, 2.0, 3.0], 'divided_by': 128.0},
  'inference': {'scales': [1.0], 'flip': True},
  'files': {'model.safetensors': 'ab'},
}
MADE = {
  'step': 5, 'stage': 'cd', 'inputs': {}, 'data_sha256': {'source': 'ef'}, 'warnings': [],
  'made_under': {'jax': '0.10.2', 'commit': ''},
}  # fmt: skip
NOTHING = readme.Contents(pytorch=False, picture=None, onnx=None)


def facts(**changes) -> Facts:
  known = {
    'stage': 'warmup', 'network': 'student', 'chosen_by': 'last', 'seed': 0,
    'stages': {'warmup': MADE}, 'measured': [], 'others': 0, 'sets': [], 'starts': {},
  }  # fmt: skip
  return Facts(**{**known, **changes})


def measured(value: float | None, chosen_by: str = 'last') -> Measured:
  scores = {'mean_iou_subsets': {'1': value}, 'pixel_accuracy': value, 'iou': {'road': value}}
  protocol = {'network': 'student', 'chosen_by': chosen_by, 'data': 'val', 'scales': [1.0]}
  place = pathlib.Path('run/evaluation/published/warmup/val')
  return Measured(place, {'scores': scores, 'protocol': protocol | {'fusion': 'max', 'flip': True}})


def split(text: str) -> tuple[dict, str]:
  _, head, page = text.split('---\n', 2)
  return yaml.safe_load(head), page


@given(st.text(st.characters(exclude_categories=['Cs']), max_size=30))
def test_texts_stay_within_their_cell(text):
  config = {**CONFIG, 'classes': [{'id': 0, 'name': text, 'colour': [1, 2, 3]}]}
  _, page = split(readme.write(config, facts(), NOTHING, 'mit'))
  (line,) = [line for line in page.splitlines() if line.endswith('| 1, 2, 3 |')]
  assert len(re.findall(r'(?<!\\)(?:\\\\)*\|', line)) == 4
  assert not re.search(r'(?<!\\)(?:\\\\)*[<>`*]', line)


@given(st.from_regex('[a-z0-9][a-z0-9.+-]{0,20}', fullmatch=True), st.text(max_size=20))
def test_the_metadata_are_texts_again(licence, stage):
  head, _ = split(readme.write(CONFIG, facts(stage=stage or 'a'), NOTHING, licence))
  assert head['license'] == licence  # 'no', '1.0' and 'null' too


def test_a_number_that_is_missing_is_no_result():
  head, page = split(readme.write(CONFIG, facts(measured=[measured(None)]), NOTHING, 'mit'))
  assert head['model-index'] == [{'name': 'deeplab_resnet101-warmup', 'results': []}]
  assert '| - | - | student | last |' in page


def test_a_result_that_labels_chose_is_marked_wherever_it_stands():
  rows = [measured(0.5), measured(0.25, 'oracle')]
  head, page = split(readme.write(CONFIG, facts(measured=rows), NOTHING, 'mit'))
  names = [m['name'] for each in head['model-index'][0]['results'] for m in each['metrics']]
  assert ['oracle' in name for name in names] == [False, False, True, True]
  assert 'oracle: with labels of the target' in page and '**Oracle: labels' in page


@pytest.mark.parametrize(
  'licence, words', [('unknown', 'No licence has been chosen'), ('mit', '`mit`')]
)
def test_licences_of_what_it_was_made_from_are_remarked(licence, words):
  known = facts(sets=['GTA5', 'Mapillary Vistas'], starts={'resnet101.pth': 'ab'})
  head, page = split(readme.write(CONFIG, known, NOTHING, licence))
  assert head['datasets'] == ['gta5', 'mapillary-vistas'] and words in page
  assert 'trained on ImageNet' in page and 'GTA5, Mapillary Vistas' in page
  _, page = split(readme.write(CONFIG, facts(), NOTHING, licence))
  assert 'ImageNet' not in page and 'Neither files of weights' in page
