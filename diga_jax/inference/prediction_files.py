"""What predict writes for an image or a video: labels, and on demand pictures and probabilities."""

import contextlib
import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from data_pipelines import atomic, video_files
from diga_jax.inference.image_paths import Found
from diga_jax.inference.label_images import Labelled
from diga_jax.report.pictures import colour_labels, overlay

HALF = np.dtype('float16')  # of probabilities: three digits, in half the space of float32


def _palette_picture(labels: np.ndarray, palette: np.ndarray) -> Image.Image:
  """A picture whose values are the train ids, and which viewers show in the classes' colours."""
  picture = Image.fromarray(labels)
  picture.putpalette(colour_labels(np.arange(256), palette).tobytes())
  return picture


def _write_tiff(path: pathlib.Path, labels: np.ndarray, palette: np.ndarray) -> None:
  with atomic.replacing(path) as temporary:
    Image.fromarray(labels).save(temporary, format='TIFF', compression='tiff_deflate')


def _write_npy(path: pathlib.Path, labels: np.ndarray, palette: np.ndarray) -> None:
  with atomic.replacing(path) as temporary, open(temporary, 'wb') as file:
    np.save(file, labels)


# --format -> the ending of a file of train ids, and what writes it, given the classes' colours.
Write = Callable[[pathlib.Path, np.ndarray, np.ndarray], None]
FORMATS: dict[str, tuple[str, Write]] = {
  'png': ('.png', lambda path, labels, palette: atomic.write_png(path, labels)),
  'palette': (
    '.png',
    lambda path, labels, palette: atomic.write_png(path, _palette_picture(labels, palette)),
  ),
  'tiff': ('.tif', _write_tiff),
  'npy': ('.npy', _write_npy),
}


@dataclasses.dataclass(frozen=True)
class Outputs:
  """Which files are made of each image.

  Attributes:
    directory: where they are.
    palette: the classes' colours, uint8 [C, 3] RGB.
    format: of the file of train ids, one of `FORMATS`.
    colour: whether NAME_colour.png is written, the classes' colours alone.
    overlay: whether NAME_overlay.png is written, the colours over the image.
    probabilities: whether NAME_probabilities.npz is written: 'probabilities', float16 [h, w, C],
      the softmax of the logits that the labels are the maximum of.
  """

  directory: pathlib.Path
  palette: np.ndarray
  format: str = 'png'
  colour: bool = False
  overlay: bool = False
  probabilities: bool = False

  @property
  def type_of_probabilities(self) -> np.dtype | None:
    return HALF if self.probabilities else None

  def files_of(self, found: Found) -> list[str]:
    """The names, below the directory, of what is made of a file; of a video's frames the folder."""
    pictures = '.mp4' if found.is_video else '.png'
    files = [found.name if found.is_video else found.name + FORMATS[self.format][0]]
    files += [f'{found.name}_colour{pictures}'] * self.colour
    files += [f'{found.name}_overlay{pictures}'] * self.overlay
    if self.probabilities and not found.is_video:
      files.append(f'{found.name}_probabilities.npz')
    return files

  def write(self, name: str, image: np.ndarray, labelled: Labelled) -> None:
    """Writes the files of an image, uint8 RGB [h, w, 3]."""
    self._write_arrays(self.directory / name, labelled)
    for what, draw in self._drawn().items():
      path = self.directory / f'{name}_{what}.png'
      atomic.write_png(path, draw(image, labelled.classes))

  def _write_arrays(self, path: pathlib.Path, labelled: Labelled) -> None:
    ending, write = FORMATS[self.format]
    write(path.with_name(path.name + ending), labelled.classes, self.palette)
    if labelled.probabilities is not None:
      place = path.with_name(f'{path.name}_probabilities.npz')
      with atomic.replacing(place) as temporary, open(temporary, 'wb') as file:
        np.savez(file, probabilities=labelled.probabilities)

  def _drawn(self) -> dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    """What is drawn of an image and its labels, by the end of its name."""
    drawn = {}
    if self.colour:
      drawn['colour'] = lambda image, labels: colour_labels(labels, self.palette)
    if self.overlay:
      drawn['overlay'] = lambda image, labels: overlay(image, labels, self.palette)
    return drawn

  @contextlib.contextmanager
  def video(self, name: str) -> Iterator[Callable[[float, np.ndarray, Labelled], None]]:
    """Gives a function that takes the frames of a video in order, each with its time in seconds.

    Writes NAME/000000.png and so on as the files of images, and the pictures as one video each.
    All of them get their names when the block ends well; otherwise nothing is left.
    """
    folder = self.directory / name
    partial = folder.with_name(f'{folder.name}.partial')
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    count, drawn = 0, self._drawn()

    def add(seconds: float, image: np.ndarray, labelled: Labelled) -> None:
      nonlocal count
      self._write_arrays(partial / f'{count:06d}', labelled)
      for what, draw in drawn.items():
        writers[what].add(seconds, draw(image, labelled.classes))
      count += 1

    try:
      with contextlib.ExitStack() as stack:
        writers = {
          what: stack.enter_context(video_files.writing(self.directory / f'{name}_{what}.mp4'))
          for what in drawn
        }
        yield add
      partial.rename(folder)
    finally:
      shutil.rmtree(partial, ignore_errors=True)
