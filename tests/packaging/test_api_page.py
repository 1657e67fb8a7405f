"""docs/api.md shows the docstrings as they are."""

from tests.support import api_page


def test_the_page_is_up_to_date():
  assert api_page.PAGE.read_text() == api_page.page(), (
    'the public docstrings have changed: python -m tests.support.api_page'
  )
