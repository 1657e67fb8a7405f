"""Frames of video files, and videos of frames. They need PyAV: pip install '.[video]'."""

import contextlib
import fractions
import os
import pathlib
import types
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

import numpy as np

from data_pipelines import atomic
from data_pipelines.errors import BadInput, one_line
from data_pipelines.image_files import MAX_PIXELS, check_file

SUFFIXES = ('.mp4', '.m4v', '.mov', '.mkv', '.webm', '.avi', '.mpg', '.mpeg', '.ts', '.wmv')
CODEC, QUALITY = 'libx264', '18'  # H.264 plays everywhere; 18: no loss is seen
TICKS = 90_000  # a second, of a written video's times: enough for every frame rate


class Video(NamedTuple):
  """What a video's file says of it.

  Attributes:
    size: (h, w) of its frames, turned as its player would.
    frames: how many it has; 0 where it does not say.
  """

  size: tuple[int, int]
  frames: int


def read_video(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> Video:
  """Looks at a video without reading it all; raises BadInput as `frames`."""
  with contextlib.closing(frames(path, max_pixels)) as all_frames, _opened(path) as container:
    _, first = next(all_frames)
    return Video((first.shape[0], first.shape[1]), container.streams.video[0].frames)


def frames(
  path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS
) -> Generator[tuple[float, np.ndarray]]:
  """(seconds, uint8 RGB [h, w, 3]) of every frame of a video in order, turned upright.

  Raises:
    BadInput: PyAV is missing; the file is missing, no video or has no frame; a frame is damaged,
      of another size than the first or too large; or there are fewer of them than the file says.
  """
  count, size = 0, None
  with _errors(path), _opened(path) as container:
    stream = container.streams.video[0]
    stream.thread_type = 'AUTO'
    for frame in container.decode(stream):
      if frame.is_corrupt:
        raise BadInput(f'{path}: frame {count} is damaged; restore the file, or leave it out')
      if frame.height * frame.width > max_pixels:
        raise BadInput(
          f'{path}: its frames have {frame.height}x{frame.width} pixels, more than '
          f'data.max_pixels ({max_pixels:,}): raise it, or make the video smaller'
        )
      pixels = np.ascontiguousarray(np.rot90(frame.to_ndarray(format='rgb24'), _turns(frame)))
      if pixels.shape != (size or pixels.shape):
        raise BadInput(f'{path}: frame {count} has another size than those before: cut it there')
      seconds = count * _interval(stream) if frame.time is None else float(frame.time)
      yield seconds, pixels
      count, size = count + 1, pixels.shape
    if not count:
      raise BadInput(f'{path}: a video without a frame; restore the file, or leave it out')
    if count < stream.frames:
      raise BadInput(
        f'{path}: is cut short: {count} of its {stream.frames} frames are there; restore the file, '
        'or leave it out'
      )


class Writer:
  """A video of RGB frames, H.264 in MP4; sides that are odd get a copy of their last line.

  Args:
    path: of the file, which has to be a temporary one: it is whole after `close` alone.
  """

  def __init__(self, path: pathlib.Path):
    self._container = _library().open(str(path), 'w', format='mp4')
    self._stream: Any = None

  def add(self, seconds: float, pixels: np.ndarray) -> None:
    """Appends uint8 RGB [h, w, 3] at a time."""
    added = ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0))
    frame = _library().VideoFrame.from_ndarray(np.pad(pixels, added, 'edge'), format='rgb24')
    if self._stream is None:
      options = {'crf': QUALITY, 'preset': 'fast'}
      self._stream = self._container.add_stream(CODEC, options=options)
      self._stream.width, self._stream.height = frame.width, frame.height
      self._stream.pix_fmt = 'yuv420p'
      self._stream.codec_context.time_base = fractions.Fraction(1, TICKS)
    frame.pts, frame.time_base = round(seconds * TICKS), fractions.Fraction(1, TICKS)
    self._container.mux(self._stream.encode(frame))

  def close(self) -> None:
    """Writes what is left."""
    if self._stream is not None:
      self._container.mux(self._stream.encode())
    self._container.close()


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[Writer]:
  """A `Writer` whose file gets its name when the block ends well; without, there is none."""
  with atomic.replacing(path) as temporary, contextlib.closing(Writer(temporary)) as writer:
    yield writer


def _library() -> types.ModuleType:
  try:
    import av
  except ImportError:
    raise BadInput("videos need PyAV: pip install '.[video]' (or: pip install av)") from None
  return av


@contextlib.contextmanager
def _errors(path: str | os.PathLike[str]) -> Iterator[None]:
  """Turns the library's errors into one line."""
  try:
    yield
  except _library().FFmpegError as error:
    at_once = 'it ends before a first frame'
    reason = at_once if isinstance(error, EOFError) else one_line(error.strerror)
    raise BadInput(
      f'{path}: cannot be decoded as a video ({reason}); restore the file, or leave it out'
    ) from None


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
  check_file(path)
  with _errors(path), _library().open(str(path)) as container:
    if not container.streams.video:
      raise BadInput(f'{path}: holds no video, only sound or text; leave it out')
    yield container


def _turns(frame: Any) -> int:
  """Quarter turns against the clock by which a player turns a frame, such as a telephone's."""
  return round(getattr(frame, 'rotation', 0) / 90) % 4


def _interval(stream: Any) -> float:
  """Seconds between two frames, where they have no times."""
  return 1 / float(stream.average_rate or 25)
