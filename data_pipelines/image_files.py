"""Image files, and label files: every pixel's raw id, as each of the data sets stores it.

Which label files are met where is in docs/datasets.md. One of another format is refused, never
guessed at: most can be read as each other, and the labels would be silently wrong.
"""

import functools
import io

import numpy as np
from PIL import Image

from data_pipelines.errors import BadInput, one_line

# The first bytes of a PNG file, to its bit depth and colour type (PNG specification, 5.2, 11.2.2).
SIGNATURE = b'\x89PNG\r\n\x1a\n'
HEADER_SIZE = 26
GREY, RGB, PALETTE, RGBA = 0, 2, 3, 6
KINDS = {GREY: 'grey', RGB: 'RGB', PALETTE: 'palette', 4: 'grey with alpha', RGBA: 'RGBA'}

Colours = tuple[tuple[int, int, int], ...]


_PALETTES = frozenset((PALETTE, depth) for depth in (1, 2, 4, 8))
# (colour type, bit depth) of the PNG files, and what to call the format in a message.
LABEL_FORMATS: dict[str, tuple[frozenset[tuple[int, int]], str]] = {
  # The grey value, or the index into the file's palette, never its colour (Cityscapes, GTA5,
  # BDD100K, Mapillary, CamVid's 11 classes).
  'index': (_PALETTES | {(GREY, 8)}, '8-bit greyscale or palette PNG'),
  # The first of three 16-bit channels (SYNTHIA-RAND-CITYSCAPES; the second holds instances).
  'rgb16': (frozenset({(RGB, 16)}), '16-bit RGB PNG'),
  # The first of four 8-bit channels (Oxford RobotCar).
  'rgba': (frozenset({(RGBA, 8)}), '8-bit RGBA PNG'),
  # The position of the pixel's colour in a list of colours (CamVid's 32 classes; GTA5 or Mapillary
  # after something has turned their palettes into colours).
  'colour': (_PALETTES | {(RGB, 8)}, '8-bit RGB or palette PNG'),
}


def read_image(file: str | io.BytesIO, name: str = '', mode: str = 'RGB') -> np.ndarray:
  """The pixels of an image file, uint8 [h, w] or [h, w, channels].

  Raises BadInput if it does not exist or cannot be decoded.

  Args:
    file: a path, or the bytes of a file.
    name: what to call the file in a message; '' for its path.
    mode: Pillow's name of the channels; '' leaves them as they are (of a palette, the indices).
  """
  name = name or str(file)
  try:
    with Image.open(file) as image:
      image.load()
      return np.array(image.convert(mode) if mode else image, np.uint8)
  except FileNotFoundError:
    raise BadInput(f'{name}: no such file; correct the list or the pattern') from None
  # Pillow's decoders raise SyntaxError, ValueError and others for damaged files.
  except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError) as error:
    reason = one_line(error)
    raise BadInput(f'{name}: cannot be decoded ({reason}); restore or remove the file') from None


def read_label(path: str, label_format: str = 'index', colours: Colours = ()) -> np.ndarray:
  """The raw ids, uint8 [h, w], of a PNG label file in one of `LABEL_FORMATS`.

  `colours` are for 'colour': the RGB triple of each raw id, all of them different. Raises BadInput:
  missing, damaged or of another format, or a pixel's colour is none of `colours`.
  """
  try:
    with open(path, 'rb') as file:
      header = file.read(HEADER_SIZE)
  except OSError as error:
    raise BadInput(f'{path}: cannot be read ({error.strerror})') from None
  _check_header(header, path, label_format)
  if label_format == 'rgb16':
    return _first_of_16_bits(path)
  if label_format == 'colour':
    return _ids_of_colours(read_image(path), colours, path)
  pixels = read_image(path, mode='')
  return pixels[..., 0] if label_format == 'rgba' else pixels


def _check_header(header: bytes, path: str, label_format: str = 'index') -> None:
  """Raises BadInput unless a file that begins with `header` is of the format."""
  if len(header) < HEADER_SIZE or not header.startswith(SIGNATURE):
    raise BadInput(f'{path}: is not a PNG file, or is cut short; write it again')
  depth, colour = header[24], header[25]
  fits = [name for name, (accepted, _) in LABEL_FORMATS.items() if (colour, depth) in accepted]
  if label_format in fits:
    return
  instead = f"; for such files set label_format to '{fits[0]}'" if fits else ''
  raise BadInput(
    f'{path}: is a PNG of colour type {colour} ({KINDS.get(colour, "unknown")}) with {depth} bits, '
    f"but label_format '{label_format}' means {LABEL_FORMATS[label_format][1]}{instead}"
  )


def _ids_of_colours(pixels: np.ndarray, colours: Colours, path: str) -> np.ndarray:
  """uint8 [h, w, 3] -> the position of each pixel's colour in the list: uint8 [h, w]."""
  codes, ids = _sorted_codes(colours)
  found = _codes(pixels)
  place = np.minimum(np.searchsorted(codes, found), len(codes) - 1)
  wrong = codes[place] != found
  if wrong.any():
    others, counts = np.unique(found[wrong], return_counts=True)
    common = others[np.argsort(-counts, kind='stable')[:3]].tolist()
    shown = ', '.join(str((code >> 16, code >> 8 & 255, code & 255)) for code in common)
    row, column = np.argwhere(wrong)[0].tolist()
    raise BadInput(
      f'{path}: the table, of {len(codes)} colours, lacks {shown}{", ..." * (len(others) > 3)} '
      f'({len(others):,} in all, {wrong.mean():.1%} of the pixels, the first at row {row}, column '
      f'{column}): add what is missing to the table, or take the original if the file was resized '
      'or compressed'
    )
  return ids[place]


def _codes(pixels: np.ndarray) -> np.ndarray:
  return pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)


@functools.cache
def _sorted_codes(colours: Colours) -> tuple[np.ndarray, np.ndarray]:
  codes = _codes(np.array(colours, np.uint8))
  order = np.argsort(codes)
  return codes[order], order.astype(np.uint8)


def _first_of_16_bits(path: str) -> np.ndarray:
  # Pillow keeps only the upper half of 16-bit colours, which is 0 everywhere. TensorFlow is
  # imported here alone, so that other data sets do not wait for it.
  import tensorflow as tf

  try:
    with open(path, 'rb') as file:
      pixels = tf.io.decode_png(file.read(), channels=3, dtype=tf.uint16).numpy()[..., 0]
  except (OSError, tf.errors.OpError) as error:
    raise BadInput(f'{path}: cannot be decoded ({one_line(error)}); restore or remove it') from None
  if pixels.max(initial=0) > 255:
    raise BadInput(f'{path}: raw id {pixels.max()} is beyond 255: is it another kind of picture?')
  return pixels.astype(np.uint8)
