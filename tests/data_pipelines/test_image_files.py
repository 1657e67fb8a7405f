"""One reader: every kind of image gives the same pixels everywhere, or is refused everywhere."""

import io
import itertools
import os
import pathlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data_pipelines import doctor, image_files, pipeline, prepare
from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder, from_pack, open_folder
from data_pipelines.pack import Pack
from tests.data_pipelines.test_label_files import png

SIZE = (40, 56)
RNG = np.random.default_rng(0)
ROWS, COLUMNS = np.mgrid[: SIZE[0], : SIZE[1]]
PIXELS = np.stack([ROWS * 5 + 9, COLUMNS * 4 + 9, ROWS + COLUMNS], -1).astype(np.uint8)
GREY16 = RNG.integers(1, 65_536, SIZE).astype(np.uint16)
LOSSY = ('jpeg', 'progressive jpeg', 'phone jpeg', 'jpeg in tiff', 'webp')


def encode(kind: str, pixels: np.ndarray = PIXELS, **options) -> bytes:
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, kind, **options)
  return file.getvalue()


def turned(kind: str, **options) -> bytes:
  """A file whose orientation says: turn me by 90 degrees to the right."""
  exif = Image.Exif()
  exif[0x0112] = 6
  return encode(kind, np.rot90(PIXELS), exif=exif.tobytes(), **options)


def interlaced(pixels: np.ndarray, lines: int | None = None) -> bytes:
  """An interlaced PNG file, as some tools write for the web; `lines` cuts its last pass."""
  parts = [pixels[top::down, left::right] for left, top, right, down in image_files.ADAM7]
  parts[-1] = parts[-1][:lines]
  raw = b''.join(b'\0' + line.tobytes() for part in parts for line in part)
  whole = png(pixels, colour=2)
  header = bytearray(whole[16:29])
  header[12] = 1
  chunks = [(b'IHDR', bytes(header)), (b'IDAT', zlib.compress(raw)), (b'IEND', b'')]
  return image_files.SIGNATURE + b''.join(
    struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    for kind, data in chunks
  )


def two_frames(kind: str) -> bytes:
  other = Image.fromarray(255 - PIXELS)
  return encode(kind, save_all=True, append_images=[other])


def flipped(data: bytes, part: bytes) -> bytes:
  """A PNG file with one bit flipped in the middle of a part."""
  at = data.index(part)
  (length,) = struct.unpack_from('>I', data, at - 4)
  changed = bytearray(data)
  changed[at + 4 + length // 2] ^= 4
  return bytes(changed)


GREY = (GREY16 >> 8).astype(np.uint8)[..., None].repeat(3, -1)
WIDE = PIXELS.astype(np.uint16) * 256 + RNG.integers(0, 256, PIXELS.shape).astype(np.uint16)
BLACK_BELOW = PIXELS * (ROWS < 30)[..., None]
# Name -> (content of the file, the pixels in it).
SOUND = {
  'png': (encode('PNG'), PIXELS),
  'interlaced png': (interlaced(PIXELS), PIXELS),
  'black last line': (encode('PNG', BLACK_BELOW), BLACK_BELOW),
  'jpeg': (encode('JPEG', quality=95), PIXELS),
  'progressive jpeg': (encode('JPEG', quality=95, progressive=True), PIXELS),
  'phone jpeg': (two_frames('MPO'), PIXELS),
  'tiff': (encode('TIFF'), PIXELS),
  'lzw tiff': (encode('TIFF', compression='tiff_lzw'), PIXELS),
  'jpeg in tiff': (encode('TIFF', compression='jpeg', quality=95), PIXELS),
  'bmp': (encode('BMP'), PIXELS),
  'webp': (encode('WEBP', quality=99), PIXELS),
  'lossless webp': (encode('WEBP', lossless=True), PIXELS),
  '16-bit grey png': (png(GREY16, colour=0, depth=16), GREY),
  '16-bit grey tiff': (encode('TIFF', GREY16), GREY),
  '16-bit png': (png(WIDE, colour=2, depth=16), PIXELS),
  'grey png': (encode('PNG', PIXELS[..., 0]), PIXELS[..., :1].repeat(3, -1)),
  'turned png': (turned('PNG'), PIXELS),
  'turned tiff': (turned('TIFF'), PIXELS),
  'turned webp': (turned('WEBP', lossless=True), PIXELS),
}  # fmt: skip
SHORT = PIXELS[:-4]
DAMAGED = {
  'no file': b'',
  'text': b'no picture',
  'gif': encode('GIF'),
  'animated gif': two_frames('GIF'),
  'animated png': two_frames('PNG'),
  'animated webp': two_frames('WEBP'),
  'tiff of two pages': two_frames('TIFF'),
  'float tiff': encode('TIFF', PIXELS[..., 0].astype(np.float32)),
  'png without its end': encode('PNG')[:-12],
  'png without its last byte': encode('PNG')[:-1],
  'png with a changed bit': flipped(encode('PNG'), b'IDAT'),
  'png with a changed header': flipped(encode('PNG'), b'IHDR'),
  'png with too few lines': png(SHORT, colour=2).replace(
    struct.pack('>II', *SHORT.shape[1::-1]), struct.pack('>II', *SIZE[::-1])
  ),
  'interlaced png with too few lines': interlaced(PIXELS, 3),
  **{
    f'{kind} without its last {cut} bytes': SOUND[kind][0][:-cut]
    for kind, cut in itertools.product(
      ('jpeg', 'progressive jpeg', 'lzw tiff', 'jpeg in tiff', 'bmp', 'webp'), (2, 200)
    )
  },
}  # fmt: skip


def fix_header(data: bytes) -> bytes:
  """A PNG file with the checksum that its changed header should have."""
  return data[:29] + struct.pack('>I', zlib.crc32(data[12:29])) + data[33:]


DAMAGED['png with too few lines'] = fix_header(DAMAGED['png with too few lines'])


@pytest.mark.parametrize('name', SOUND)
def test_sound_files_give_their_pixels(name):
  data, wanted = SOUND[name]
  found = image_files.decode(data, name)
  assert found.shape == wanted.shape and found.dtype == np.uint8
  near = 12 if name in LOSSY else 0
  assert np.abs(found.astype(int) - wanted).mean() <= near / 4
  assert np.abs(found.astype(int) - wanted).max() <= near * 4


@pytest.mark.parametrize('name', DAMAGED)
def test_damaged_files_are_refused(name):
  with pytest.raises(BadInput, match=f'{name}: cannot be decoded') as error:
    image_files.decode(DAMAGED[name], name)
  assert '\n' not in str(error.value) and '0x' not in str(error.value)


@pytest.mark.parametrize('name', SOUND)
def test_the_head_of_a_file_tells_its_size(name, tmp_path):
  path = tmp_path / 'image'
  path.write_bytes(SOUND[name][0])
  assert image_files.read_size(path) == SIZE
  with pytest.raises(BadInput, match=r'more than data\.max_pixels'):
    image_files.read_size(path, SIZE[0] * SIZE[1] - 1)


@pytest.mark.parametrize('name', DAMAGED)
def test_a_damaged_head_is_refused(name, tmp_path):
  path = tmp_path / 'image'
  path.write_bytes(DAMAGED[name])
  try:  # what is behind the head may be damaged
    height, width = image_files.read_size(path)
    assert name not in ('no file', 'text', 'gif', 'animated gif') and height * width > 0
  except BadInput as error:
    assert str(error).startswith(f'{path}: cannot be decoded') and '\n' not in str(error)


def test_any_cut_or_changed_bit_of_a_png_is_refused():
  data = encode('PNG', RNG.integers(0, 256, (9, 9, 3), np.uint8))
  for at in range(len(data)):
    changed = bytearray(data)
    changed[at] ^= 1 << at % 8
    for damaged in (bytes(changed), data[:at]):
      with pytest.raises(BadInput):
        image_files.decode(damaged, 'it')


def batches(folder: Folder, **options) -> list[tuple[str, np.ndarray]]:
  """(id, pixels) of one epoch of the input pipeline, without resizing or cutting."""
  view = pipeline.View(folder, low_rows=0, full_rows=1, low_size=None, crop=SIZE)
  made = pipeline.batches({'v': view}, seed=0, **options)
  order = (pipeline.image_indices('v', view, seed=0, step=step)[0] for step in itertools.count())
  some = itertools.islice(zip(order, made, strict=False), len(folder))
  return [(folder.ids[index], batch['v_image'][0]) for index, batch in some]


def assert_same_but_for_mirroring(found: np.ndarray, wanted: np.ndarray) -> None:
  assert (found == wanted).all() or (found[:, ::-1] == wanted).all()


def write(root: pathlib.Path, files: dict[str, bytes]) -> Folder:
  (root / 'images').mkdir(parents=True)
  for name, data in files.items():
    (root / 'images' / name).write_bytes(data)
  return open_folder(str(root), 'images/{id}')


def test_training_files_and_shards_give_the_same_pixels(tmp_path):
  folder = write(tmp_path, {name: data for name, (data, _) in SOUND.items()})
  for name, pixels in batches(folder):
    assert_same_but_for_mirroring(pixels, folder.read_image(folder.ids.index(name)))
  report = doctor.examine(folder, ('a',), list(doctor.inspect_all(folder, 1)))
  prepare.prepare(folder, tmp_path / 'packed', report.manifest, images='raw')
  packed = from_pack(folder, Pack(tmp_path / 'packed'))
  for index in range(len(folder)):
    np.testing.assert_array_equal(packed.read_image(index), folder.read_image(index))


def test_training_and_doctor_refuse_what_is_refused(tmp_path):
  folder = write(tmp_path, DAMAGED | {'sound': SOUND['png'][0]})
  files = [doctor.inspect(folder, index) for index in range(len(folder))]
  assert {file.problems[0][0] if file.problems else '' for file in files} == {
    'unreadable image',
    '',
  }
  skipped = {}
  for _, pixels in batches(folder, skipped=skipped):
    assert_same_but_for_mirroring(pixels, PIXELS)
  assert set(skipped) == {str(tmp_path / 'images' / name) for name in DAMAGED}
  alone = write(tmp_path / 'a', {'a': DAMAGED['png with too few lines']})
  with pytest.raises(BadInput, match='images/a: cannot be decoded'):
    batches(alone)


def test_images_over_the_limit_are_refused(tmp_path):
  path = tmp_path / 'a.png'
  path.write_bytes(SOUND['png'][0])
  assert image_files.read_image(path, max_pixels=SIZE[0] * SIZE[1]).shape == (*SIZE, 3)
  with pytest.raises(
    BadInput, match=r'a.png: has 40x56 pixels, more than data.max_pixels \(2,239\)'
  ):
    image_files.read_image(path, max_pixels=SIZE[0] * SIZE[1] - 1)
  # Pillow alone would refuse an aerial image of 196 megapixels, whatever the field says.
  Image.new('1', (14_000, 14_000)).save(path, compress_level=1)
  with pytest.raises(BadInput, match=r'has 14000x14000 pixels'):
    image_files.read_image(path, max_pixels=14_000**2 - 1)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  (tmp_path / 'link').symlink_to('nowhere')
  (tmp_path / 'loop').symlink_to('loop')
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'zero').symlink_to('/dev/zero')
  for name, words in {
    'pipe': 'is a pipe', 'link': 'is a link to nowhere', 'loop': 'is a link to loop',
    'folder': 'is a folder', 'zero': 'a device', 'none': 'no such file',
  }.items():  # fmt: skip
    for read in (image_files.read_image, image_files.read_label):
      with pytest.raises(BadInput, match=f'{name}: .*{words}'):
        read(str(tmp_path / name))


@pytest.mark.parametrize('name', [b'caf\xe9.png', b'two\nlines.png'])
def test_names_that_cannot_be_written_down_are_refused(tmp_path, name):
  path = os.fsdecode(os.fsencode(tmp_path) + b'/' + name)
  pathlib.Path(path).write_bytes(SOUND['png'][0])
  with pytest.raises(BadInput, match='the name is not UTF-8, or holds') as error:
    image_files.read_image(path)
  str(error.value).encode()
  assert '\n' not in str(error.value)
