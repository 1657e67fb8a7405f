"""What label files hold, whose classes these are, and the tables that read them."""

import numpy as np
import pytest
from PIL import Image

from data_pipelines import label_tables, published_sets
from data_pipelines.errors import BadInput
from data_pipelines.own_data import classes, label_kinds
from data_pipelines.own_data.label_kinds import Labels
from tests.support import data_files

SIZE = {'source': (100, 200), 'target_test': (100, 200)}


def held(label_format: str, *values, palette=None) -> Labels:
  return Labels(label_format, tuple(sorted(values)), palette or {})


def found(labels: Labels, path: str = 'a.png', size=(100, 200), names=()) -> classes.Classes:
  return classes.find_classes({'source': labels}, {'source': path}, {'source': size}, names)


GTA5 = {raw: colour for colour, raw in label_tables.COLOURS['gta5'].items()}
WHOLE = set(label_tables.TABLES['cityscapes'])
PUBLISHED = [
  (held('index', *range(34)), 'a_labelIds.png', 'cityscapes', (1024, 2048)),
  (held('index', *range(19), 255), 'a_labelTrainIds.png', 'train_ids', (1024, 2048)),
  (held('index', *range(35), palette=GTA5), 'a.png', 'gta5', (1052, 1914)),
  (held('colour', *label_tables.COLOURS['cityscapes']), 'a.png', 'cityscapes', (1024, 2048)),
  (held('colour', *label_tables.COLOURS['camvid32']), 'a.png', 'camvid32', (720, 960)),
  (held('index', *range(12)), 'x/0001TP_000001.png', 'camvid11', (360, 480)),
  (held('rgb16', *range(23)), 'a.png', 'synthia16_packed', (760, 1280)),
]


@pytest.mark.parametrize('labels, path, table, size', PUBLISHED, ids=lambda x: str(x)[:20])
def test_published_labels_are_known(labels, path, table, size):
  assert label_kinds.named_table(labels, path) == table
  made = found(labels, path, size)
  assert made.tables == {'source': table} and made.known == label_kinds.CLASSES_OF[table]
  assert made.count == len(made.names) == len(label_tables.NAMES[made.known]) and not made.kept


def test_images_of_other_sizes_are_of_another_set_with_the_same_classes():
  """What is known of the published set is not expected of it."""
  made = found(held('index', *range(34)), 'a_labelIds.png')
  expected = label_tables.lut('cityscapes')
  assert made.kept == tuple(range(19)) and not made.absent
  for raw, train in dict(made.tables['source']).items():
    assert train == expected[raw]
  assert set(dict(made.tables['source'])) == {*range(34), 255}


def test_classes_that_do_not_occur_are_left_out():
  made = found(held('index', 7, 8, 24, 0), 'a_labelIds.png', (1024, 2048))
  assert made.names == ('road', 'sidewalk', 'person') and made.kept == (0, 1, 11)
  table = dict(made.tables['source'])
  assert [table[raw] for raw in (7, 8, 24, 0, 26)] == [0, 1, 2, 255, 255]
  assert 'car' in made.absent and len(made.absent) == 16
  assert made.colours[2] == (220, 20, 60)


@pytest.mark.parametrize(
  'labels, table, count',
  [
    (held('index', 0, 1, 2), 'identity', 3),
    (held('index', 0, 1, 2, 255), 'identity', 3),
    (held('index', 0, 255), 'masks', 2),
    (held('index', 0, 1), 'identity', 2),
    (held('index', 1, 2), ((1, 0), (2, 1)), 2),
    (held('index', 0, 128, 255), ((0, 0), (128, 1), (255, 255)), 2),
    (held('rgba', 3, 4), ((3, 0), (4, 1)), 2),
    (held('colour', (9, 9, 9), (1, 2, 3)), (((1, 2, 3), 0), ((9, 9, 9), 1)), 2),
  ],
)
def test_every_other_id_or_colour_is_a_class(labels, table, count):
  made = found(labels)
  assert made.tables['source'] == table and made.count == count and not made.known
  lut = [(p, i) for i, (_, p) in enumerate(table)] if labels.label_format == 'colour' else table
  label_tables.lut(lut if labels.label_format != 'colour' else 'identity', count)


def test_some_classes_of_a_table():
  table = dict(published_sets.some_classes('cityscapes', (0, 13)))
  assert table[7] == 0 and table[26] == 1 and table[8] == 255 and 34 not in table
  colours = dict(published_sets.some_classes('cityscapes', (0, 13), 'colour'))
  assert colours[128, 64, 128] == 0 and colours[0, 0, 142] == 1 and colours[0, 0, 0] == 255


def test_two_sets_have_the_classes_of_the_first():
  labels = {'source': held('index', 7, 8, 26), 'target_test': held('index', 0, 1, 13, 11)}
  paths = {'source': 'a_labelIds.png', 'target_test': 'b_labelTrainIds.png'}
  made = classes.find_classes(labels, paths, SIZE)
  assert made.names == ('road', 'sidewalk', 'car')
  assert dict(made.tables['source'])[26] == dict(made.tables['target_test'])[13] == 2
  assert dict(made.tables['target_test'])[11] == 255


@pytest.mark.parametrize(
  'source, target',
  [
    (held('index', 0, 1), held('index', 0, 1, 2)),
    (held('index', 0, 1), held('colour', (0, 0, 0))),
    (held('index', *range(19), 255), held('index', 5, 77)),
  ],
)
def test_sets_of_other_classes_are_refused(source, target):
  paths = {'source': 'a_labelTrainIds.png', 'target_test': 'b.png'}
  labels = {'source': source, 'target_test': target}
  with pytest.raises(BadInput, match=r'docs/own_data.md'):
    classes.find_classes(labels, paths, SIZE)


def test_ids_of_validation_images_alone_are_ignored():
  labels = {'source': held('index', 0, 1), 'source_val': held('index', 0, 1, 2)}
  made = classes.find_classes(labels, dict.fromkeys(labels, 'a.png'), dict.fromkeys(labels, (9, 9)))
  assert made.tables['source_val'] == ((0, 0), (1, 1), (2, 255)) and made.count == 2


def test_names_are_taken_and_counted():
  assert found(held('index', 3, 5), names=('a', 'b')).names == ('a', 'b')
  for names in (('a',), ('a', 'b', 'c'), ('a', 'a')):
    with pytest.raises(BadInput, match=r'--names: give 2 different names.*\(3, 5\)'):
      found(held('index', 3, 5), names=names)
  made = found(held('index', *range(5)), names=('cityscapes19',))
  assert made.names == ('road', 'sidewalk', 'building', 'wall', 'fence')
  with pytest.raises(BadInput, match=r'--names cityscapes19: .* hold 3, 40'):
    found(held('index', 3, 40), names=('cityscapes19',))


# Files.


@pytest.mark.parametrize(
  'pixels, colour, depth, label_format, values',
  [
    (np.array([[0, 3], [3, 7]]), 0, 4, 'index', {0, 3, 7}),
    (np.array([[0, 300 - 256], [3, 7]]), 0, 16, 'index', {0, 44, 3, 7}),
    (np.array([[[1, 2, 3], [4, 5, 6]]]), 2, 8, 'colour', {(1, 2, 3), (4, 5, 6)}),
    (np.array([[[1, 2, 3, 255], [4, 5, 6, 255]]]), 6, 8, 'colour', {(1, 2, 3), (4, 5, 6)}),
    (np.array([[[1, 2, 3], [4, 5, 6]]]), 2, 16, 'rgb16', {1, 4}),
  ],
)
def test_a_file_is_scanned(tmp_path, pixels, colour, depth, label_format, values):
  (tmp_path / 'a.png').write_bytes(data_files.png(pixels.astype(np.uint16), colour, depth))
  made = label_kinds.scan(str(tmp_path / 'a.png'))
  assert made.label_format == label_format and made.values == values


def test_ids_beside_noise_are_those_of_the_first_channel(tmp_path):
  pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 4), np.uint8)
  pixels[..., 0] %= 5
  Image.fromarray(pixels).save(tmp_path / 'a.png')
  assert label_kinds.scan(str(tmp_path / 'a.png'))[:2] == ('rgba', set(range(5)))


def test_pictures_instances_and_alpha_are_no_labels(tmp_path):
  rng, path = np.random.default_rng(0), str(tmp_path / 'a.png')
  Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(path)
  with pytest.raises(BadInput, match='more than 64 colours'):
    label_kinds.scan(path)
  Image.fromarray(rng.integers(0, 256, (40, 40), np.uint8)).save(path)
  with pytest.raises(BadInput, match='more than 100 ids'):
    label_kinds.together([path], [label_kinds.scan(path)])
  (tmp_path / 'a.png').write_bytes(data_files.png(np.array([[[1, 2, 3, 9]]]), 6))
  with pytest.raises(BadInput, match='alpha is 9'):
    label_kinds.scan(path)


def test_two_kinds_of_files_are_refused():
  scans = [label_kinds.Scan('index', frozenset({1}), {}), label_kinds.Scan('rgba', frozenset(), {})]
  with pytest.raises(BadInput, match=r"b.png: holds labels of the format 'rgba', a.png of 'index'"):
    label_kinds.together(['a.png', 'b.png'], scans)
