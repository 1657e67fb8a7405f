"""Image files, decoded with Pillow."""

import io

import numpy as np
from PIL import Image

from data_pipelines.errors import BadInput, one_line


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
    raise BadInput(
      f'{name}: cannot be decoded ({one_line(error)}); restore or remove the file'
    ) from None
