"""What README and the pages name exists: linked files, headings, paths, commands."""

import pathlib
import re

import pytest

from diga_jax.__main__ import COMMANDS, parser
from tests.support.pages import PAGES, ROOT

LINK = re.compile(r'\]\(([^)\s]+)\)')
SOURCE = re.compile(r'\[(`[^\]]+`)\]\(([^)\s]+\.py)\)')
PATH = re.compile(
  r'(?<![\w./])((?:diga_jax|data_pipelines|configs|tests|launch|benchmarks|docs|\.ci)/[\w./*-]+)'
)
COMMAND = re.compile(r'python -m diga_jax ([a-z][\w-]*)')
MODULE = re.compile(r'python -m (tests[\w.]+)')
pages = pytest.mark.parametrize('page', PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def anchors(page: pathlib.Path) -> set[str]:
  """The ends of links to the headings of a page, as GitHub makes them."""
  titles = re.findall(r'^#+ (.+)$', page.read_text(encoding='utf-8'), re.M)
  return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}


@pages
def test_links_lead_somewhere(page):
  for link in LINK.findall(page.read_text(encoding='utf-8')):
    if re.match(r'\w+:', link):
      continue
    name, _, anchor = link.partition('#')
    target = page.parent / name if name else page
    assert target.exists(), link
    assert not anchor or anchor in anchors(target), link


@pages
def test_names_that_lead_to_a_file_are_in_it(page):
  for names, link in SOURCE.findall(page.read_text(encoding='utf-8')):
    source = (page.parent / link).read_text(encoding='utf-8')
    for name in re.findall(r'`\w+\.(\w+)`', names):
      if name != 'py':
        assert re.search(rf'^(def|class) {name}\b|^{name}\b', source, re.M), f'{name}: {link}'


@pages
def test_named_files_exist(page):
  text = page.read_text(encoding='utf-8')
  made = set(re.findall(r'[Nn]ew file\s+`(.+?)`', text))  # by the recipes of docs/extending
  for name in PATH.findall(text):
    name = name.rstrip('.')
    assert name in made or list(ROOT.glob(name)), name
  for module in MODULE.findall(text):
    assert (ROOT / f'{module.replace(".", "/")}.py').exists(), module


@pages
def test_named_commands_exist(page):
  commands = parser()._subparsers._group_actions[0].choices
  assert len(commands) >= len(COMMANDS)
  named = set(COMMAND.findall(page.read_text(encoding='utf-8')))
  made = {'classes'} if page.parent.name == 'extending' else set()
  assert named <= commands.keys() | made
