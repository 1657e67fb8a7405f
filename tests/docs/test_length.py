"""A page that is written by hand is short enough to be about one subject."""

import pytest

from tests.support.pages import ROOT

LINES = 250
# Pages of any length: made by a program, as a line of theirs says.
MADE = {
  'docs/api.md': 'Made from the docstrings by `python -m tests.support.api_page`.',
  'docs/config.md': 'Made from the comments in `configs/` by `python -m tests.support.config_page`',
  'docs/plan_tables.md': 'Made by `python -m diga_jax plan`: each section begins with its command.',
}
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / 'docs').rglob('*.md'))
WRITTEN = ['README.md', 'CONTRIBUTING.md', *sorted(set(PAGES) - set(MADE))]


@pytest.mark.parametrize('page', WRITTEN)
def test_a_written_page_is_short(page):
  lines = (ROOT / page).read_text(encoding='utf-8').count('\n')
  assert lines <= LINES, f'{page}: {lines} lines: split it by subject'


@pytest.mark.parametrize('page', MADE)
def test_a_long_page_says_how_it_is_made(page):
  head = (ROOT / page).read_text(encoding='utf-8').split('\n')[:5]
  assert any(line.startswith(MADE[page]) for line in head), f'{page}: write it by hand, or say how'
