"""Label files in exactly the encodings of the data sets, and their neighbours refused."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from data_pipelines import image_files, label_tables, pipeline, sets
from data_pipelines.errors import BadInput
from diga_jax.configs import datasets
from tests.support.data_files import png

SIZE = (24, 40)
RNG = np.random.default_rng(0)


def ids_of(values) -> np.ndarray:
  """A label of the given raw ids in blocks, all of them present."""
  values = np.array(list(values), np.uint8)
  blocks = np.resize(values, (SIZE[0] // 2) * (SIZE[1] // 2))
  return RNG.permutation(blocks).reshape(SIZE[0] // 2, -1).repeat(2, 0).repeat(2, 1)


def colours_of(table: str, ids: np.ndarray) -> np.ndarray:
  by_id = {raw: colour for colour, raw in label_tables.COLOURS[table].items()}
  return np.array([by_id[i] for i in ids.ravel()], np.uint8).reshape(*ids.shape, 3)


def palette(table: str) -> np.ndarray:
  """The palette of a set's files: the colour of each id, black where the set has none."""
  colours = np.zeros((256, 3), np.uint8)
  for colour, raw in label_tables.COLOURS[table].items():
    colours[raw] = colour
  return colours


def synthia_file(ids: np.ndarray) -> bytes:
  instances = RNG.integers(0, 60_000, ids.shape)
  return png(np.stack([ids, instances, np.zeros_like(ids)], -1), colour=2, depth=16)


def robotcar_file(ids: np.ndarray) -> bytes:
  other = RNG.integers(0, 255, ids.shape)
  return png(np.stack([ids, other, other, np.full_like(ids, 255)], -1), colour=6)


# What each set's files are: (settings, raw ids that occur, raw ids -> file).
SETS = {
  'cityscapes': (datasets.cityscapes('val'), range(34), lambda ids: png(ids, colour=0)),
  'cityscapes train ids': (
    datasets.cityscapes('val', train_ids=True), [*range(19), 255], lambda ids: png(ids, colour=0)
  ),
  'gta5': (datasets.gta5(), range(35), lambda ids: png(ids, 3, palette=palette('gta5'))),
  'synthia': (datasets.synthia(table='synthia'), range(23), synthia_file),
  'synthia16': (datasets.synthia(), range(23), synthia_file),
  'bdd100k': (datasets.bdd100k(), [*range(19), 255], lambda ids: png(ids, colour=0)),
  'mapillary': (
    datasets.mapillary(), range(66), lambda ids: png(ids, 3, palette=palette('mapillary'))
  ),
  'robotcar': (datasets.robotcar('val', list=''), range(18), robotcar_file),
  'camvid11': (datasets.camvid11('test'), range(12), lambda ids: png(ids, colour=0)),
  'camvid32': (
    datasets.camvid32(), range(32), lambda ids: png(colours_of('camvid32', ids), colour=2)
  ),
  'acdc': (datasets.acdc('fog', 'val'), [*range(19), 255], lambda ids: png(ids, colour=0)),
  'dark zurich': (datasets.dark_zurich(), [*range(19), 255], lambda ids: png(ids, colour=0)),
  'gta5 in colours': (
    datasets.gta5(label_format='colour'),
    set(label_tables.COLOURS['gta5'].values()),
    lambda ids: png(colours_of('gta5', ids), colour=2),
  ),
  'mapillary in colours': (
    datasets.mapillary(label_format='colour'),
    range(66),
    lambda ids: png(colours_of('mapillary', ids), colour=2),
  ),
}  # fmt: skip
CLASSES = {'robotcar': 9, 'camvid11': 11, 'camvid32': 11}


def write(root: pathlib.Path, settings, file: bytes) -> None:
  """One image and its label where the set's layout has them, in a folder where it has folders."""
  for part, name in (('images', 'img'), ('labels', 'lbl')):
    path = root / settings[part].replace('{id}', 'town/town_000001')
    path.parent.mkdir(parents=True, exist_ok=True)
    if name == 'img':
      Image.fromarray(RNG.integers(0, 256, (*SIZE, 3), np.uint8)).save(path)
    else:
      path.write_bytes(file)


def opened(root: pathlib.Path, settings, classes: int):
  return sets.open_set(
    settings.to_dict(), name='it', root=str(root), cache=str(root / 'cache'), classes=classes
  )


@pytest.mark.parametrize('name', SETS)
def test_labels_are_read_back_exactly(tmp_path, name):
  settings, occurring, encode = SETS[name]
  ids = ids_of(occurring)
  write(tmp_path, settings, encode(ids))
  folder = opened(tmp_path, settings, CLASSES.get(name, 19))
  image, label = folder.read(0)
  expected = label_tables.lut(settings.table)[ids]
  np.testing.assert_array_equal(label, expected)
  assert len(np.unique(label)) > 9 or 'robotcar' in name
  # The input pipeline reads them as well, with TensorFlow where that can.
  view = pipeline.View(folder, low_rows=0, full_rows=1, low_size=None, crop=SIZE)
  batch = next(pipeline.batches({'v': view}, seed=0))
  flipped = not (batch['v_image'][0] == image).all()
  np.testing.assert_array_equal(batch['v_label'][0][:, :: -1 if flipped else 1], expected)


NEIGHBOURS = {
  'grey': (lambda ids: png(ids, colour=0), {'index'}),
  'palette': (lambda ids: png(ids, 3, palette=palette('gta5')), {'index', 'colour'}),
  'colours': (lambda ids: png(colours_of('gta5', ids), colour=2), {'colour'}),
  '16-bit colours': (synthia_file, {'rgb16'}),
  'colours and alpha': (
    lambda ids: png(np.dstack([colours_of('gta5', ids), np.full_like(ids, 255)]), colour=6),
    {'rgba', 'colour'},
  ),
  '16-bit grey': (lambda ids: png(ids, colour=0, depth=16), {'index'}),
  'grey and alpha': (
    lambda ids: png(np.dstack([ids, np.full_like(ids, 255)]), colour=4),
    {'index'},
  ),
  '16-bit grey and alpha': (
    lambda ids: png(np.dstack([ids, np.full(ids.shape, 65535)]), colour=4, depth=16),
    set(),
  ),
}


@pytest.mark.parametrize('kind', NEIGHBOURS)
@pytest.mark.parametrize('label_format', image_files.LABEL_FORMATS)
def test_the_neighbouring_formats_are_refused(tmp_path, kind, label_format):
  encode, fitting = NEIGHBOURS[kind]
  path = tmp_path / 'label.png'
  path.write_bytes(encode(ids_of(set(label_tables.COLOURS['gta5'].values()))))
  colours = tuple(colour for colour, _ in label_tables.colours('gta5'))
  if label_format in fitting:
    assert image_files.read_label(str(path), label_format, colours).shape == SIZE
    return
  with pytest.raises(BadInput) as error:
    image_files.read_label(str(path), label_format, colours)
  message = str(error.value)
  assert str(path) in message and f"label_format '{label_format}' means" in message
  assert '\n' not in message
  assert all(f"'{name}'" in message for name in fitting)


def test_an_unknown_colour_is_named(tmp_path):
  pixels = colours_of('camvid32', ids_of(range(32)))
  pixels[5, 7] = (1, 2, 3)
  (tmp_path / 'a.png').write_bytes(png(pixels, colour=2))
  colours = tuple(colour for colour, _ in label_tables.colours('camvid32'))
  with pytest.raises(BadInput, match=r'the table, .* lacks \(1, 2, 3\) .* row 5, column 7'):
    image_files.read_label(str(tmp_path / 'a.png'), 'colour', colours)


@pytest.mark.parametrize('keep', [0, 20, 60, 400])
@pytest.mark.parametrize('name', ['gta5', 'synthia', 'robotcar', 'camvid32'])
def test_cut_files_are_named(tmp_path, name, keep):
  settings, occurring, encode = SETS[name]
  write(tmp_path, settings, encode(ids_of(occurring))[:keep])
  with pytest.raises(BadInput) as error:
    opened(tmp_path, settings, CLASSES.get(name, 19)).read(0)
  assert 'town_000001' in str(error.value) and '\n' not in str(error.value)


def damage_end(data: bytes) -> bytes:
  return data[:-12]


def damage_checksum(data: bytes) -> bytes:
  at = data.index(b'IEND') - 8  # the checksum of the pixels
  return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize('damage', [damage_end, damage_checksum])
@pytest.mark.parametrize('name', ['cityscapes', 'gta5', 'synthia', 'robotcar', 'camvid32'])
def test_labels_without_their_end_or_with_a_wrong_checksum_are_refused(tmp_path, name, damage):
  settings, occurring, encode = SETS[name]
  write(tmp_path, settings, damage(encode(ids_of(occurring))))
  with pytest.raises(BadInput, match=r'town_000001.*cannot be decoded'):
    opened(tmp_path, settings, CLASSES.get(name, 19)).read(0)


@pytest.mark.parametrize('colour', [0, 3], ids=['grey', 'palette'])
@pytest.mark.parametrize('depth', [1, 2, 4, 8])
@pytest.mark.parametrize('width', [40, 37])
def test_few_bits_hold_ids_and_not_shades(tmp_path, colour, depth, width):
  ids = RNG.integers(0, 2**depth, (24, width), np.uint8)
  ids[0, :2] = 0, 2**depth - 1
  colours = RNG.integers(0, 256, (2**depth, 3)) if colour == 3 else None
  (tmp_path / 'a.png').write_bytes(png(ids, colour, depth, colours))
  np.testing.assert_array_equal(image_files.read_label(str(tmp_path / 'a.png')), ids)


def test_16_bits_are_read_where_all_ids_fit_into_8(tmp_path):
  ids = RNG.integers(0, 256, SIZE).astype(np.uint16)
  ids[0, :2] = 0, 255
  path = tmp_path / 'a.png'
  path.write_bytes(png(ids, colour=0, depth=16))
  np.testing.assert_array_equal(image_files.read_label(str(path)), ids)
  Image.fromarray(ids).save(path)  # as Pillow writes it
  np.testing.assert_array_equal(image_files.read_label(str(path)), ids)


@pytest.mark.parametrize('label_format, colour', [('index', 0), ('rgb16', 2)])
@pytest.mark.parametrize('value', [256, 26_001, 65_535])
def test_ids_beyond_255_are_refused(tmp_path, label_format, colour, value):
  pixels = np.zeros((*SIZE, 3) if colour == 2 else SIZE, np.uint16)
  pixels[(3, 4, 0)[: pixels.ndim]] = value
  (tmp_path / 'a.png').write_bytes(png(pixels, colour, depth=16))
  with pytest.raises(BadInput, match=rf'a.png: holds {value} at row 3, column 4, and ids end at'):
    image_files.read_label(str(tmp_path / 'a.png'), label_format)


def test_grey_with_alpha_is_read_where_it_is_opaque(tmp_path):
  ids, alpha = ids_of(range(32)), np.full(SIZE, 255, np.uint8)
  path = tmp_path / 'a.png'
  path.write_bytes(png(np.dstack([ids, alpha]), colour=4))
  np.testing.assert_array_equal(image_files.read_label(str(path)), ids)
  alpha[2, 3] = 254
  path.write_bytes(png(np.dstack([ids, alpha]), colour=4))
  with pytest.raises(BadInput, match=r'a.png: alpha is 254 at row 2, column 3.* without alpha'):
    image_files.read_label(str(path))


def test_transparent_pixels_have_no_colour(tmp_path):
  ids = ids_of(range(32))
  alpha = np.full_like(ids, 255)
  alpha[2, 3] = 0
  (tmp_path / 'a.png').write_bytes(png(np.dstack([colours_of('camvid32', ids), alpha]), colour=6))
  colours = tuple(colour for colour, _ in label_tables.colours('camvid32'))
  with pytest.raises(BadInput, match=r'a.png: alpha is 0 at row 2, column 3.* without alpha'):
    image_files.read_label(str(tmp_path / 'a.png'), 'colour', colours)


def test_the_colour_files_of_cityscapes_hold_what_its_ids_hold(tmp_path):
  """Opaque RGBA; all void is black, and pole groups have the colour of poles."""
  shown = sorted(label_tables.COLOURS['cityscapes'].values())
  ids = ids_of(shown)
  file = png(np.dstack([colours_of('cityscapes', ids), np.full_like(ids, 255)]), colour=6)
  settings = datasets.cityscapes('val', label_format='colour')
  settings.labels = settings.labels.replace('labelIds', 'color')
  write(tmp_path, settings, file)
  np.testing.assert_array_equal(
    opened(tmp_path, settings, 19).read(0)[1], label_tables.lut('cityscapes')[ids]
  )


def test_every_set_reads_from_its_own_layout():
  folders = [str(settings.images) for settings, _, _ in SETS.values()]
  assert len({folder.split('/')[0] for folder in folders}) == 9
