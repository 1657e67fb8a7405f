"""Image files, and label files: every pixel's raw id, as each of the data sets stores it.

All commands read pixels here and nowhere else. Which label files are met where is in
docs/datasets.md. One of another format is refused, never guessed at: most can be read as each
other, and the labels would be silently wrong.
"""

import collections
import functools
import io
import os
import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

from data_pipelines.errors import BadInput, one_line

FORMATS = ('JPEG', 'PNG', 'TIFF', 'BMP', 'WEBP')
MAX_PIXELS = 512_000_000  # of one image; the default of data.max_pixels
# Compared by `decode`; Pillow's own limit is below the size of aerial images.
Image.MAX_IMAGE_PIXELS = None
# No part of an id: what is not UTF-8, control characters and, on some systems a '/', backslashes.
UNUSABLE_NAME = re.compile('[\ud800-\udfff\0-\x1f\x7f\\\\]')

# The first bytes of a PNG file, to its bit depth and colour type (PNG specification, 5.2, 11.2.2).
SIGNATURE = b'\x89PNG\r\n\x1a\n'
HEADER_SIZE = 26
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
KINDS = {GREY: 'grey', RGB: 'RGB', PALETTE: 'palette', GREY_ALPHA: 'grey with alpha', RGBA: 'RGBA'}
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
INFLATED = 1 << 20  # bytes at a time
# (left, top, step right, step down) of the seven passes of an interlaced PNG file.
ADAM7 = (
  (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip

QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations that exchange height and width
NO_IMAGE = f'it is no {", ".join(FORMATS[:-1])} or {FORMATS[-1]} file, or its start is damaged'
RESTORE = '; restore the file, or leave it out'
# What Pillow's decoders raise for damaged files.
DAMAGES = (
  OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError,
  AttributeError, AssertionError, RuntimeError, MemoryError, Warning, struct.error, zlib.error,
)  # fmt: skip

Colours = tuple[tuple[int, int, int], ...]


_PALETTES = frozenset((PALETTE, depth) for depth in (1, 2, 4, 8))
# Pillow stretches grey values of few bits to 0 .. 255, which are ids here: the step by bit depth.
_GREY_STEP = {1: 1, 2: 85, 4: 17, 8: 1}
_GREYS = frozenset((GREY, depth) for depth in (*_GREY_STEP, 16)) | {(GREY_ALPHA, 8)}
# (colour type, bit depth) of the PNG files, and what to call the format in a message.
LABEL_FORMATS: dict[str, tuple[frozenset[tuple[int, int]], str]] = {
  # The grey value, or the index into the file's palette, never its colour (Cityscapes, GTA5,
  # BDD100K, Mapillary, CamVid's 11 classes).
  'index': (_PALETTES | _GREYS, 'grey or palette PNG'),
  # The first of three 16-bit channels (SYNTHIA-RAND-CITYSCAPES; the second holds instances).
  'rgb16': (frozenset({(RGB, 16)}), '16-bit RGB PNG'),
  # The first of four 8-bit channels (Oxford RobotCar).
  'rgba': (frozenset({(RGBA, 8)}), '8-bit RGBA PNG'),
  # The position of the pixel's colour in a list of colours (CamVid's 32 classes; GTA5 or Mapillary
  # after something has turned their palettes into colours; Cityscapes' own, which are opaque RGBA).
  'colour': (_PALETTES | {(RGB, 8), (RGBA, 8)}, '8-bit RGB, RGBA or palette PNG'),
}


def read_image(
  path: str | os.PathLike[str], mode: str = 'RGB', max_pixels: int = MAX_PIXELS
) -> np.ndarray:
  """The pixels of an image file; arguments, result and errors as of `decode` and `read_file`."""
  return decode(read_file(path), str(path), mode, max_pixels)


def read_file(path: str | os.PathLike[str]) -> bytes:
  """The bytes of a file.

  Raises BadInput: as `check_file`, or it cannot be read.
  """
  check_file(path)
  try:
    with open(path, 'rb') as file:
      return file.read()
  except OSError as error:
    raise BadInput(f'{path}: cannot be read ({error.strerror})') from None


def check_file(path: str | os.PathLike[str]) -> None:
  """Refuses a path that is no file.

  Raises BadInput: it does not exist or has a name that is not UTF-8; or it is a folder, a pipe or a
  device, which might have to be waited for.
  """
  path = os.fspath(path)
  if UNUSABLE_NAME.search(path):
    raise BadInput(
      f'{path}: the name is not UTF-8, or holds a control character or a backslash; rename the file'
    )
  if not os.path.isfile(path):
    raise BadInput(f'{path}: {why_no_file(path)}')


def read_size(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
  """(h, w) of an image as the head of its file has it, turned as its EXIF orientation says.

  `read_image` finds another one where a PNG file has its orientation after its pixels.

  Raises BadInput: as `check_file`; it cannot be read, is of none of `FORMATS`, or is too large.
  """
  check_file(path)
  try:
    with Image.open(path, formats=FORMATS) as image:
      if image.width * image.height > max_pixels:
        raise _too_large(str(path), image, max_pixels)
      # Of TIFF files Pillow has turned the size; of a PNG file without one it would decode all.
      known = image.format != 'TIFF' and (image.format != 'PNG' or 'exif' in image.info)
      turned = known and image.getexif().get(ExifTags.Base.Orientation, 1) in QUARTER_TURNS
      return (image.width, image.height) if turned else (image.height, image.width)
  except BadInput:
    raise
  except Image.UnidentifiedImageError:
    raise BadInput(f'{path}: cannot be decoded ({NO_IMAGE}){RESTORE}') from None
  except DAMAGES as error:
    raise BadInput(f'{path}: cannot be decoded ({one_line(error)}){RESTORE}') from None


def why_no_file(path: str | os.PathLike[str]) -> str:
  """Why there is no file at a path, and what to do, in words."""
  if not os.path.lexists(path):
    return 'no such file; correct the list or the pattern'
  if not os.path.exists(path):
    return f'is a link to {os.readlink(path)}, which does not exist; restore that, or leave it out'
  what = 'a folder' if os.path.isdir(path) else 'a pipe, a socket or a device'
  return f'is {what}, not a file; correct the list or the pattern'


def decode(
  data: bytes, name: str, mode: str = 'RGB', max_pixels: int = MAX_PIXELS, rawmode: str = ''
) -> np.ndarray:
  """The pixels of an image: uint8 [h, w] or [h, w, channels].

  Turned as its EXIF orientation says; of 16-bit greyscale the upper 8 bits. Raises BadInput: it is
  of none of `FORMATS`, damaged, cut short, an animation, of 32 bits a channel or too large.

  Args:
    data: the content of a file.
    name: what to call it in a message.
    mode: Pillow's name of the channels; '' leaves them as they are (of a palette, the indices).
    max_pixels: the largest height x width.
    rawmode: Pillow's name of the layout that a PNG file's lines are read by; '' for its own.
  """
  try:
    if data.startswith(SIGNATURE):
      collections.deque(_chunks(data), maxlen=0)
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
      if image.width * image.height > max_pixels:
        raise _too_large(name, image, max_pixels)
      # A JPEG file of several pictures (MPO) shows its first; the others are previews and depth.
      frames = getattr(image, 'n_frames', 1)
      if image.format != 'MPO' and frames > 1:
        raise ValueError(f'it has {frames} frames, an animation or several pages')
      if rawmode:
        image.tile = [tile._replace(args=rawmode) for tile in image.tile]
      image.load()
      last = (0, image.height - 1, image.width, image.height)
      if image.format == 'PNG' and (data[28] or not np.asarray(image.crop(last)).any()):
        _check_length(data)
      return _pixels(image, mode)
  except Image.UnidentifiedImageError:
    reason = NO_IMAGE
  except BadInput:
    raise
  except DAMAGES as error:
    reason = one_line(error)
  raise BadInput(f'{name}: cannot be decoded ({reason}){RESTORE}')


def _too_large(name: str, image: Image.Image, max_pixels: int) -> BadInput:
  return BadInput(
    f'{name}: has {image.height}x{image.width} pixels, more than data.max_pixels '
    f'({max_pixels:,}): raise it, or cut the image into smaller ones'
  )


def _pixels(image: ImageFile.ImageFile, mode: str) -> np.ndarray:
  """The pixels of an opened image, as `decode` gives them."""
  ImageOps.exif_transpose(image, in_place=True)
  image.info.pop('transparency', None)  # of which `convert` would warn; colours stay
  if image.mode.startswith('I;16') and _bits(image) == (16,):
    grey = (np.asarray(image) >> 8).astype(np.uint8)
    return grey[..., None].repeat(3, -1) if mode == 'RGB' else grey
  if image.mode == 'F' or image.mode.startswith('I'):
    raise ValueError('its values are no whole numbers of 8 or 16 bits: convert them')
  return np.asarray(image if mode in ('', image.mode) else image.convert(mode), np.uint8)


def _bits(image: ImageFile.ImageFile) -> tuple[int, ...]:
  """Bits of each channel of a TIFF file; Pillow gives 12 of them as 16. Other files have 16."""
  return image.tag_v2[BITSPERSAMPLE] if isinstance(image, TiffImageFile) else (16,)


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
  """(kind, content) of each chunk of a PNG file; ValueError if one is damaged or the end lacks."""
  view, at, kind = memoryview(data), len(SIGNATURE), b''
  while kind != b'IEND':
    try:
      length, kind = struct.unpack_from('>I4s', data, at)
      (checksum,) = struct.unpack_from('>I', data, at + 8 + length)
    except struct.error:
      raise ValueError('it is cut short') from None
    if zlib.crc32(view[at + 4 : at + 8 + length]) != checksum:
      raise ValueError(f'the checksum of its part {kind!r} at byte {at:,} is wrong')
    yield kind, view[at + 8 : at + 8 + length]
    at += 12 + length


def _check_length(data: bytes) -> None:
  """Raises ValueError if a PNG file holds fewer lines than its header says.

  Pillow leaves such lines black, so that only interlaced files and a black last line need a look.
  """
  width, height, depth, colour, _, _, interlaced = struct.unpack_from('>IIBBBBB', data, 16)
  bits, wanted, found = depth * CHANNELS[colour], 0, 0
  for left, top, right, down in ADAM7 if interlaced else ((0, 0, 1, 1),):
    columns, rows = -(-(width - left) // right), -(-(height - top) // down)
    wanted += rows * (1 + -(-columns * bits // 8)) if columns > 0 else 0
  inflate = zlib.decompressobj()
  for _, content in filter(lambda chunk: chunk[0] == b'IDAT', _chunks(data)):
    while content and found < wanted:
      found += len(inflate.decompress(content, INFLATED))
      content = inflate.unconsumed_tail
  if found < wanted:
    raise ValueError(f'it holds {found:,} of {wanted:,} bytes of pixels')


def read_label(
  path: str, label_format: str = 'index', colours: Colours = (), max_pixels: int = MAX_PIXELS
) -> np.ndarray:
  """The raw ids, uint8 [h, w], of a PNG label file in one of `LABEL_FORMATS`.

  `colours` are for 'colour': the RGB triple of each raw id, all of them different. Raises BadInput:
  as `read_file` and `decode`, or it is of another format, a pixel's colour is none of `colours` or
  transparent, or an id of 16 bits is beyond 255.
  """
  data = read_file(path)
  colour, depth = _check_header(data, path, label_format)
  if label_format == 'colour':
    return _ids_of_colours(opaque(decode(data, path, 'RGBA', max_pixels), path), colours, path)
  if depth == 16:
    return _ids_of_16_bits(data, path, max_pixels, 'RGB;16L' if colour == RGB else 'I;16')
  pixels = decode(data, path, '', max_pixels)
  if colour == GREY:
    return pixels // _GREY_STEP[depth]
  if colour == GREY_ALPHA:
    return opaque(pixels, path)[..., 0]
  return pixels if label_format == 'index' else pixels[..., 0]


def opaque(pixels: np.ndarray, path: str) -> np.ndarray:
  """The channels before alpha, the last one; raises BadInput unless alpha is 255 everywhere."""
  alpha = pixels[..., -1]
  if alpha.min() < 255:
    row, column = np.unravel_index(alpha.argmin(), alpha.shape)
    raise BadInput(
      f'{path}: alpha is {alpha.min()} at row {row}, column {column}, where the pixel then has no '
      'class: write the file without alpha'
    )
  return pixels[..., :-1]


def _ids_of_16_bits(data: bytes, path: str, max_pixels: int, swapped: str) -> np.ndarray:
  """The first channel of a PNG file of 16 bits; raises BadInput for ids beyond 255.

  Pillow gives the upper halves of the values, and by the raw mode `swapped` the lower ones.
  """
  upper = decode(data, path, '', max_pixels)
  lower = decode(data, path, '', max_pixels, rawmode=swapped)
  if upper.ndim == 3:
    upper, lower = upper[..., 0], lower[..., 0]
  if upper.any():
    row, column = np.argwhere(upper)[0].tolist()
    value = 256 * int(upper[row, column]) + int(lower[row, column])
    raise BadInput(
      f'{path}: holds {value} at row {row}, column {column}, and ids end at 255: take the file of '
      'classes, not of instances or depth, or convert it'
    )
  return lower


def png_kind(data: bytes, path: str) -> tuple[int, int]:
  """(colour type, bits) of the PNG file that data is the start of; BadInput if it is none."""
  if len(data) < HEADER_SIZE or not data.startswith(SIGNATURE):
    raise BadInput(f'{path}: is not a PNG file, or is cut short; write it again')
  return data[25], data[24]


def read_palette(data: bytes, path: str) -> list[tuple[int, int, int]]:
  """The colours of a palette PNG file; BadInput if it is damaged."""
  try:
    found = next((content for kind, content in _chunks(data) if kind == b'PLTE'), b'')
  except ValueError as error:
    raise BadInput(f'{path}: cannot be decoded ({error}){RESTORE}') from None
  return [(r, g, b) for r, g, b in zip(found[::3], found[1::3], found[2::3], strict=False)]


def _check_header(header: bytes, path: str, label_format: str = 'index') -> tuple[int, int]:
  """`png_kind` of a file that begins with `header`; BadInput unless it is of the format."""
  colour, depth = png_kind(header, path)
  fits = [name for name, (accepted, _) in LABEL_FORMATS.items() if (colour, depth) in accepted]
  if label_format in fits:
    return colour, depth
  instead = f'; for such files set label_format to {" or ".join(map(repr, fits))}' if fits else ''
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
