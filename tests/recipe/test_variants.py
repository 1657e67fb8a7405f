"""The variants of a study: which values a text holds, and what a folder is called."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.errors import BadInput
from diga_jax.config import read_config
from diga_jax.recipe import variants

FILE = 'tests/configs/tiny.py'
VALUES = st.text('ab1.,-', max_size=4)


def made(*vary: str, overrides: tuple[str, ...] = ()) -> list[variants.Variant]:
  config = read_config([f'--config={FILE}', *overrides])
  return variants.variants(FILE, overrides, config, vary)


@given(st.lists(st.one_of(VALUES.map(lambda text: text.replace(',', '')),
                          VALUES.map(lambda text: f'({text},[{text}])')), min_size=1))  # fmt: skip
def test_values_are_split_at_commas_outside_of_brackets(values):
  assert variants.split_values(','.join(values)) == values


@pytest.mark.parametrize('text', ['(', '(1,2', '((1,2)', '[1,(2]', 'a,{'])
def test_an_open_bracket_is_refused(text):
  with pytest.raises(BadInput, match='a bracket is not closed'):
    variants.split_values(text)


def test_names_of_fields_are_as_short_as_they_can_be():
  fields = ['stages.warmup.mixing', 'stages.self_training_1.mixing', 'data.crop', 'crop']
  assert list(variants.short_names(fields).values()) == [
    'warmup.mixing', 'self_training_1.mixing', 'data.crop', 'crop'
  ]  # fmt: skip


@pytest.mark.parametrize(
  ('value', 'wanted'),
  [
    ((192, 256), '192x256'), ((), 'empty'), ('', 'empty'), (1e-3, '0.001'), (-1, '-1'),
    ('a/../b c', 'a-..-b-c'), (True, 'True'), (('a', (1, 2)), 'ax1x2'),
  ],
)  # fmt: skip
def test_a_value_is_part_of_a_folders_name(value, wanted):
  assert variants.folder_name(value) == wanted


def test_without_variants_there_is_one_without_a_name():
  (only,) = made()
  assert only.name == '' and only.changes == {}


def test_named_variants_are_combined_with_the_grid():
  named = "--config.variants=(('a',()),('b',('stages.warmup.mixing=none',)))"
  found = made('stages.warmup.steps=7,8', overrides=(named, '--config.save_every=9'))
  assert [each.name for each in found] == ['a,steps=7', 'a,steps=8', 'b,steps=7', 'b,steps=8']
  assert found[3].changes == {'stages.warmup.mixing': 'none', 'stages.warmup.steps': 8}
  assert [each.config.stages.warmup.mixing for each in found] == ['class', 'class', 'none', 'none']
  assert {each.config.save_every for each in found} == {9}


def test_later_rounds_follow_a_varied_field():
  found = made('stages.label_1.selector=ias,cbst')
  assert [each.config.stages.label_2.selector for each in found] == ['ias', 'cbst']


def test_a_variant_is_checked_as_a_whole():
  with pytest.raises(BadInput, match=r'config\.stages\.\w+: '):
    made('stages.label_1.centroids_from=none,target')


def test_too_long_a_name_is_refused():
  named = f"--config.variants=(('{'a' * 60}',()),)"
  texts = [f'stages.{name}.steps=5,6' for name in ('warmup', 'self_training_1', 'self_training_2')]
  with pytest.raises(BadInput, match='is longer than 100 characters: write the variants in'):
    made(*texts, overrides=(named,))
