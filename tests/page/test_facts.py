"""How a run was made: the config, time and cost, the graph."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diga_jax.page import facts, working_directory
from diga_jax.page.working_directory import WorkingDirectory


def test_the_changed_fields_are_those_of_the_run(finished):
  found = {
    each.field: each for each in facts.changed_fields(working_directory.read(finished / 'c'))
  }
  assert found['stages.self_training_1.selector'] == (
    'stages.self_training_1.selector', "'none'", "'consensus'",
  )  # fmt: skip
  assert found['stages.warmup.steps'].value == '5'
  assert 'seed' not in found and 'log_every' in found
  # A set that configs/default.py lacks is compared with a set as such.
  assert found['data.sets.camera_test.kind'].default == "'folder'"
  assert 'data.sets.camera_test.shards' not in found
  assert not [field for field in found if field.startswith('stages.translator')]


def test_without_a_config_they_are_those_of_the_records(finished):
  run = working_directory.read(finished / 'c')
  run.config = {}
  found = {each.field for each in facts.changed_fields(run)}
  assert {'stages.self_training_1.selector', 'data.crop'} <= found
  assert not {'seed', 'stream'} & found


def test_values_are_written_as_on_the_command_line():
  assert [facts.show(x) for x in ((1,), [1, 2], 'a', True, ())] == [
    '(1,)', '(1, 2)', "'a'", 'True', '()',
  ]  # fmt: skip


@pytest.mark.parametrize(
  'hours, text',
  [(0, '0 s'), (0.01, '36 s'), (0.5, '30 min'), (1.0, '1 h 0 min'), (51.2, '2 d 3 h')],
)
def test_durations(hours, text):
  assert facts.duration(hours) == text


def test_the_cost_of_every_stage_and_of_the_evaluation(finished):
  rows = {row.name: row for row in facts.costs(working_directory.read(finished / 'a'))}
  assert rows['warmup'].steps == '5 of 5' and rows['warmup'].waiting == '20%'
  assert rows['warmup'].seconds_per_step == '0.50'
  assert rows['label_1'].steps == '' and rows['label_1'].hours
  assert rows['evaluation'].hours


def test_other_conditions_are_told(finished):
  run = working_directory.read(finished / 'a')
  assert facts.differing(run) == []
  other = {**run.starts[0], 'conditions': {**run.starts[0]['conditions'], 'jax': '0.0'}}
  run.starts.append({**other, 'stages': ['label_2']})
  (text,) = facts.differing(run)
  assert text.startswith('label_2, as against warmup: jax: ') and text.endswith('0.0 now')
  assert ' / 0.0' in facts.summary(run)['jax']


EDGES = st.sets(
  st.tuples(st.integers(0, 9), st.integers(1, 9)).map(lambda e: (e[0], e[0] + e[1])), max_size=20
)


@given(EDGES)
def test_arcs_that_cross_the_same_lines_run_apart(edges):
  lanes = facts.lanes_of(sorted(edges))
  assert lanes.keys() == edges
  for (a, b), lane in lanes.items():
    assert (lane == 0) == (b - a == 1)
    for (c, d), other in lanes.items():
      if (a, b) != (c, d) and lane == other > 0:
        assert b <= c or d <= a


def test_the_graph_has_an_arc_for_every_input(finished):
  stages = working_directory.read(finished / 'a').stages
  arcs = {(arc.first, arc.second) for arc in facts.graph(stages).arcs}
  assert arcs == {(other, stage.name) for stage in stages for other in stage.reads}
  assert facts.graph([]).arcs == []
  assert facts.summary(WorkingDirectory(stages[0].folder)) == {'stages': '0 of 0 complete'}
