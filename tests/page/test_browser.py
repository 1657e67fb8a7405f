"""The page in headless Chromium: no error, the slider, zoom, dark mode, a phone, the keyboard."""

import pathlib
import shutil

import pytest

from diga_jax.page import write
from diga_jax.page.working_directory import PAGE

PHONE = {'width': 390, 'height': 844}
CHROMIUM = next(
  filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), ''
)

pytestmark = [
  pytest.mark.exhaustive,
  pytest.mark.skipif(not CHROMIUM, reason='there is no Chromium (apt-get install chromium)'),
]


@pytest.fixture(scope='module')
def browser():
  sync_api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
  with sync_api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
    yield browser
    browser.close()


@pytest.fixture(scope='module')
def pages(finished, tmp_path_factory) -> dict[str, pathlib.Path]:
  """The page of a run, and that of several."""
  together = tmp_path_factory.mktemp('pages') / 'comparison.html'
  write.write_comparison([finished / name for name in 'abc'], together)
  return {'run': finished / 'a' / PAGE, 'comparison': together}


@pytest.fixture
def opened(browser, pages):
  """opened(name, **options) -> a page in the browser; errors on its console fail the test."""
  contexts, errors = [], []

  def open_page(name, **options):
    context = browser.new_context(**options)
    contexts.append(context)
    page = context.new_page()
    page.on('console', lambda m: errors.append(m.text) if m.type in ('error', 'warning') else None)
    page.on('pageerror', lambda error: errors.append(str(error)))
    page.on('request', lambda r: errors.append(r.url) if r.url.startswith('http') else None)
    page.goto(pages[name].as_uri())
    page.wait_for_function(
      "[...document.querySelectorAll('.chart')].every(each => each.dataset.drawn)"
    )
    return page

  yield open_page
  for context in contexts:
    context.close()
  assert errors == []


@pytest.mark.parametrize('name', ['run', 'comparison'])
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_it_loads_without_an_error_and_fits_a_phone(opened, name, scheme):
  page = opened(name, viewport=PHONE, color_scheme=scheme)
  assert page.evaluate('document.documentElement.scrollWidth') == 390
  assert page.locator('.chart svg').count() == 3


def test_the_slider_changes_the_picture(opened):
  page = opened('run')
  strip = page.locator('.strip').first
  slider, image = strip.locator('input'), strip.locator('[data-column=prediction] img')
  last = image.get_attribute('src')
  slider.focus()
  page.keyboard.press('Home')
  assert strip.locator('output').text_content() == 'warmup'
  assert image.get_attribute('src') not in (None, last)
  page.keyboard.press('ArrowRight')
  assert strip.locator('output').text_content() == 'self_training_1'
  target = page.locator('.strip').nth(1)
  target.locator('input').fill('0')
  assert target.locator('[data-column=kept] img').get_attribute('src') is None
  assert target.locator('[data-column=kept] span').text_content() == 'not yet'
  target.locator('input').fill('1')
  assert target.locator('[data-column=kept] img').get_attribute('src')


def test_the_theme_follows_the_system_and_the_button(opened):
  colour = 'getComputedStyle(document.body).backgroundColor'
  light, dark = (opened('run', color_scheme=scheme) for scheme in ('light', 'dark'))
  assert light.evaluate(colour) == 'rgb(255, 255, 255)'
  assert dark.evaluate(colour) == 'rgb(20, 24, 29)'
  button = light.locator('#theme')
  button.click()
  assert button.text_content() == 'theme: light'
  button.click()
  assert light.evaluate(colour) == 'rgb(20, 24, 29)'
  text = "getComputedStyle(document.querySelector('.chart svg text')).fill"
  assert light.evaluate(text) == 'rgb(230, 234, 239)'


def test_pictures_and_panels_are_shown_at_full_size(opened):
  page = opened('run')
  page.locator('.zoomable').first.click()
  assert page.locator('dialog').is_visible()
  page.keyboard.press('Escape')
  assert not page.locator('dialog').is_visible()
  panel = page.locator('#curves')
  panel.locator('.enlarge').click()
  assert panel.bounding_box()['width'] == page.viewport_size['width']
  page.keyboard.press('Escape')
  assert panel.bounding_box()['width'] < page.viewport_size['width']


def test_choices_change_what_is_shown(opened):
  page = opened('run')
  lines = page.locator('[data-panel=loss] .mark-line path')
  before = lines.first.get_attribute('d')
  page.locator('#tag').select_option('cross_entropy')
  page.wait_for_function(
    f"document.querySelector('[data-panel=loss] .mark-line path').getAttribute('d') !== '{before}'"
  )
  assert page.locator('.confusion:visible').count() == 1
  page.locator('#matrix').select_option('0')
  assert page.locator('.confusion:visible h3').text_content() == 'warmup on camera_test'


def test_the_keyboard_reaches_everything(opened):
  page = opened('run')
  wanted = page.evaluate("""
    [...document.querySelectorAll('a, button, input, select, summary, [tabindex="0"]')]
      .filter(each => each.checkVisibility()).length
  """)
  reached = set()
  for _ in range(wanted + 5):
    page.keyboard.press('Tab')
    reached.add(
      page.evaluate("""
      [...document.querySelectorAll('*')].indexOf(document.activeElement)
    """)
    )
  assert len(reached) >= wanted


def test_it_prints_light_and_whole(opened):
  page = opened('run', color_scheme='dark')
  page.emulate_media(media='print')
  assert page.evaluate('getComputedStyle(document.body).backgroundColor') == 'rgb(255, 255, 255)'
  assert not page.locator('nav').is_visible()
  assert page.locator('.chart svg').first.is_visible()
  page.set_viewport_size({'width': 720, 'height': 1000})  # A4 with its margins
  page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
  assert page.evaluate('document.documentElement.scrollWidth') <= 720
  assert page.locator('details:not([open])').count() == 0
