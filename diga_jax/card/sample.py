"""The picture of a card: image, truth and prediction of a few measured images."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from diga_jax.card.facts import Measured
from diga_jax.inference.evaluate import evenly_spread
from diga_jax.report import pictures

SHOWN = 3  # images


class Sample(NamedTuple):
  """The picture, the data set that it is of, and the number of its images."""

  picture: Image.Image
  data: str
  images: int


def draw(measured: Sequence[Measured]) -> Sample | None:
  """The picture of the first measurement that has any; None for none.

  Raises:
    BadInput: a picture is damaged.
  """
  for each in measured:
    if panels := read(each.folder / 'pictures'):
      return Sample(pictures.stack_panels(panels), each.folder.name, len(panels))
  return None


def read(folder: pathlib.Path) -> list[pictures.Panels]:
  """Up to `SHOWN` of the pictures of a measurement, evenly spread."""
  files = sorted(folder.rglob('*.png'))
  chosen = [files[i] for i in evenly_spread(SHOWN, len(files))] if files else []
  return [panels for panels in map(pictures.read_panels, chosen) if panels is not None]
