"""Image files, decoded with Pillow."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from data_pipelines import image_files
from data_pipelines.errors import BadInput


def opened(file: str | io.BytesIO, convert: Callable, name: str = '') -> Image.Image:
  """The image, decoded whole; whatever Pillow raises for a bad file becomes one line."""
  path = name or file
  try:
    with Image.open(file) as image:
      image.load()
      return convert(image)
  except FileNotFoundError:
    raise BadInput(f'{path}: no such file; mend the list or the pattern') from None
  # Pillow's decoders raise SyntaxError, ValueError and others for damaged files.
  except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError) as error:
    reason = ' '.join(str(error).split())
    raise BadInput(f'{path}: cannot be decoded ({reason}); restore or remove the file') from None


def read_image(file: str | io.BytesIO, name: str = '') -> np.ndarray:
  """An image file as uint8 [h, w, 3] RGB. Raises BadInput, with `name`, if it cannot be read."""
  return np.array(image_files.opened(file, lambda image: image.convert('RGB'), name or str(file)))
