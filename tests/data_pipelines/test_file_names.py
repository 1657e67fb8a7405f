"""Names that stand for a file."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.file_names import Listing, ending_of, normal


@pytest.mark.parametrize(
  'name, ending',
  [('a.png', '.png'), ('a.b.PNG', '.PNG'), ('a', ''), ('a.b/c', ''), ('.png', '.png'), ('', '')],
)
def test_the_ending(name, ending):
  assert ending_of(name) == ending


@given(st.text())
def test_the_normal_form_is_its_own(name):
  assert normal(normal(name)) == normal(name)


def found(root, name: str) -> str:
  entry = Listing().find(str(root / name))
  return os.path.relpath(entry.path, root) if entry else ''


def test_a_name_finds_itself_before_another(tmp_path):
  for name in ('a.png', 'a.PNG', 'b.Png', 'B.jpg', 'e\u0301.png'):
    (tmp_path / name).touch()
  assert found(tmp_path, 'a.png') == 'a.png' and found(tmp_path, 'a.PNG') == 'a.PNG'
  assert found(tmp_path, 'a.pnG') == 'a.PNG'  # the first in order
  assert found(tmp_path, 'b.png') == 'b.Png' and found(tmp_path, 'b.jpg') == ''
  assert found(tmp_path, '\xe9.PNG') == 'e\u0301.png'
  assert found(tmp_path, 'none/a.png') == ''


def test_folders_are_listed_once(tmp_path, monkeypatch):
  (tmp_path / 'e\u0301').mkdir()
  (tmp_path / 'e\u0301/a.png').touch()
  listing, scandir, listed = Listing(), os.scandir, []
  monkeypatch.setattr(os, 'scandir', lambda path: listed.append(path) or scandir(path))
  for _ in range(3):
    entry = listing.find(str(tmp_path / '\xe9/a.png'))
    assert entry and entry.path == str(tmp_path / 'e\u0301/a.png')
    assert listing.find(str(tmp_path / '\xe9/b.png')) is None
  assert len(listed) == 2
