"""Videos are read frame by frame, and what is no whole video is refused in one line."""

import struct
import subprocess
import sys

import av
import numpy as np
import pytest

from data_pipelines import video_files
from data_pipelines.errors import BadInput


def film(path, count=30, size=(48, 64)):
  """Frames that grow lighter, ten a second, and then slower."""
  with video_files.writing(path) as writer:
    for i in range(count):
      writer.add(i / 10 if i < 20 else i - 18, np.full((*size, 3), 8 * i, np.uint8))
  return path


def read(path, **options):
  return list(video_files.frames(path, **options))


def test_frames_come_in_order_with_their_times(tmp_path):
  found = read(film(tmp_path / 'a.mp4'))
  assert [round(seconds, 3) for seconds, _ in found] == [
    *(i / 10 for i in range(20)),
    *range(2, 12),
  ]
  for i, (_, image) in enumerate(found):
    assert image.shape == (48, 64, 3) and image.dtype == np.uint8
    assert abs(image.astype(int) - 8 * i).max() <= 3
  assert video_files.read_video(tmp_path / 'a.mp4') == ((48, 64), 30)


def test_odd_sides_get_one_more_line(tmp_path):
  assert video_files.read_video(film(tmp_path / 'a.mp4', 2, (47, 63))) == ((48, 64), 2)


def test_nothing_is_left_of_a_video_that_cannot_be_written(tmp_path):
  for count in (0, 3):
    with pytest.raises(RuntimeError), video_files.writing(tmp_path / 'a.mp4') as writer:
      for _ in range(count):
        writer.add(0.0, np.zeros((48, 64, 3), np.uint8))
      raise RuntimeError
  assert not list(tmp_path.iterdir())


def test_what_is_no_whole_video_is_refused(tmp_path):
  whole = film(tmp_path / 'whole.mp4').read_bytes()
  (tmp_path / 'text.mp4').write_text('no video')
  (tmp_path / 'empty.mp4').write_bytes(b'')
  (tmp_path / 'cut.mp4').write_bytes(whole[: len(whole) // 2])
  (tmp_path / 'folder.mp4').mkdir()
  with av.open(str(tmp_path / 'sound.mp4'), 'w') as container:
    stream = container.add_stream('aac', rate=8000)
    sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), 'fltp', 'mono')
    sound.sample_rate = 8000
    container.mux([*stream.encode(sound), *stream.encode()])
  for name, words in (
    ('text.mp4', 'cannot be decoded as a video'),
    ('empty.mp4', 'cannot be decoded as a video'),
    ('cut.mp4', 'cannot be decoded as a video|cut short'),
    ('sound.mp4', 'holds no video'),
    ('folder.mp4', 'is a folder'),
    ('none.mp4', 'no such file'),
  ):
    for look in (read, video_files.read_video):
      with pytest.raises(BadInput, match=rf'{name}: .*({words})') as caught:
        look(tmp_path / name)
      assert '\n' not in str(caught.value)
  with pytest.raises(BadInput, match=r'more than data\.max_pixels'):
    read(tmp_path / 'whole.mp4', max_pixels=1000)


def test_a_video_without_a_frame_is_refused(tmp_path):
  with av.open(str(tmp_path / 'none.mkv'), 'w') as container:
    stream = container.add_stream('libx264', rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
    container.start_encoding()
  with pytest.raises(BadInput, match=r'none\.mkv: .*it ends before a first frame'):
    read(tmp_path / 'none.mkv')


def test_a_telephones_video_is_turned_upright(tmp_path):
  dark_left = np.full((48, 64, 3), 200, np.uint8)
  dark_left[:, :32] = 20
  with video_files.writing(tmp_path / 'a.mp4') as writer:
    writer.add(0.0, dark_left)
  data = (tmp_path / 'a.mp4').read_bytes()
  # How the track is placed (ISO 14496-12, 8.3.2): as it is, and a quarter turn with the clock.
  as_it_is, turned = (
    struct.pack('>9i', *(round(x * 65536) for x in matrix[:8]), 1 << 30)
    for matrix in ((1, 0, 0, 0, 1, 0, 0, 0), (0, 1, 0, -1, 0, 0, 0, 0))
  )
  start, head, track = data.partition(b'tkhd')
  assert as_it_is in track
  (tmp_path / 'a.mp4').write_bytes(start + head + track.replace(as_it_is, turned, 1))
  [(_, image)] = read(tmp_path / 'a.mp4')
  assert image.shape == (64, 48, 3)
  assert image[:30].mean() < 40 and image[34:].mean() > 180  # what was on the left is above
  assert video_files.read_video(tmp_path / 'a.mp4').size == (64, 48)


def test_without_the_library_one_line_says_what_to_install(tmp_path):
  film(tmp_path / 'a.mp4', 2)
  script = (
    'import sys; sys.modules["av"] = None\n'
    'from data_pipelines import video_files\n'
    'try: next(video_files.frames(sys.argv[1]))\n'
    'except ValueError as error: print(error)'
  )
  command = [sys.executable, '-c', script, str(tmp_path / 'a.mp4')]
  found = subprocess.run(command, capture_output=True, text=True, check=True)
  assert found.stdout.startswith("videos need PyAV: pip install '.[video]'")
