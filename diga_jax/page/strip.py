"""The pictures of a page: for some images the truth and what every stage makes of them."""

import base64
import dataclasses
import io
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from PIL import Image

from data_pipelines.errors import BadInput
from data_pipelines.label_tables import Colour
from diga_jax.page.working_directory import Measurement, WorkingDirectory
from diga_jax.recipe.evaluation import TARGET_PICTURES
from diga_jax.report import pictures
from diga_jax.types import PyTree

BUDGET = 5_000_000  # bytes of data URLs on a page, of its 8 MB
QUALITY = 82  # of WebP, for photographs; labels are lossless
KEPT = 'consensus'  # how the caption of the mask begins
FIXED = ('image', 'truth')  # panels that no stage changes
COLUMNS = (*FIXED, 'prediction', 'pseudo-label', 'kept', 'picture')


class Source(NamedTuple):
  """A folder of pictures, and the stage that made what they show."""

  name: str
  folder: pathlib.Path


@dataclasses.dataclass
class Strip:
  """The pictures of one data set.

  Attributes:
    title: of the set.
    frames: the positions of the slider: stages, or STAGE@CHOICE for checkpoints beside them.
    images: id -> column -> frame -> data URL; the frame of a panel that no stage changes is 0.
    legend: text -> CSS colour.
    left_out: images for which there was no room.
  """

  title: str
  frames: list[str]
  images: dict[str, dict[str, dict[int, str]]] = dataclasses.field(default_factory=dict)
  legend: dict[str, str] = dataclasses.field(default_factory=dict)
  left_out: int = 0

  @property
  def columns(self) -> list[str]:
    return [c for c in COLUMNS if any(c in shown for shown in self.images.values())]

  def data(self) -> dict[str, PyTree]:
    """For the script of the page."""
    return {'frames': self.frames, 'images': self.images, 'columns': self.columns}


def strips(found: WorkingDirectory, budget: int = BUDGET) -> list[Strip]:
  """The pictures of every data set that has some; of each as many images as there is room for."""
  sources = sources_of(found)
  made, each = [], max(budget // max(len(sources), 1), 1)
  for title, folders in sources.items():
    strip, left = Strip(title, [source.name for source in folders]), each
    ids = dict.fromkeys(name for source in folders for name in ids_in(source.folder))
    for name in ids:
      shown = dict(panels_of(found, strip, folders, name)) if left > 0 else {}
      size = sum(len(url) for column in shown.values() for url in column.values())
      left -= size
      if shown and (left >= 0 or not strip.images):
        strip.images[name] = shown
      else:
        strip.left_out += 1
    if strip.images:
      made.append(strip)
  return made


def sources_of(found: WorkingDirectory) -> dict[str, list[Source]]:
  """Data set -> the folders of its pictures, in the order of the stages; of the first protocol."""
  sources: dict[str, list[Source]] = {}
  first = found.measurements[0].protocol if found.measurements else ''
  own = [each for each in found.measurements if each.protocol == first]
  target = next((each.key for each in own if each.row['kind'] == 'labels'), '')
  for each in own:
    for key, folder in folders_of(each, target):
      if folder.is_dir():
        sources.setdefault(key, []).append(Source(each.name, folder))
  return sources


def folders_of(measurement: Measurement, target: str) -> Iterator[tuple[str, pathlib.Path]]:
  yield measurement.key, measurement.folder / 'pictures'
  if measurement.row['kind'] == 'network' and target:
    yield target, measurement.folder / TARGET_PICTURES


def ids_in(folder: pathlib.Path) -> list[str]:
  """The ids of the images that are drawn in a folder."""
  return sorted(
    path.relative_to(folder).with_suffix('').as_posix() for path in folder.rglob('*.png')
  )


def panels_of(
  found: WorkingDirectory, strip: Strip, folders: Sequence[Source], name: str
) -> Iterator[tuple[str, dict[int, str]]]:
  """(column, frame -> data URL) of one image; adds to the legend."""
  shown: dict[str, dict[int, str]] = {}
  for frame, source in enumerate(folders):
    path = source.folder / f'{name}.png'
    if not path.is_file():
      continue
    try:
      panels = pictures.read_panels(path)
      if panels is None:  # of an earlier version: all panels in one
        with Image.open(path, formats=['PNG']) as whole:
          shown.setdefault('picture', {})[frame] = data_url(whole.convert('RGB'), lossless=False)
        continue
    except (BadInput, OSError, SyntaxError, ValueError) as error:
      found.tell(error if isinstance(error, BadInput) else f'{path}: is damaged, or no picture')
      continue
    strip.legend |= {text: css(colour) for text, colour in panels.legend.items()}
    for caption, pixels in panels.images.items():
      column = 'kept' if caption.startswith(KEPT) else caption
      place = 0 if column in FIXED else frame
      if place not in shown.setdefault(column, {}):
        shown[column][place] = data_url(pixels, lossless=caption != 'image')
  yield from shown.items()


def data_url(picture: Image.Image, lossless: bool) -> str:
  """A picture as a WebP data URL."""
  made = io.BytesIO()
  picture.save(made, 'WEBP', lossless=lossless, quality=QUALITY, method=4)
  return f'data:image/webp;base64,{base64.b64encode(made.getvalue()).decode()}'


def css(colour: Colour) -> str:
  return f'rgb({colour[0]},{colour[1]},{colour[2]})'
