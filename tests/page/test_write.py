"""The page of a run: what is on it, what it needs, and what it does with damaged folders."""

import errno
import html.parser
import json
import os
import pathlib
import random
import re
import shutil

import pytest

from data_pipelines import records
from data_pipelines.errors import BadInput
from diga_jax.__main__ import main
from diga_jax.page import charts, results, write
from diga_jax.page.working_directory import PAGE
from tests.page.conftest import with_traces
from tests.support import damage

VOID = {'meta', 'link', 'img', 'input', 'br', 'path'}


class Parsed(html.parser.HTMLParser):
  """Text by the id of the section that holds it, attributes of all elements, scripts."""

  def __init__(self, text: str):
    super().__init__()
    self.open: list[tuple[str, str]] = []
    self.elements: list[tuple[str, dict[str, str | None]]] = []
    self.sections: dict[str, str] = {}
    self.scripts: dict[str, str] = {}
    self.feed(text)
    self.close()
    assert not self.open, self.open

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    if tag not in VOID:
      self.open.append((tag, dict(attrs).get('id') or ''))

  def handle_endtag(self, tag):
    if tag not in VOID:
      assert self.open.pop()[0] == tag

  def handle_data(self, data):
    if self.open and self.open[-1][0] == 'script':
      self.scripts[self.open[-1][1]] = data
    for tag, name in self.open:
      if tag == 'section':
        self.sections[name] = self.sections.get(name, '') + data

  def values(self, attribute: str) -> list[str]:
    return [found[attribute] or '' for _, found in self.elements if attribute in found]


@pytest.fixture
def library(monkeypatch):
  """A word in place of Vega, which takes seconds to bundle."""
  monkeypatch.setattr(charts, 'vega', lambda: 'vegaEmbed')


@pytest.fixture
def copy(finished, tmp_path, library) -> pathlib.Path:
  """A copy of run a to damage, in a folder 'w'."""
  return shutil.copytree(finished / 'a', tmp_path / 'w')


def page(workdir: pathlib.Path) -> Parsed:
  """What `report` writes of a working directory."""
  assert main(['report', str(workdir)]) == 0
  return Parsed((workdir / PAGE).read_text())


def test_a_run_writes_a_page_that_needs_nothing_else(finished):
  text = (finished / 'a' / PAGE).read_text()
  found = Parsed(text)
  assert 'vegaEmbed' in text and len(text) < 8e6
  outside = [
    value
    for name in ('src', 'href', 'srcset', 'data', 'action')
    for value in found.values(name)
    if not value.startswith(('data:', '#'))
  ]
  assert outside == []
  assert '@import' not in text and 'url(' not in charts.template('style.css')
  policy = next(e['content'] for _, e in found.elements if 'http-equiv' in e)
  assert "default-src 'none'" in policy and 'http' not in policy


def test_it_holds_every_section(copy):
  found = page(copy)
  assert list(found.sections) == [
    'results', 'made', 'recipe', 'curves', 'classes', 'pictures', 'confusion', 'labels',
  ]  # fmt: skip
  assert {f'#{name}' for name in found.sections} <= set(found.values('href'))
  assert 'camera_test, 3 images' in found.sections['results']
  assert 'against the first' in found.sections['results']
  assert 'warning of classes' in found.sections['results']
  for text in ('self_training_2', 'complete', 'reads warmup', 'step 5 of 5'):
    assert text in found.sections['recipe']
  assert 'model.options.width' in found.sections['made']
  assert 'precision' in found.sections['labels'] and 'car falls to 0%' in found.sections['labels']
  data = json.loads(found.scripts['data'])
  assert data['specs'].keys() == {'loss', 'rate', 'score'}
  assert [strip['frames'] for strip in data['strips']] == [
    ['warmup', 'self_training_1', 'self_training_2'],
    ['warmup', 'label_1', 'self_training_1', 'label_2', 'self_training_2'],
  ]
  target = next(iter(data['strips'][1]['images'].values()))
  assert data['strips'][1]['columns'] == ['image', 'truth', 'prediction', 'pseudo-label', 'kept']
  assert target['prediction'].keys() == {'0', '2', '4'} and target['kept'].keys() == {'1', '3'}
  assert target['prediction']['0'] != target['prediction']['4']


def test_what_is_labelled_is_there_and_ids_are_unique(copy):
  found = page(copy)
  ids = found.values('id')
  assert len(ids) == len(set(ids))
  assert {*found.values('for'), *found.values('aria-labelledby')} <= set(ids)
  assert all('alt' in e for tag, e in found.elements if tag == 'img')
  assert all('type' in e for tag, e in found.elements if tag == 'button')
  assert ('html', {'lang': 'en'}) in found.elements


def test_names_are_text_and_no_elements(finished, tmp_path, library):
  odd = shutil.copytree(finished / 'a', tmp_path / '<script>alert(1)<')
  found = page(odd)
  assert '<script>alert' not in (odd / PAGE).read_text().replace('&lt;', '')
  assert [e.get('id') for tag, e in found.elements if tag == 'script'] == ['data', None, None]


def test_names_that_are_no_utf_8_are_written_as_codes(finished, tmp_path, library):
  name = os.fsdecode(b'run\xff')
  try:
    odd = shutil.copytree(finished / 'a', tmp_path / name)
  except OSError:
    pytest.skip('the file system has no such names')
  page(odd)
  assert '<h1>run\\udcff</h1>' in (odd / PAGE).read_text(encoding='utf-8')


def test_data_cannot_end_its_script():
  odd = {'specs': {}, 'x': '</script><b id="odd">&amp;'}
  content = {'runs': results.Table('', [], []), 'differences': [], 'left_out': [], 'results': []}
  content |= {'lines': [], 'classes': [], 'specs': {}, 'tags': []}
  found = Parsed(write.render('comparison.html.jinja', 't', 's', odd, content))
  assert json.loads(found.scripts['data']) == odd
  assert 'odd' not in found.values('id')


@pytest.mark.parametrize(
  'remove, section, word',
  [
    ('run.json', 'recipe', 'complete'),
    ('evaluation', 'results', 'Nothing is measured yet'),
    ('self_training_1', 'recipe', 'not begun'),
    ('self_training_2/stage.json', 'recipe', 'damaged'),
  ],
)
def test_what_is_missing_leaves_the_rest(copy, remove, section, word):
  place = copy / remove
  shutil.rmtree(place) if place.is_dir() else place.unlink()
  assert word in page(copy).sections[section]


@pytest.mark.parametrize(
  'name',
  ['run.json', 'warmup/stage.json', 'evaluation/published/warmup/camera_test/stage.json'],
)
@pytest.mark.parametrize('how', ['flip', 'cut', 'empty', 'folder', 'list'])
def test_what_is_damaged_is_told_and_left_out(copy, name, how, capsys):
  path = copy / name
  if how == 'flip':
    damage.flip(path, random.Random(0))
  elif how == 'folder':
    path.unlink()
    path.mkdir()
  else:
    text = {'cut': path.read_text()[:100], 'empty': '', 'list': '[1]'}[how]
    path.write_text(text)
  found = page(copy)
  assert name in found.sections['problems'] and 'recipe' in found.sections
  said = capsys.readouterr().err.splitlines()
  assert [line for line in said if line.startswith('diga_jax: ') and name in line]


def test_damaged_pictures_and_curves_leave_the_rest(copy):
  pictures = sorted(copy.glob('evaluation/published/warmup/camera_test/pictures/*.png'))
  pictures[0].write_bytes(pictures[0].read_bytes()[:500])
  for path in copy.glob('warmup/events*'):
    path.write_bytes(b'')
  found = page(copy)
  assert pictures[0].name in found.sections['problems']
  assert 'holds no event' in found.sections['problems']
  frames = json.loads(found.scripts['data'])['strips'][0]['images']
  assert next(iter(frames.values()))['prediction'].keys() == {'1', '2'}


def test_a_stage_that_is_begun_shows_its_step(copy):
  (copy / 'self_training_2').rename(copy / 'self_training_2.partial')
  record = copy / 'self_training_2.partial' / 'stage.json'
  content = json.loads(record.read_text())
  records.write(record, {'identity': content['identity']})
  found = page(copy)
  assert 'begun' in found.sections['recipe'] and 'step 5 of 5' in found.sections['recipe']
  assert '4 of 5 stages complete; self_training_2 begun' in (copy / PAGE).read_text()


def test_an_empty_folder_has_a_page(tmp_path, library):
  assert 'Nothing is measured yet' in page(tmp_path).sections['results']
  assert 'nothing has been run here yet' in (tmp_path / PAGE).read_text()


def test_a_path_that_is_no_working_directory_is_one_line(finished, tmp_path, capsys):
  (tmp_path / 'file').write_text('x')
  (tmp_path / 'other').mkdir()
  (tmp_path / 'other' / 'notes.txt').write_text('x')
  study = tmp_path / 'study'
  shutil.copytree(finished / 'a', study / 'x' / 'seed_0')
  for path, reason in {
    tmp_path / 'absent': 'there is no such folder',
    tmp_path / 'file': 'is no folder',
    tmp_path / 'other': 'is no working directory',
    finished / 'a' / 'warmup': 'is the folder of a stage',
    study: 'is the folder of a study',
  }.items():
    assert main(['report', str(path)]) == 2
    said = capsys.readouterr().err
    assert reason in said and str(path) in said and said.count('\n') == 1
  assert not list(tmp_path.glob(PAGE)) and not (tmp_path / 'other' / PAGE).exists()


def test_other_files_are_not_overwritten(copy, tmp_path, capsys):
  (tmp_path / 'mine.html').write_text('<html>mine</html>')
  for place in (tmp_path / 'mine.html', copy / 'warmup' / 'page.html'):
    assert main(['report', str(copy), f'--output={place}']) == 2
    assert place.name in capsys.readouterr().err
  assert (tmp_path / 'mine.html').read_text() == '<html>mine</html>'
  assert main(['report', str(copy), f'--output={tmp_path / "new.html"}']) == 0
  assert main(['report', str(copy), f'--output={tmp_path / "new.html"}']) == 0


@pytest.mark.parametrize('command', ['run', 'study'])
def test_a_page_is_written_after_each_stage_and_at_the_end(tmp_path, monkeypatch, command):
  with_traces(monkeypatch)
  seen = []

  def look(workdir):
    there = {path.parent.name for path in workdir.glob('*/stage.json')}
    seen.append((workdir.name, len(there), (workdir / 'evaluation').exists()))

  monkeypatch.setattr(write, 'update', look)
  options = [f'--config.data.cache={tmp_path / "scenes"}', '--config.translator.kind=fourier']
  options += ["--config.recipe=('warmup','label_1')", *['--seeds', '0'] * (command == 'study')]
  workdir = tmp_path / 'w'
  assert main([command, '--config=tests/configs/tiny.py', f'--workdir={workdir}', *options]) == 0
  name = {'run': 'w', 'study': 'seed_0'}[command]
  assert seen == [(name, 1, False), (name, 2, False), (name, 2, True)]


def test_a_run_goes_on_without_a_page(copy, monkeypatch, caplog):
  (copy / PAGE).write_text('of somebody else')
  write.update(copy)
  assert (copy / PAGE).read_text() == 'of somebody else'
  (copy / PAGE).unlink()

  def fail():
    raise RuntimeError('Vega cannot be bundled')

  monkeypatch.setattr(charts, 'vega', fail)
  write.update(copy)
  assert not (copy / PAGE).exists()
  assert 'exists and is no page' in caplog.text and 'Vega cannot be bundled' in caplog.text


def test_only_the_main_process_writes(copy, monkeypatch):
  (copy / PAGE).unlink()
  monkeypatch.setattr(write.processes, 'is_main_process', lambda: False)
  write.update(copy)
  assert not (copy / PAGE).exists()


def test_a_page_is_whole_or_absent(copy, monkeypatch):
  before = (copy / PAGE).read_text()

  def fail(*_):
    raise OSError(errno.ENOSPC, 'no space')

  monkeypatch.setattr(pathlib.Path, 'write_bytes', fail)
  with pytest.raises(BadInput, match='cannot be written'):
    write.write_run(copy, copy / PAGE)
  monkeypatch.undo()
  assert (copy / PAGE).read_text() == before
  assert not re.findall(r'\.tmp', ' '.join(path.name for path in copy.iterdir()))
