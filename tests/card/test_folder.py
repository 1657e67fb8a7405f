"""Folders of cards: what may be replaced in them, and what kills and mistakes leave."""

import os
import shutil

import pytest

from data_pipelines import digests, records
from data_pipelines.errors import BadInput
from diga_jax.card import folder
from diga_jax.recipe import hub_config


def old_card(place, names) -> dict[str, str]:
  """A folder whose config.json says that a card has written these files; their digests."""
  place.mkdir()
  for name in names:
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_text(name)
  files = {name: digests.of_file(place / name) for name in names}
  records.write(place / hub_config.NAME, {'library_name': hub_config.LIBRARY, 'files': files})
  return files


def write_new(place) -> None:
  """Writes a card that has a README.md alone, over one that may be there."""
  with folder.new_folder(place) as new:
    (new / 'README.md').write_text('new')
    folder.write_config(new, {'library_name': hub_config.LIBRARY})
    folder.publish(new, place, True)


def test_a_config_cannot_name_files_elsewhere(tmp_path):
  """Files that it names are removed."""
  (tmp_path / 'mine.json').write_text('')
  names = ('README.md', '../mine.json', 'passports/a/../../../mine.json', 'LICENSE')
  files = old_card(tmp_path / 'card', ('README.md', 'passports/a/b.json', 'LICENSE'))
  content = {'library_name': hub_config.LIBRARY, 'files': dict.fromkeys(names, files['README.md'])}
  records.write(tmp_path / 'card' / hub_config.NAME, content)
  assert folder.written_before(tmp_path / 'card', True) == {'README.md': files['README.md']}


@pytest.mark.parametrize('text', ['[]', '{"files": 3}', '{"library_name": "x", "files": {}}'])
def test_what_is_no_card_is_not_replaced(text, tmp_path):
  (tmp_path / hub_config.NAME).write_text(text)
  with pytest.raises(BadInput, match='holds no card'):
    folder.written_before(tmp_path, True)
  (tmp_path / hub_config.NAME).rename(tmp_path / 'other')
  with pytest.raises(BadInput, match='holds no card'):
    folder.written_before(tmp_path, True)


def test_what_the_new_card_lacks_goes(tmp_path):
  place = tmp_path / 'card'
  old_card(place, ('README.md', 'model.onnx', 'passports/a/b.json'))
  (place / 'notes.txt').write_text('mine')
  write_new(place)
  assert {path.name for path in place.iterdir()} == {'README.md', 'config.json', 'notes.txt'}
  assert (place / 'README.md').read_text() == 'new' and list(tmp_path.iterdir()) == [place]


def test_all_that_others_have_put_there_stays(tmp_path):
  """Empty folders too, without which .git is no repository, links, and files among passports."""
  place = tmp_path / 'card'
  old_card(place, ('README.md', 'passports/a/b.json'))
  (place / '.git/refs').mkdir(parents=True)
  (place / '.git/HEAD').write_text('main')
  (place / 'passports/mine').write_text('mine')
  (place / 'link').symlink_to('nowhere')
  (place / 'inside').symlink_to('.git')
  write_new(place)
  assert {path.relative_to(place).as_posix() for path in place.rglob('*')} == {
    *('README.md', 'config.json', '.git', '.git/refs', '.git/HEAD', 'passports', 'passports/mine'),
    *('link', 'inside'),
  }
  assert os.readlink(place / 'link') == 'nowhere' and (place / 'inside').is_symlink()
  assert (place / '.git/HEAD').read_text() == 'main' and list(tmp_path.iterdir()) == [place]


def test_files_are_copied_where_there_are_no_hard_links(tmp_path, monkeypatch):
  def refuse(*_, **__):
    raise PermissionError

  place = tmp_path / 'card'
  old_card(place, ('README.md',))
  (place / 'notes.txt').write_text('mine')
  monkeypatch.setattr(os, 'link', refuse)
  write_new(place)
  assert (place / 'notes.txt').read_text() == 'mine'


@pytest.mark.parametrize('mine', ['model.onnx', 'passports'])
def test_a_file_that_is_no_card_s_is_not_replaced(mine, tmp_path):
  place = tmp_path / 'card'
  old_card(place, ('README.md',))
  (place / mine).write_text('mine')
  with folder.new_folder(place) as new:
    (new / 'passports/a').mkdir(parents=True)
    (new / 'model.onnx').write_text('new')
    with pytest.raises(BadInput, match=f'{mine}: is no part of a card: move it away'):
      folder.publish(new, place, True)
  assert (place / mine).read_text() == 'mine' and (place / 'README.md').read_text() == 'README.md'
  assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize('kind', ['folder', 'link', 'text'])
def test_what_was_put_in_the_place_of_a_file_is_a_change(kind, tmp_path):
  place = tmp_path / 'card'
  old_card(place, ('README.md',))
  file = place / 'README.md'
  file.unlink()
  if kind == 'folder':
    file.mkdir()
  elif kind == 'link':
    file.symlink_to('nowhere')
  else:
    file.write_text('mine')
  with pytest.raises(BadInput, match=r'README\.md: has been changed since'):
    folder.written_before(place, True)


def test_an_edited_config_is_not_replaced(tmp_path):
  place = tmp_path / 'card'
  old_card(place, ('README.md',))
  file = place / hub_config.NAME
  file.write_text(file.read_text().replace('files', 'Files'))
  with pytest.raises(BadInput, match=r'config\.json: is damaged, or was edited'):
    folder.written_before(place, True)


def test_the_folder_of_this_process_is_not_replaced(tmp_path, monkeypatch):
  old_card(tmp_path / 'card', ('README.md',))
  monkeypatch.chdir(tmp_path / 'card')
  with pytest.raises(BadInput, match='leave it first'):
    folder.written_before(tmp_path / 'card', True)


def test_an_error_between_the_renames_leaves_the_old_card(tmp_path):
  place = tmp_path / 'card'
  old_card(place, ('README.md',))
  with folder.new_folder(place) as new:
    (new / 'config.json').write_text('new')
    shutil.move(new, tmp_path / 'gone')  # what has to take its place
    with pytest.raises(BadInput, match='card: cannot be written'):
      folder.publish(new, place, True)
  assert (place / 'README.md').read_text() == 'README.md'


def test_a_card_that_another_process_has_written_meanwhile_is_not_mixed_in(tmp_path):
  place = tmp_path / 'card'
  with folder.new_folder(place) as new:
    folder.write_config(new, {'library_name': hub_config.LIBRARY})
    old_card(place, ('README.md', 'sample.png', 'passports/a/b.json'))
    with pytest.raises(BadInput, match='is not empty'):
      folder.publish(new, place, False)
    folder.publish(new, place, True)
  assert [path.name for path in place.iterdir()] == [hub_config.NAME]


def test_what_kills_have_left_is_undone(tmp_path):
  """Between the two renames, before the end of the removal, and while the new one is written."""
  place, aside = tmp_path / 'card', tmp_path / '.card.0123abcd.old'
  old_card(aside, ('README.md',))
  folder.clear_remains(place)
  assert (place / 'README.md').is_file() and list(tmp_path.iterdir()) == [place]
  old_card(aside, ('README.md',))
  for name in ('.card.0123abcd.tmp', '.card.11111111.tmp', '.cards.0123abcd.tmp', '.card.old'):
    (tmp_path / name).mkdir()
  for name in ('.card.0123abcd.tmp', '.cards.0123abcd.tmp', '.card.old'):
    os.utime(tmp_path / name, (0, 0))
  folder.clear_remains(place)
  left = {path.name for path in tmp_path.iterdir()}
  assert left == {'card', '.card.11111111.tmp', '.cards.0123abcd.tmp', '.card.old'}


def test_an_empty_folder_is_filled(tmp_path):
  (tmp_path / 'card').mkdir()
  assert folder.written_before(tmp_path / 'card', False) == {}
  write_new(tmp_path / 'card')
  assert (tmp_path / 'card/config.json').is_file() and len(list(tmp_path.iterdir())) == 1
