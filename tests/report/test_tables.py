"""Tables and pictures say what they should, and files are whole."""

import json

import numpy as np
import pytest
from PIL import Image

from data_pipelines import atomic
from data_pipelines.errors import BadInput
from diga_jax.inference import evaluate
from diga_jax.metrics import Means
from diga_jax.report import pictures, tables
from diga_jax.storage import stage_folder

PALETTE = np.array([(128, 64, 128), (70, 70, 70), (0, 0, 142)], np.uint8)
NAMES = ('road', 'building', 'car')


def _row(name, *, scales=(1.0, 0.5), hits=(8, 6, 0), size=(128, 256), **facts):
  confusion = np.diag(hits) + np.array([[0, 1, 0], [2, 0, 0], [0, 0, 0]])
  protocol = {
    'data': 'scenes',
    'split': 'val',
    'scales': list(scales),
    'fusion': 'max',
    'flip': False,
    'image_size': list(size),
    'label_size': list(size),
    'class_set': '3',
    'network': 'student',
    'step': 250,
    'seed': 0,
    'chosen_by': 'last',
    **facts,
  }
  means = Means({'3': (0, 1, 2), '2': (0, 1)})
  return {
    'name': name,
    **evaluate.summarise(confusion, names=NAMES, means=means, images=5, protocol=protocol),
  }


def test_rows_of_different_protocols_never_share_a_column():
  rows = [_row('source-only'), _row('warm-up'), _row('source-only', scales=(1.0,))]
  assert [len(members) for _, members in tables.groups(rows)] == [2, 1]
  text = tables.table(rows, width=120)
  assert text.count('pixel acc.') == 2
  assert 'max of 1x and 0.5x' in text and '1x, no flip' in text
  first, second = text.split('pixel acc.')[1:]
  assert first.count('source-only') == 1 and first.count('warm-up') == 1
  assert second.count('source-only') == 1


@pytest.mark.parametrize(
  'change',
  [{'size': (64, 128)}, {'split': 'test'}, {'class_set': '19'}, {'flip': True}, {'data': 'camvid'}],
)
def test_every_part_of_the_measurement_separates(change):
  assert len(tables.groups([_row('a'), _row('a', **change)])) == 2


@pytest.mark.parametrize('change', [{'step': 9}, {'seed': 2}, {'chosen_by': 'oracle'}])
def test_what_tells_rows_apart_does_not_separate(change):
  assert len(tables.groups([_row('a'), _row('a', **change)])) == 1


def test_table_holds_the_numbers_and_says_who_chose():
  text = tables.table([_row('warm-up', step=1234, chosen_by='oracle')], width=200)
  ious = 8 / 11, 6 / 9
  assert f'{100 * np.mean(ious):.1f}' in text
  assert f'{100 * 14 / 17:.1f}' in text
  assert '1234' in text and 'oracle*' in text and tables.ORACLE_NOTE in text


@pytest.mark.parametrize('width', [80, 160])
def test_tables_fit_their_width(width):
  rows = [_row(f'self-training round {i}', seed=i, chosen_by='agreement') for i in range(7)]
  for text in (tables.table(rows, width=width), tables.per_class(rows, width=width)):
    assert max(map(len, text.splitlines())) <= width
    assert '…' not in text
    assert all(text.count(row['name']) == 1 for row in rows)


def test_the_change_is_against_the_first_row():
  rows = [_row('first', hits=(8, 6, 0)), _row('second', hits=(8, 8, 0)), _row('third')]
  rows[2]['mean_iou_subsets'] = {name: None for name in rows[2]['mean_iou_subsets']}
  subset = next(iter(rows[0]['mean_iou_subsets']))
  step = 100 * (rows[1]['mean_iou_subsets'][subset] - rows[0]['mean_iou_subsets'][subset])
  cells = {line.split()[0]: line.split() for line in tables.table(rows, 200).splitlines() if line}
  position = cells['network'].index('change') - len(rows[0]['mean_iou_subsets'])  # 'mIoU 2'
  assert [cells[name][position] for name in ('first', 'second', 'third')] == [
    '-',
    f'{step:+.1f}',
    '-',
  ]
  assert 'change' not in tables.table(rows[:1], 200)
  other = _row('other', scales=(1.0,))  # of another protocol: no change against it
  assert 'change' not in tables.table([rows[0], other], 200)


def test_the_change_is_of_the_mean_that_is_asked_for():
  rows = [_row('first'), _row('second')]
  for row, values in zip(rows, ((0.2, 0.3), (0.1, 0.5)), strict=True):
    row['mean_iou_subsets'] = dict(zip(('19', '16'), values, strict=True))
  assert '-10.0' in tables.table(rows, 200) and 'change of 19' in tables.table(rows, 200)
  text = tables.table(rows, 200, mean='16')
  assert '+20.0' in text and 'change of 16' in text and '-10.0' not in text


def test_what_all_rows_share_is_in_the_title():
  lines = tables.table([_row('a'), _row('b')], width=120).splitlines()
  assert 'seed 0, weights student' in lines[0] and 'seed' not in lines[1]
  lines = tables.table([_row('a'), _row('b', seed=1)], width=120).splitlines()
  assert 'seed' not in lines[0] and 'seed' in lines[1]


def test_names_are_not_taken_for_markup():
  assert '[red]net[/red]' in tables.table([_row('[red]net[/red]')], width=120)


def test_per_class_marks_the_class_that_is_nowhere():
  text = tables.per_class([_row('warm-up')], width=80)
  lines = {line.split()[0]: line.split()[-1] for line in text.splitlines() if line.strip()}
  assert lines['road'] == f'{800 / 11:.1f}' and lines['car'] == '-'


def test_metrics_are_json_without_nan_and_written_whole(tmp_path):
  path = tmp_path / 'deep' / 'metrics.json'
  stage_folder.write_metrics(path, _row('a'))
  assert json.loads(path.read_text())['iou']['car'] is None
  before = path.read_text()
  with pytest.raises(ValueError):
    stage_folder.write_metrics(path, {'x': float('nan')})
  assert path.read_text() == before and [p.name for p in path.parent.iterdir()] == [path.name]


def _labels(shape=(8, 12)):
  labels = np.zeros(shape, np.uint8)
  labels[:, shape[1] // 2 :] = 1
  labels[0] = 255
  return labels


def test_coloured_is_black_where_ignored():
  pixels = pictures.colour_labels(_labels(), PALETTE)
  assert (pixels[0] == 0).all() and (pixels[1, 0] == PALETTE[0]).all()
  assert (pixels[1, -1] == PALETTE[1]).all()


def test_overlay_is_between_image_and_colour():
  image = np.full((8, 12, 3), 200, np.uint8)
  assert (pictures.overlay(image, _labels(), PALETTE, share=0) == image).all()
  assert (
    pictures.overlay(image, _labels(), PALETTE, share=1)
    == pictures.colour_labels(_labels(), PALETTE)
  ).all()


@pytest.mark.parametrize('shape', [(128, 256), (1024, 2048), (64, 48)])
def test_panels_have_a_readable_size(shape):
  labels = _labels(shape)
  picture = pictures.comparison_panels(
    np.zeros((*shape, 3), np.uint8),
    truth=labels,
    predictions={'prediction': labels},
    palette=PALETTE,
    names=NAMES,
  )
  width = (picture.width - 2 * pictures.MARGIN - 2 * pictures.GAP) // 3
  assert pictures.NARROW <= width <= pictures.WIDE


def test_class_names_are_drawn_in_letters_that_the_font_has():
  def drawn(*names: str) -> Image.Image:
    image = np.zeros((128, 256, 3), np.uint8)
    labels = _labels((128, 256))
    return pictures.comparison_panels(image, truth=labels, palette=PALETTE, names=names)

  def same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and (np.asarray(one) == np.asarray(other)).all()

  # Pillow's own font has no Greek and no Cyrillic letters, and draws the same box for each.
  assert not same(drawn('дорога', 'небо'), drawn('дорожа', 'небе'))
  assert not same(drawn('Straße', 'οδός'), drawn('Strase', 'οδός'))
  # No letters for these: the numbers of the classes, but the picture keeps their names.
  assert same(drawn('道路', 'sky'), drawn('0', 'sky'))
  assert same(drawn('road', 'a\nb'), drawn('road', '1'))
  legend = json.loads(drawn('道路', 'sky').info[pictures.LAYOUT])['legend']
  assert [name for name, _ in legend[:2]] == ['道路', 'sky']


def test_pictures_under_each_other_have_one_legend(tmp_path):
  def taken_apart(name: str) -> pictures.Panels:
    picture = pictures.comparison_panels(
      np.zeros((128, 256, 3), np.uint8),
      truth=_labels((128, 256)),
      palette=PALETTE,
      names=(name, 'sky', 'car'),
    )
    atomic.write_png(tmp_path / 'a.png', picture)
    found = pictures.read_panels(tmp_path / 'a.png')
    assert found is not None
    return found

  stacked, other = (pictures.stack_panels([taken_apart(n)] * 2) for n in ('道路', '0'))
  assert stacked.height > 2 * 128 and (np.asarray(stacked) == np.asarray(other)).all()


def test_panels_hatch_what_consensus_rejects():
  labels = _labels((128, 256))
  kept = np.ones(labels.shape, bool)
  kept[64:] = False
  picture = pictures.comparison_panels(
    np.zeros((*labels.shape, 3), np.uint8), pseudo=labels, consensus=kept, palette=PALETTE
  )
  pixels = np.asarray(picture)
  top, left = pictures.MARGIN + pictures.LINE, pictures.MARGIN + 2 * (256 + pictures.GAP)
  panel = pixels[top : top + 128, left : left + 256]
  assert (panel[1:64, :128] == PALETTE[0]).all() and (panel[0] == 0).all()
  greys = {tuple(v) for v in panel[64:].reshape(-1, 3)}
  assert greys == {pictures.REJECTED, pictures.HATCH}


def test_a_consensus_needs_pseudo_labels():
  with pytest.raises(ValueError, match='pseudo-labels'):
    pictures.comparison_panels(
      np.zeros((4, 4, 3), np.uint8), consensus=np.ones((4, 4), bool), palette=PALETTE
    )


@pytest.mark.parametrize('shape', [(128, 256), (100, 700), (64, 48)])
def test_pictures_are_taken_apart_as_they_were_put_together(tmp_path, shape):
  rng = np.random.default_rng(0)
  image, labels = rng.integers(0, 256, (*shape, 3), np.uint8), _labels(shape)
  drawn = {'truth': labels, 'predictions': {'prediction': labels[::-1]}, 'pseudo': labels}
  picture = pictures.comparison_panels(
    image, consensus=labels == 0, palette=PALETTE, names=NAMES, **drawn
  )
  atomic.write_png(tmp_path / 'a.png', picture)
  found = pictures.read_panels(tmp_path / 'a.png')
  share = (labels == 0)[labels != 255].mean()
  assert list(found.images) == [
    'image', 'truth', 'prediction', 'pseudo-label', f'consensus: {100 * share:.0f}% kept',
  ]  # fmt: skip
  size = pictures._panel_size(*shape)
  assert {panel.size for panel in found.images.values()} == {size[::-1]}
  wanted = pictures._fit(labels, size, smooth=False)
  panel = np.asarray(found.images['truth'])
  assert (panel == pictures.colour_labels(wanted, PALETTE)).all()
  assert found.legend[NAMES[0]] == tuple(PALETTE[0]) and 'rejected' in found.legend


def test_a_picture_without_a_layout_is_left_whole_and_no_picture_is_told(tmp_path):
  Image.new('RGB', (8, 8)).save(tmp_path / 'old.png')
  assert pictures.read_panels(tmp_path / 'old.png') is None
  whole = (tmp_path / 'old.png').read_bytes()
  for content in (b'', b'no picture', whole[:20]):
    (tmp_path / 'bad.png').write_bytes(content)
    with pytest.raises(BadInput, match=r'bad\.png'):
      pictures.read_panels(tmp_path / 'bad.png')
  for layout in ('', '[]', '{"size": 3}', '{"size": [9, 9], "captions": [1]}'):
    picture = Image.new('RGB', (8, 8))
    picture.info[pictures.LAYOUT] = layout
    atomic.write_png(tmp_path / 'odd.png', picture)
    with pytest.raises(BadInput, match=r'odd\.png'):
      pictures.read_panels(tmp_path / 'odd.png')
