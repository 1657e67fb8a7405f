"""The font of pictures and charts, and which texts it has the letters of."""

import functools
import pathlib

from PIL import ImageFont


@functools.cache
def _file() -> pathlib.Path:
  import matplotlib  # half a second, which most commands do not need

  return pathlib.Path(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')


@functools.cache
def _letters() -> frozenset[int]:
  from matplotlib.ft2font import FT2Font

  return frozenset(FT2Font(str(_file())).get_charmap())


def load(size: float) -> ImageFont.FreeTypeFont:
  """The font, `size` pixels high: DejaVu Sans, which has Latin, Greek, Cyrillic and others."""
  return ImageFont.truetype(str(_file()), size)


def writable(text: str, instead: str) -> str:
  """The text, or `instead` where the font lacks a letter of it and would draw a box."""
  return text if _letters().issuperset(map(ord, text)) else instead
