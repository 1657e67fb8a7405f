"""Runs of the published configs stay what they are: identities and first draws of every stage."""

import json

import pytest

from tests.support import frozen


@pytest.mark.parametrize('name', frozen.CONFIGS)
def test_identity_and_first_draws_are_those_of_before(name, monkeypatch):
  frozen.without_files(monkeypatch)
  wanted = json.loads((frozen.PLACE / f'{name}.json').read_text())
  found = json.loads(json.dumps(frozen.freeze(frozen.CONFIGS[name]())))
  assert list(found['stages']) == list(wanted['stages'])
  assert found['common'] == wanted['common']
  for stage, fields in wanted['stages'].items():
    assert found['stages'][stage] == fields, stage
