"""Folders of cards: what may be replaced in them."""

import json

import pytest

from data_pipelines import digests
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
  content = {'library_name': hub_config.LIBRARY, 'files': files}
  (place / hub_config.NAME).write_text(json.dumps(content))
  return files


def test_a_config_cannot_name_files_elsewhere(tmp_path):
  """Files that it names may be removed."""
  (tmp_path / 'mine.json').write_text('')
  names = ('README.md', '../mine.json', 'passports/a/../../../mine.json', 'LICENSE')
  files = old_card(tmp_path / 'card', ('README.md', 'passports/a/b.json', 'LICENSE'))
  content = {'library_name': hub_config.LIBRARY, 'files': dict.fromkeys(names, files['README.md'])}
  (tmp_path / 'card' / hub_config.NAME).write_text(json.dumps(content))
  assert folder.written_before(tmp_path / 'card', True) == {'README.md': files['README.md']}


@pytest.mark.parametrize('text', ['', '[]', '{"files": 3}', '{"library_name": "x", "files": {}}'])
def test_what_is_no_card_has_no_files(text, tmp_path):
  (tmp_path / hub_config.NAME).write_text(text)
  assert folder.written_before(tmp_path, True) == {}
  with folder.new_folder(tmp_path / 'new') as place:
    (place / hub_config.NAME).write_text('{}')
    with pytest.raises(BadInput, match=r'config.json: is no part of a card'):
      folder.publish(place, tmp_path, {})
  assert (tmp_path / hub_config.NAME).read_text() == text


def test_what_the_new_card_lacks_goes(tmp_path):
  place = tmp_path / 'card'
  old_card(place, ('README.md', 'model.onnx', 'passports/a/b.json'))
  (place / 'notes.txt').write_text('mine')
  old = folder.written_before(place, True)
  with folder.new_folder(place) as new:
    (new / 'README.md').write_text('new')
    folder.write_config(new, {'library_name': hub_config.LIBRARY})
    folder.publish(new, place, old)
  assert {path.name for path in place.iterdir()} == {'README.md', 'config.json', 'notes.txt'}
  assert (place / 'README.md').read_text() == 'new' and list(tmp_path.iterdir()) == [place]


def test_an_empty_folder_is_filled(tmp_path):
  (tmp_path / 'card').mkdir()
  assert folder.written_before(tmp_path / 'card', False) == {}
  with folder.new_folder(tmp_path / 'card') as new:
    folder.write_config(new, {})
    folder.publish(new, tmp_path / 'card', {})
  assert (tmp_path / 'card/config.json').is_file() and len(list(tmp_path.iterdir())) == 1
