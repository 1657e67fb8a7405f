"""Pictures of images, labels and predictions with a legend."""

import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from data_pipelines.errors import BadInput, one_line
from data_pipelines.label_tables import IGNORE, Colour
from diga_jax.report import fonts

NARROW, WIDE = 256, 512  # a panel is drawn between these widths, in pixels
MARGIN, GAP, LINE = 10, 6, 20
BAND = 256  # rows of an overlay that are computed at a time
INK, PAPER = (30, 30, 30), (255, 255, 255)
REJECTED, HATCH = (214, 214, 214), (160, 160, 160)
LAYOUT = 'diga_jax.panels'  # the text of a PNG that says where its panels are
Font = ImageFont.FreeTypeFont


def colour_labels(labels: np.ndarray, palette: np.ndarray) -> np.ndarray:
  """Labels [H, W] -> uint8 RGB [H, W, 3]; ids beyond the palette [C, 3] are black."""
  table = np.zeros((256, 3), np.uint8)
  table[: len(palette)] = palette
  return table[labels]


def overlay(
  image: np.ndarray, labels: np.ndarray, palette: np.ndarray, share: float = 0.6
) -> np.ndarray:
  """`share` of the class colour over the image, both [H, W]; uint8 RGB [H, W, 3]."""
  made = np.empty_like(image)
  for top in range(0, len(image), BAND):  # floats take many times the space of the image
    rows = slice(top, top + BAND)
    colours = colour_labels(labels[rows], palette).astype(np.float32)
    made[rows] = np.round(share * colours + (1 - share) * image[rows])
  return made


def _panel_size(height: int, width: int) -> tuple[int, int]:
  """(h, w) of a panel: wide images are scaled down, small ones up by a whole number."""
  factor = min(WIDE / width, 1.0) if width >= NARROW else -(-NARROW // width)
  return max(round(height * factor), 1), max(round(width * factor), 1)


def _fit(pixels: np.ndarray, size: tuple[int, int], smooth: bool) -> np.ndarray:
  kind = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
  return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), kind))


def _grey_out(labels: np.ndarray, kept: np.ndarray, palette: np.ndarray) -> np.ndarray:
  """Class colours where kept, hatched grey where rejected, black where there was no label.

  Hatched, because street palettes hold plain greys too (poles, buildings).
  """
  rows, columns = np.indices(labels.shape)
  hatch = np.less((rows + columns) % 8, 2)[..., None]
  rejected = ~kept & (labels != IGNORE)
  grey = np.where(hatch, HATCH, REJECTED)
  return np.where(rejected[..., None], grey, colour_labels(labels, palette)).astype(np.uint8)


def _panels(
  image: np.ndarray,
  maps: Mapping[str, np.ndarray | None],
  consensus: np.ndarray | None,
  palette: np.ndarray,
) -> tuple[dict[str, np.ndarray], set[int]]:
  """(caption -> uint8 pixels, all of one size; the class ids in sight)."""
  size = _panel_size(*image.shape[:2])
  shown = {
    name: _fit(np.asarray(labels).astype(np.uint8), size, smooth=False)
    for name, labels in maps.items()
    if labels is not None
  }
  panels = {'image': _fit(np.asarray(image), size, smooth=True)}
  panels |= {name: colour_labels(labels, palette) for name, labels in shown.items()}
  if consensus is not None:
    consensus = np.asarray(consensus)
    kept = _fit(consensus.astype(np.uint8), size, smooth=False).astype(bool)
    labelled = np.asarray(maps['pseudo-label']) != IGNORE
    share = consensus[labelled].mean() if labelled.any() else 0
    caption = f'consensus: {100 * share:.0f}% kept'
    panels[caption] = _grey_out(shown['pseudo-label'], kept, palette)
  return panels, {int(i) for labels in shown.values() for i in np.unique(labels)}


def _legend_lines(
  entries: Sequence[tuple[str, Colour]], font: Font, width: int
) -> list[list[tuple[int, str, Colour]]]:
  """Entries (text, colour) -> lines of (x, text, colour) that fit into `width`."""
  lines, x = [[]], 0
  for text, colour in entries:
    needed = LINE + round(font.getlength(text)) + 2 * GAP
    if lines[-1] and x + needed > width:
      lines, x = [*lines, []], 0
    lines[-1].append((x, text, colour))
    x += needed
  return lines


def _draw_swatch(
  canvas: ImageDraw.ImageDraw, x: int, y: int, text: str, colour: Colour, font: Font
) -> None:
  side = LINE - 2 * 3
  canvas.rectangle((x, y + 3, x + side, y + 3 + side), fill=colour, outline=INK)
  if text == 'rejected':
    for shift in range(0, 2 * side, 6):
      left, top = max(shift - side, 0), min(shift, side)
      canvas.line((x + left, y + 3 + top, x + top, y + 3 + left), fill=HATCH, width=2)
  canvas.text((x + LINE, y + LINE // 2), text, fill=INK, font=font, anchor='lm')


def _legend(
  present: Iterable[int], palette: np.ndarray, names: Sequence[str] | None
) -> tuple[dict[str, Colour], dict[str, str]]:
  """Of the classes in sight: name -> colour, and name -> the same, or a number, to be drawn."""
  classes = sorted(present)
  found = {i: str(i) if names is None else names[i] for i in classes if i < len(palette)}
  legend = {text: tuple(palette[i].tolist()) for i, text in found.items()}
  drawn = {text: fonts.writable(text, str(i)) for i, text in found.items()}
  if len(found) < len(classes):
    legend['ignored'], drawn['ignored'] = (0, 0, 0), 'ignored'
  return legend, drawn


def _page(
  size: tuple[int, int],
  captions: Iterable[tuple[int, str]],
  legend: Sequence[tuple[str, Colour]],
) -> Image.Image:
  """Paper around panels of this (height, width) in all: captions above them, the legend below.

  `captions` are (pixels from the left of the panels, text).
  """
  (height, width), font = size, fonts.load(13)
  lines, below = _legend_lines(legend, font, width), MARGIN + LINE + height + GAP
  page = Image.new('RGB', (width + 2 * MARGIN, below + len(lines) * LINE + MARGIN), PAPER)
  canvas = ImageDraw.Draw(page)
  for x, text in captions:
    canvas.text((MARGIN + x, MARGIN + LINE // 2 - 2), text, fill=INK, font=font, anchor='lm')
  for i, line in enumerate(lines):
    for x, text, colour in line:
      _draw_swatch(canvas, MARGIN + x, below + i * LINE, text, colour, font)
  return page


def comparison_panels(
  image: np.ndarray,
  *,
  palette: np.ndarray,
  truth: np.ndarray | None = None,
  predictions: Mapping[str, np.ndarray] | None = None,
  pseudo: np.ndarray | None = None,
  consensus: np.ndarray | None = None,
  names: Sequence[str] | None = None,
) -> Image.Image:
  """Image, truth, predictions, pseudo-label and consensus side by side, captioned, with a legend.

  Args:
    image: uint8 RGB [H, W, 3]. Drawn 256 to 512 pixels wide, whatever its size.
    palette: uint8 [C, 3], RGB.
    truth, pseudo: class ids, 255 = ignored (black); any size; None leaves it out.
    predictions: caption -> class ids.
    consensus: bool, True where the pseudo-label is kept; the rest of it is hatched grey.
    names: C class names for the legend, which holds the classes in sight; None: numbers. A name
      with a letter that the font lacks is a number as well.

  Returns:
    The picture; its `info` holds what `read_panels` takes it apart by.

  Raises:
    ValueError: a consensus mask without pseudo-labels.
  """
  if consensus is not None and pseudo is None:
    raise ValueError('a consensus mask is drawn on pseudo-labels: give them too')
  maps = {'truth': truth, **(predictions or {}), 'pseudo-label': pseudo}
  panels, present = _panels(image, maps, consensus, palette)
  height, width = panels['image'].shape[:2]
  legend, drawn = _legend(present, palette, names)
  if consensus is not None:
    legend['rejected'], drawn['rejected'] = REJECTED, 'rejected'
  places = range(0, len(panels) * (width + GAP), width + GAP)
  captions = [fonts.writable(caption, f'prediction {i}') for i, caption in enumerate(panels)]
  page = _page(
    (height, places[-1] + width),
    zip(places, captions, strict=True),
    [(drawn[text], colour) for text, colour in legend.items()],
  )
  for x, pixels in zip(places, panels.values(), strict=True):
    page.paste(Image.fromarray(pixels), (MARGIN + x, MARGIN + LINE))
  layout = {
    'captions': list(panels),
    'size': [height, width],
    'legend': [*legend.items()],
    'drawn': [*drawn.values()],
  }
  page.info[LAYOUT] = json.dumps(layout)
  return page


class Panels(NamedTuple):
  """What `comparison_panels` put into a picture.

  Attributes:
    images: caption -> pixels.
    legend: text -> colour.
    drawn: text -> what stands for it, the same or a class's number.
  """

  images: dict[str, Image.Image]
  legend: dict[str, Colour]
  drawn: dict[str, str]


def read_panels(path: pathlib.Path) -> Panels | None:
  """Takes a PNG of `comparison_panels` apart; None for one of a version that wrote no layout.

  Raises:
    BadInput: it cannot be read, or is no PNG.
  """
  try:
    with Image.open(path, formats=['PNG']) as picture:
      assert isinstance(picture, PngImagePlugin.PngImageFile)
      if LAYOUT not in picture.text:
        return None
      layout = json.loads(picture.text[LAYOUT])
      height, width = layout['size']
      images = {}
      for i, caption in enumerate(layout['captions']):
        left, top = MARGIN + i * (width + GAP), MARGIN + LINE
        images[caption] = picture.crop((left, top, left + width, top + height))
    names = [text for text, _ in layout['legend']]
    drawn = dict(zip(names, layout.get('drawn', names), strict=True))
    return Panels(images, {text: tuple(colour) for text, colour in layout['legend']}, drawn)
  except (OSError, SyntaxError, ValueError, KeyError, TypeError) as error:
    raise BadInput(f'{path}: is damaged, or no picture ({one_line(error)})') from None


def stack_panels(rows: Sequence[Panels]) -> Image.Image:
  """Pictures under each other, captioned once, with one legend of all."""
  widths = [sum(i.width + GAP for i in row.images.values()) - GAP for row in rows]
  heights = [max(i.height for i in row.images.values()) for row in rows]
  legend = {row.drawn[text]: colour for row in rows for text, colour in row.legend.items()}
  page = _page(
    (sum(heights) + GAP * (len(rows) - 1), max(widths)), _places(rows[0]), [*legend.items()]
  )
  y = MARGIN + LINE
  for row, height in zip(rows, heights, strict=True):
    for x, caption in _places(row):
      page.paste(row.images[caption], (MARGIN + x, y))
    y += height + GAP
  return page


def _places(panels: Panels) -> Iterator[tuple[int, str]]:
  """(pixels from the left, caption) of panels side by side."""
  x = 0
  for caption, panel in panels.images.items():
    yield x, caption
    x += panel.width + GAP
