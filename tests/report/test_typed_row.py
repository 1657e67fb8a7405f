"""Published rows typed in by hand: what they hold, and what is refused with one line."""

import json

import pytest

from data_pipelines.errors import BadInput
from diga_jax.report import typed_row

ROW = """
name = 'DiGA'
source = 'arXiv 2304.02222, table 1'
mean_iou = 62.7

[mean_iou_subsets]
'16' = 60.2

[protocol]
class_set = 'cityscapes19'
images = 500
scales = [1.0, 0.5]
label_size = [1024, 2048]
flip = false
chosen_by = 'oracle'

[iou]
road = 95.6
'traffic light' = 0.4
"""


@pytest.fixture
def write(tmp_path):
  def write(text: str, name: str = 'row.toml'):
    (tmp_path / name).write_text(text)
    return tmp_path / name

  return write


def test_a_row_becomes_fractions(write):
  found = typed_row.read(write(ROW))
  assert found['name'] == 'DiGA' and found['source'].startswith('arXiv')
  assert found['scores']['mean_iou'] == pytest.approx(0.627)
  assert found['scores']['mean_iou_subsets'] == {'16': pytest.approx(0.602)}
  assert found['scores']['iou'] == {
    'road': pytest.approx(0.956),
    'traffic light': pytest.approx(0.004),
  }
  assert found['protocol']['label_size'] == [1024, 2048]


def test_json_says_the_same(write):
  same = typed_row.parse(write(ROW))
  assert typed_row.read(write(json.dumps(same), 'row.json')) == typed_row.read(write(ROW))


WRONG = {
  "name = 'DiGA'\n": ('', 'has no name'),
  "source = 'arXiv 2304.02222, table 1'\n": ('', 'has no source'),
  "source = 'arXiv": ("source = ' ' #", "source is ' ': it may be a name"),
  'mean_iou = 62.7': ('mean_iuo = 62.7', "mean_iuo is not known: is it 'mean_iou'"),
  'mean_iou = 62.7 ': (
    'mean_iou = 162.7',
    r'mean_iou is 162.7: it may be a number between 0 and 100',
  ),
  'mean_iou = 62.7  ': ('mean_iou = nan', 'mean_iou is nan'),
  'mean_iou = 62.7   ': ('mean_iou = true', 'mean_iou is True'),
  'mean_iou = 62.7    ': ('mean_iou = 1\nmean_iou = 2', 'is no TOML file: Cannot overwrite'),
  'road = 95.6': ("road = '95.6'", "iou.road is '95.6'"),
  'road = 95.6 ': ('raod = 95.6', "iou.raod is not known: is it 'road'"),
  'road = 95.6  ': ('road = -1', 'iou.road is -1'),
  'images = 500': ('images = 0', 'protocol.images is 0: it may be a whole number'),
  'images = 500 ': ('image = 500', "protocol.image is not known: is it 'image"),
  'scales = [1.0, 0.5]': ('scales = []', r'protocol.scales is \[\]'),
  'scales = [1.0, 0.5] ': ('scales = 1.0', 'protocol.scales is 1.0'),
  'flip = false': ("flip = 'no'", "protocol.flip is 'no': it may be True, False"),
  "chosen_by = 'oracle'": ("chosen_by = 'best'", "chosen_by is 'best': it may be last, oracle"),
  '[protocol]': ('[[protocol]]', 'protocol is .*: it may be a table'),
}


@pytest.mark.parametrize('part', WRONG)
def test_a_wrong_row_is_one_line(write, part):
  now, words = WRONG[part]
  path = write(ROW.replace(part.rstrip(' '), now))
  with pytest.raises(BadInput, match=words) as error:
    typed_row.read(path)
  assert str(error.value).startswith(str(path)) and '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('name', 'text', 'words'),
  [
    ('row.json', '{"name": "a", "name": "b"}', "'name' stands there twice"),
    ('row.json', '[1, 2]', 'holds no table'),
    ('row.json', '{', 'is no JSON file'),
    ('row.json', '[' * 100_000, 'is no JSON file'),
    ('row.toml', 'name', 'is no TOML file'),
    ('row.toml', '', 'has no name'),
    ('row.csv', 'a,b', 'is no .toml or .json file'),
    ('row.toml', '#' * (2**20 + 1), 'has more than'),
    ('row.toml', "name = 'a'\nsource = 'b'", 'has no number'),
  ],
)
def test_what_is_no_row_is_one_line(write, name, text, words):
  with pytest.raises(BadInput, match=words):
    typed_row.read(write(text, name))


def test_bytes_and_folders_are_no_rows(tmp_path):
  (tmp_path / 'row.toml').write_bytes(b'\xff\xfe')
  with pytest.raises(BadInput, match='is no TOML file'):
    typed_row.read(tmp_path / 'row.toml')
  with pytest.raises(BadInput, match='cannot be read'):
    typed_row.read(tmp_path / 'absent.toml')


def test_fractions_are_refused(write):
  text = "name = 'a'\nsource = 'b'\nmean_iou = 0.627"
  with pytest.raises(BadInput, match=r'largest number is 0\.627: give numbers in per cent'):
    typed_row.read(write(text))


@pytest.mark.parametrize(('mean', 'odd'), [(50.0, False), (50.1, False), (52.0, True)])
def test_a_mean_that_is_not_that_of_its_classes_is_told(write, mean, odd):
  text = f"name = 'a'\nsource = 'b'\nmean_iou = {mean}\n[iou]\nx = 40.0\ny = 60.0"
  found = typed_row.disagreement(typed_row.read(write(text)))
  assert bool(found) == odd and ('mistyped' in found) == odd
  assert not typed_row.disagreement(typed_row.read(write(ROW)))  # not all of its classes
