"""The names of topologies."""

import pytest

from diga_jax.__main__ import main
from diga_jax.plan.chips import CHIPS, GPUS, HOST, TPU_PASSES, parse_topology


def test_slices_and_layouts():
  assert parse_topology('v5e-8') == ('v5e', '2x4', 8)
  assert parse_topology('v5p:2x2x2') == ('v5p', '2x2x2', 8)
  assert parse_topology('cpu') == ('cpu', '1', 1) and parse_topology('cpu:4')[2] == 4
  assert parse_topology('h100') == ('h100', '1', 1) and parse_topology('a100:8')[2] == HOST


@pytest.mark.parametrize('topology', ['v9:2x2', 'gpu', 'v5e', 'v5e:2by2', 'cpu:x', 'h100:2x4'])
def test_a_topology_that_is_none_is_refused(topology, capsys):
  status = main(['plan', '--config=tests/configs/tiny.py', '--topology', topology])
  assert status == 2
  assert f'--topology={topology}: give cpu' in capsys.readouterr().err


def test_more_gpus_than_a_host_has_are_refused(capsys):
  assert main(['plan', '--config=tests/configs/tiny.py', '--topology', 'h100:16']) == 2
  assert 'one host, 1 to 8 of them' in capsys.readouterr().err


def test_every_chip_has_every_precision():
  assert all({*chip.passes} == {*TPU_PASSES} for chip in CHIPS.values())
  assert all(chip.passes['default'] < chip.passes['highest'] for chip in GPUS.values())
