"""The cells of a study: who makes a stage that several have in common, and who waits for whom."""

import dataclasses
import threading
import time

import pytest

from data_pipelines.errors import BadInput
from diga_jax.__main__ import main
from diga_jax.config import read_config
from diga_jax.recipe import cells, variants
from diga_jax.storage import stage_folder
from diga_jax.storage.lease import Leases
from tests.support.quick_stages import without_training

FILE = 'tests/configs/tiny.py'
RECIPE = "--config.recipe=('warmup','label_1','self_training_1')"
VARY = 'stages.self_training_1.selector=none,consensus'
FIRST, SECOND = 'selector=none', 'selector=consensus'


@pytest.fixture
def study(tmp_path) -> cells.Study:
  """Two variants with two seeds, whose first two stages are the same."""
  given = (RECIPE, '--config.translator.kind=none')
  config = read_config([f'--config={FILE}', *given])
  found = cells.study(tmp_path, variants.variants(FILE, given, config, [VARY]), [0, 1])
  both, twins = (FIRST, SECOND), {}
  for variant in both:
    twins |= {(variant, 'warmup'): both, (variant, 'label_1'): both}
    twins[variant, 'self_training_1'] = (variant,)
  return dataclasses.replace(found, twins=twins)


def put(cell: cells.Cell, name: str, **record) -> None:
  """A folder that is complete, or begun."""
  record = record if name.endswith('.partial') else {'result': {}, **record}
  stage_folder.write_record(cell.run.workdir / name, {'identity': {}, **record})


def test_the_first_variant_makes_what_is_common_and_the_others_wait(study):
  first, second = study.cells[FIRST, 0], study.cells[SECOND, 0]
  assert cells.next_action(study, first) == ('make', 'warmup')
  assert cells.next_action(study, second) == ('wait', 'warmup')
  put(first, 'warmup')
  assert cells.next_action(study, second) == ('link', 'warmup')
  assert cells.next_action(study, study.cells[SECOND, 1]) == ('wait', 'warmup')


def test_what_is_begun_goes_on_where_it_is(study):
  first, second = study.cells[FIRST, 0], study.cells[SECOND, 0]
  put(second, 'warmup.partial')
  assert cells.next_action(study, second) == ('make', 'warmup')
  assert cells.next_action(study, first) == ('wait', 'warmup')
  put(first, 'warmup')
  assert cells.next_action(study, second) == ('link', 'warmup')


def test_what_differs_waits_for_nobody(study):
  second = study.cells[SECOND, 0]
  for name in ('warmup', 'label_1'):
    put(second, name)
  assert cells.next_action(study, second) == ('make', 'self_training_1')


def test_rows_have_the_name_of_whose_they_are(study):
  found = {row.name: row for row in cells.table_rows(study)}
  assert list(found) == [
    'warmup', 'label_1', f'{FIRST}/self_training_1', f'{SECOND}/self_training_1'
  ]  # fmt: skip
  assert found['warmup'].others == (f'{FIRST}/warmup', f'{SECOND}/warmup')
  assert [row.name for row in cells.networks(study)] == ['warmup', *list(found)[2:]]


def test_seeds_are_those_of_any_variant(tmp_path):
  for place in ('a/seed_3/evaluation/p', 'b/seed_1/evaluation/p', 'seed_2/evaluation/p'):
    (tmp_path / place).mkdir(parents=True)
  assert cells.seeds_of(tmp_path, ['a', 'b'], 'p') == {1, 3}
  assert cells.seeds_of(tmp_path, [''], 'p') == {2}


def test_a_stage_of_other_settings_is_not_linked(study, tmp_path):
  first, second = study.cells[FIRST, 0], study.cells[SECOND, 0]
  put(first, 'warmup', identity={'seed': 1})
  with pytest.raises(BadInput, match='seed: 1 there, 0 now'):
    cells.link(first.run.workdir / 'warmup', second.run.workdir / 'warmup', {'seed': 0})
  assert not second.run.workdir.exists()


def test_a_cell_that_another_machine_holds_is_waited_for(monkeypatch, tmp_path, capfd):
  made = without_training(monkeypatch)
  monkeypatch.setattr(cells, 'PAUSE', 0.05)
  status: list[int] = []
  command = [
    'study', f'--config={FILE}', f'--workdir={tmp_path / "w"}', RECIPE, '--seeds', '0', '1',
    f'--config.data.cache={tmp_path / "cache"}', '--config.translator.kind=none', f'--vary={VARY}',
  ]  # fmt: skip
  thread = threading.Thread(target=lambda: status.append(main(command)))
  text, held = '', f'{FIRST},seed_0'
  with Leases(tmp_path / 'w' / 'study' / 'queue').take(held) as taken:
    assert taken
    thread.start()
    until = time.monotonic() + 300
    while 'waiting for' not in text and time.monotonic() < until and thread.is_alive():
      text += capfd.readouterr().out
      time.sleep(0.05)
    assert f'waiting for what other machines make: {held} (' in text
    assert {where.rpartition('/')[2] for where, _ in made} == {'seed_1'}
  thread.join(timeout=300)
  assert status == [0] and len(made) == len(set(made))
  assert {where.rpartition('/')[2] for where, _ in made} == {'seed_0', 'seed_1'}
