"""The site that MkDocs makes of the pages: complete, without warnings, the same as on GitHub."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
import yaml
from markdown_it import MarkdownIt

from tests.support.pages import ROOT

TAGS = (
  *('h1', 'h2', 'h3', 'h4', 'ul', 'ol', 'li', 'pre', 'table', 'tr', 'td', 'img', 'code'),
  *('em', 'strong', 'blockquote'),
)
PAGES = sorted((ROOT / 'docs').rglob('*.md'))
pages = pytest.mark.parametrize('page', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
needs_mkdocs = pytest.mark.skipif(
  importlib.util.find_spec('mkdocs') is None, reason="needs MkDocs: pip install '.[docs]'"
)


class Loader(yaml.SafeLoader):
  """YAML of mkdocs.yml, whose tags of Python are left unread."""


Loader.add_multi_constructor('tag:yaml.org,2002:python/', lambda *_: None)
SETTINGS = yaml.load((ROOT / 'mkdocs.yml').read_text(encoding='utf-8'), Loader)


def leaves(nav: list | dict | str) -> Iterator[str]:
  """The pages that a navigation names."""
  if isinstance(nav, str):
    yield nav
  else:
    for entry in nav.values() if isinstance(nav, dict) else nav:
      yield from leaves(entry)


@pytest.fixture(scope='module')
def site(tmp_path_factory) -> pathlib.Path:
  """The built site; a warning fails."""
  place = tmp_path_factory.mktemp('site')
  done = subprocess.run(
    [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', place],
    cwd=ROOT, env=os.environ | {'NO_MKDOCS_2_WARNING': '1', 'PYTHONWARNINGS': 'default'},
    capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stdout + done.stderr
  return place


def html_of(page: pathlib.Path, site: pathlib.Path) -> str:
  """What the site shows of a page of docs/."""
  place = site / page.relative_to(ROOT / 'docs').with_suffix('.html')
  text = place.with_name(re.sub('^README', 'index', place.name)).read_text(encoding='utf-8')
  return text[text.index('<article') : text.index('</article>')]


def test_every_page_is_in_the_navigation_once():
  named = list(leaves(SETTINGS['nav']))
  assert len(named) == len(set(named))
  own = {str(path.relative_to(ROOT / 'docs')) for path in PAGES}
  own |= {'index.md', 'notebooks/tour.md', 'repository/CONTRIBUTING.md', 'repository/CHANGELOG.md'}
  assert set(named) == own


def test_nothing_of_the_site_is_committed():
  done = subprocess.run(
    ['git', 'check-ignore', '-q', f'{SETTINGS["site_dir"]}/index.html'], cwd=ROOT, check=False
  )
  if done.returncode == 128:
    pytest.skip('needs the git repository')
  assert done.returncode == 0


@needs_mkdocs
def test_the_site_is_built_without_a_warning(site):
  assert (site / 'index.html').exists() and (site / 'start.html').exists()


@needs_mkdocs
@pages
def test_a_page_has_the_parts_that_it_has_on_github(page, site):
  """Python-Markdown wants lists indented by four, and a blank line before them; GitHub does not."""
  github = MarkdownIt('commonmark').enable('table').render(page.read_text(encoding='utf-8'))
  shown = html_of(page, site)
  for tag in TAGS:
    count = [len(re.findall(rf'<{tag}[ >/]', text)) for text in (github, shown)]
    assert count[0] == count[1], f'<{tag}>: {count[0]} on GitHub, {count[1]} on the site'


@needs_mkdocs
def test_links_and_pictures_of_the_site_lead_somewhere(site):
  for place in site.rglob('*.html'):
    if place.name == '404.html':
      continue  # its links are of the server's root
    text = place.read_text(encoding='utf-8')
    for link in re.findall(r'(?:href|src)="?([^"\s>]+)', text):
      name, _, anchor = link.partition('#')
      if re.match(r'\w+:', name):
        continue
      target = (place.parent / name).resolve() if name else place
      target = target / 'index.html' if target.is_dir() else target
      assert target.exists(), f'{place.relative_to(site)}: {link}'
      if anchor and target.suffix == '.html':
        ids = re.findall(r'(?:id|name)="?([^"\s>]+)', target.read_text(encoding='utf-8'))
        assert anchor in ids, f'{place.relative_to(site)}: {link}'


@needs_mkdocs
def test_nothing_is_fetched_from_elsewhere(site):
  for place in site.rglob('*.html'):
    text = place.read_text(encoding='utf-8')
    assert not re.findall(r'(?:src|<link[^>]*href)="?(?:https?:)?//', text), place
    assert 'class="mermaid' not in text, f'{place}: its script would be fetched'
