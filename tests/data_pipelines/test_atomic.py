"""Files are whole or absent, and what killed processes leave is swept away."""

import os
import resource
import signal

import numpy as np
import pytest
from PIL import Image

from data_pipelines import atomic, errors


@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt])
def test_replacing_leaves_nothing_when_it_fails(tmp_path, error):
  with pytest.raises(error), atomic.replacing(tmp_path / 'a.txt') as temporary:
    temporary.write_text('half')
    raise error
  assert not list(tmp_path.iterdir())


@pytest.fixture
def small_files():
  """Files may have 1000 bytes: the error of a full disk, but for its number."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
  yield
  resource.setrlimit(resource.RLIMIT_FSIZE, before)
  signal.signal(signal.SIGXFSZ, ignored)


def test_a_file_for_which_there_is_no_space_is_named(tmp_path, small_files):
  noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
  for name, write in {
    'a.txt': lambda path: atomic.write_text(path, 2000 * 'a'),
    'a.png': lambda path: atomic.write_png(path, noise),
  }.items():
    with pytest.raises(errors.BadInput, match=rf'{tmp_path / name}: cannot be written .*ulimit -f'):
      write(tmp_path / name)
  assert not list(tmp_path.iterdir())


def test_what_stands_in_the_way_of_a_file_is_named(tmp_path):
  (tmp_path / 'file').touch()
  for path, remedy in {
    tmp_path / 'file' / 'b.txt': 'a file is in its way',
    tmp_path / (300 * 'a'): 'use a shorter',
    tmp_path / 'deep' / (250 * 'a'): 'use a shorter',  # with the temporary name's letters
    tmp_path.joinpath(*(30 * [200 * 'b'])): 'use a shorter',
  }.items():
    with pytest.raises(errors.BadInput, match=rf'{path}: cannot be written .*{remedy}'):
      atomic.write_text(path, 'a')


def test_an_error_of_another_file_is_left_alone(tmp_path):
  with pytest.raises(FileNotFoundError), atomic.replacing(tmp_path / 'a.txt') as temporary:
    temporary.write_text((tmp_path / 'absent.txt').read_text())


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path):
  path = tmp_path / 'deep' / 'a.txt'
  atomic.write_text(path, 'old')
  with atomic.replacing(path) as temporary:
    temporary.write_text('new')
    assert path.read_text() == 'old'
  assert path.read_text() == 'new' and list(path.parent.iterdir()) == [path]


def test_one_path_is_written_under_two_names_at_a_time(tmp_path):
  path = tmp_path / 'a.txt'
  with atomic.replacing(path) as first, atomic.replacing(path) as second:
    assert first != second
    first.write_text('first')
    second.write_text('second')
  assert path.read_text() == 'first'  # which ended last


def test_pixels_and_pictures_are_written_alike(tmp_path):
  pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
  atomic.write_png(tmp_path / 'a.png', pixels)
  atomic.write_png(tmp_path / 'b.png', Image.fromarray(pixels))
  np.testing.assert_array_equal(Image.open(tmp_path / 'a.png'), pixels)
  assert (tmp_path / 'a.png').read_bytes() == (tmp_path / 'b.png').read_bytes()


def test_only_old_temporary_files_are_swept(tmp_path):
  (tmp_path / 'deep').mkdir()
  names = ('.a.txt.1.tmp', 'deep/.b.png.2.tmp', '.fresh.tmp', 'kept.tmp', '.kept')
  for name in names:
    (tmp_path / name).touch()
  for name in names[:2]:
    os.utime(tmp_path / name, (0, 0))
  atomic.sweep(tmp_path, age=600)
  assert {path.name for path in tmp_path.iterdir()} == {'deep', '.fresh.tmp', 'kept.tmp', '.kept'}
  atomic.sweep(tmp_path)
  assert {path.name for path in tmp_path.iterdir()} == {'deep', 'kept.tmp', '.kept'}
  assert not list((tmp_path / 'deep').iterdir())
  atomic.sweep(tmp_path / 'absent')


def test_the_message_of_an_error_becomes_one_short_line():
  assert errors.one_line(ValueError('two\n  lines')) == 'two lines'
  assert errors.one_line(TimeoutError()) == 'TimeoutError'
  assert len(errors.one_line(OSError('x' * 999))) == 200


def test_the_texts_of_a_picture_are_kept(tmp_path):
  picture = Image.new('RGB', (2, 2))
  picture.info |= {'a': 'one', 'dpi': (72, 72)}
  atomic.write_png(tmp_path / 'a.png', picture)
  assert Image.open(tmp_path / 'a.png').text == {'a': 'one'}
