"""Records: every changed bit is noticed, and what is no record is one line."""

import json
import os

import pytest

from data_pipelines import records
from data_pipelines.errors import BadInput

CONTENT = {'a': [1, 2.5, None, True], 'ü': {'c': 1e-300}, 'n': float('inf')}


def test_a_record_reads_as_it_was_written(tmp_path):
  records.write(tmp_path / 'a.json', CONTENT)
  assert records.read(tmp_path / 'a.json', 'again') == CONTENT
  assert list(json.loads((tmp_path / 'a.json').read_text()))[-1] == records.DIGEST


def test_every_flipped_bit_is_noticed(tmp_path):
  path = tmp_path / 'a.json'
  records.write(path, CONTENT)
  data = path.read_bytes()
  for bit in range(8 * len(data)):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)
    with pytest.raises(BadInput, match=r'a\.json: .*; make it again') as refusal:
      records.read(path, 'make it again')
    assert '\n' not in str(refusal.value)


@pytest.mark.parametrize(
  'text',
  [
    '',
    '[]',
    '{}',
    'null',
    '3',
    '"record_sha256"',
    '["record_sha256"]',
    '{"record_sha256": []}',
    '[' * 100_000,
  ],
)
def test_other_json_is_no_record(tmp_path, text):
  (tmp_path / 'a.json').write_text(text)
  with pytest.raises(BadInput, match=r'a\.json'):
    records.read(tmp_path / 'a.json', 'make it again')


def test_what_cannot_be_read_is_no_record(tmp_path):
  (tmp_path / 'a.json').write_bytes(b'\xff\xfe{}')
  os.mkfifo(tmp_path / 'pipe')  # which must not be waited for
  for path in (tmp_path, tmp_path / 'a.json', tmp_path / 'absent', tmp_path / 'pipe'):
    with pytest.raises(BadInput, match=str(path)):
      records.read(path, 'make it again')


def test_a_record_without_a_digest_may_be_of_an_earlier_version(tmp_path):
  (tmp_path / 'a.json').write_text(json.dumps(CONTENT))
  with pytest.raises(BadInput, match='earlier version'):
    records.read(tmp_path / 'a.json', 'make it again')


def test_a_sound_record_of_something_else_is_refused(tmp_path):
  records.write(tmp_path / 'a.json', CONTENT)
  records.read(tmp_path / 'a.json', 'make it again', *CONTENT)
  with pytest.raises(BadInput, match=r'a\.json: is the record of something else: it has no shards'):
    records.read(tmp_path / 'a.json', 'make it again', 'shards')
