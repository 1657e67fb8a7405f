"""Small data sets on disk for the tests of the data pipeline."""

import pathlib
import struct
import zlib

import numpy as np
from PIL import Image

from data_pipelines import folder, image_files


def write(root: pathlib.Path, name: str, image: np.ndarray, label: np.ndarray | None) -> None:
  """images/NAME.png and, unless None, labels/NAME.png (greyscale)."""
  save(root / 'images' / f'{name}.png', Image.fromarray(image))
  if label is not None:
    save(root / 'labels' / f'{name}.png', Image.fromarray(label))


def save(path: pathlib.Path, image: Image.Image) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  image.save(path)


def numbered(root: pathlib.Path, count: int, size=(24, 32), **options) -> folder.Folder:
  """Images whose every pixel is the image's number, with labels that are noise in 0..4 and 255."""
  rng = np.random.default_rng(count)
  for index in range(count):
    image = np.full((*size, 3), index, np.uint8)
    write(root, f'{index:03d}', image, rng.choice([0, 1, 2, 3, 4, 255], size).astype(np.uint8))
  return open_folder(root, **options)


def coded(root: pathlib.Path, count: int, size=(48, 64), **options) -> folder.Folder:
  """Blocky images whose red channel is ten times the label, from which the label can be read."""
  rng = np.random.default_rng(count)
  for index in range(count):
    small = rng.integers(0, 19, (-(-size[0] // 8), -(-size[1] // 8)), np.uint8)
    label = small.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]]
    image = np.stack([label * 10, 255 - label * 10, np.full_like(label, index)], -1)
    write(root, f'{index:03d}', image, label)
  return open_folder(root, **options)


def open_folder(root: pathlib.Path, **options) -> folder.Folder:
  options = {'images': 'images/{id}.png', 'labels': 'labels/{id}.png', 'classes': 19} | options
  return folder.open_folder(str(root), **options)


def png(
  pixels: np.ndarray, colour: int, depth: int = 8, palette: np.ndarray | None = None
) -> bytes:
  """A PNG file, chunk by chunk: what the data sets' own tools wrote, no library's idea of it."""

  def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

  height, width = pixels.shape[:2]
  lines = pixels.astype('>u2' if depth == 16 else 'u1').reshape(height, -1)
  if depth < 8:
    bits = np.unpackbits(lines[..., None], -1)[..., 8 - depth :].reshape(height, -1)
    lines = np.packbits(bits, -1)
  raw = b''.join(b'\0' + line.tobytes() for line in lines)
  header = struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, 0)
  plte = b'' if palette is None else chunk(b'PLTE', palette.astype('u1').tobytes())
  return (
    image_files.SIGNATURE
    + chunk(b'IHDR', header)
    + plte
    + chunk(b'IDAT', zlib.compress(raw))
    + chunk(b'IEND', b'')
  )


def recode(source: pathlib.Path, target: pathlib.Path) -> None:
  """The same pixels in other bytes."""
  target.parent.mkdir(parents=True, exist_ok=True)
  Image.open(source).save(target, compress_level=1)
  assert source.read_bytes() != target.read_bytes()
