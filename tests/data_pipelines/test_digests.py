"""Digests of files: what has changed is hashed again, whatever hides it, and nothing else is."""

import hashlib
import os
import pathlib

import numpy as np
import pytest

from data_pipelines import digests
from data_pipelines.errors import BadInput
from tests.support import data_files


@pytest.fixture
def files(tmp_path, monkeypatch) -> list[str]:
  """Five files, old enough for their digests to be remembered."""
  monkeypatch.setattr(digests, 'SETTLED', 0)
  paths = [tmp_path / f'{i}.bin' for i in range(5)]
  for i, path in enumerate(paths):
    path.write_bytes(bytes([i]) * 100)
  return [str(path) for path in paths]


@pytest.fixture
def hashed(monkeypatch) -> list[str]:
  """The files that are hashed, as they are."""
  found, real = [], digests.of_file
  monkeypatch.setattr(digests, 'of_file', lambda path: found.append(str(path)) or real(path))
  return found


def memory(files: list[str]) -> digests.Memory:
  folder = pathlib.Path(files[0]).parent
  return digests.Memory(str(folder / 'memory'), str(folder / '{id}.bin'))


def truth(files: list[str]) -> list[str]:
  return [hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest() for path in files]


def test_files_are_hashed_in_order(files):
  assert digests.of_files(files) == truth(files)
  assert digests.of_files([]) == []


def test_what_is_remembered_is_not_hashed_again(files, hashed):
  assert memory(files).digests(files[:3]) == truth(files[:3])
  assert hashed == files[:3]
  assert memory(files).digests(files[::-1]) == truth(files[::-1])
  assert sorted(hashed) == files
  assert memory(files).digests(files, afresh=True) == truth(files)
  assert len(hashed) == 10


def rewrite(path: str, data: bytes) -> None:
  pathlib.Path(path).write_bytes(data)


def rewrite_unseen(path: str, data: bytes) -> None:
  """Other bytes of the same number and with the same date."""
  before = os.stat(path)
  rewrite(path, data[:100].ljust(100))
  os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_a_link(path: str, data: bytes) -> None:
  other = pathlib.Path(f'{path}.other')
  other.write_bytes(data)
  os.utime(other, ns=(os.stat(path).st_atime_ns, os.stat(path).st_mtime_ns))
  os.unlink(path)
  os.symlink(other, path)


@pytest.mark.parametrize('change', [rewrite, rewrite_unseen, replace_by_a_link])
def test_a_change_is_seen(files, hashed, change):
  memory(files).digests(files)
  hashed.clear()
  change(files[2], b'x' * 100)
  assert memory(files).digests(files) == truth(files)
  assert hashed == [files[2]]


def test_a_file_that_has_just_changed_is_not_remembered(files, hashed, monkeypatch):
  monkeypatch.setattr(digests, 'SETTLED', 10**12)
  memory(files).digests(files)
  memory(files).digests(files)
  assert len(hashed) == 10


def test_no_bit_of_the_memory_makes_a_wrong_digest(files):
  memory(files).digests(files)
  place, random = memory(files).place, np.random.default_rng(0)
  whole = place.read_bytes()
  for _ in range(200):
    data = bytearray(whole)
    data[random.integers(len(data))] ^= 1 << random.integers(8)
    place.write_bytes(data)
    assert memory(files).digests(files) == truth(files)


@pytest.mark.parametrize('content', ['', '\n', '{}', '[]', f'{hashlib.sha256().hexdigest()}\n'])
def test_a_damaged_memory_is_made_again(files, content):
  place = memory(files).place
  place.parent.mkdir()
  place.write_text(content)
  assert memory(files).digests(files) == truth(files)
  assert hashlib.sha256(place.read_bytes().partition(b'\n')[2]).hexdigest() in place.read_text()


def test_without_a_place_to_write_to_it_takes_longer(files, hashed):
  pathlib.Path(files[0]).parent.joinpath('memory').write_text('no folder')
  for _ in range(2):
    assert memory(files).digests(files) == truth(files)
  assert digests.Memory('', '{id}').digests(files) == truth(files)
  assert len(hashed) == 15


def test_an_interrupted_pass_keeps_what_it_has(files, hashed, monkeypatch):
  real = digests._each

  def stopped(paths):
    for i, digest in enumerate(real(paths)):
      if i == 3:
        raise KeyboardInterrupt
      yield digest

  monkeypatch.setattr(digests, '_each', stopped)
  with pytest.raises(KeyboardInterrupt):
    memory(files).digests(files)
  monkeypatch.setattr(digests, '_each', real)
  hashed.clear()
  memory(files).digests(files)
  assert hashed == files[3:]


def test_what_is_no_file_is_refused_and_not_waited_for(files, tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  for path in (tmp_path / 'pipe', tmp_path, tmp_path / 'none'):
    with pytest.raises(BadInput, match=f'{path}: (is not a file|cannot be read)'):
      memory(files).digests([*files, str(path)])


def test_many_bytes_have_a_bar(files, monkeypatch):
  told = []

  class Bar(list):
    def __init__(self, count):
      told.append(count)

    def __enter__(self):
      return self

    def __exit__(self, *_):
      pass

    def update(self, n=1):
      told.append(n)

  memory(files).digests(files, afresh=True, bar=Bar)
  assert not told
  monkeypatch.setattr(digests, 'LARGE', 400)
  memory(files).digests(files, afresh=True, bar=Bar)
  assert told == [5, 1, 1, 1, 1, 1]


def test_a_folder_gives_the_digests_of_its_files(tmp_path):
  folder = data_files.numbered(tmp_path, 2)
  found = folder.file_digests()
  assert list(found) == ['000', '001']
  for index, name in enumerate(found):
    paths = [folder.image_path(index), folder.label_path(index)]
    assert [found[name]['image'], found[name]['label']] == truth(paths)
  assert folder.with_labels('').file_digests() == {n: {'image': found[n]['image']} for n in found}
