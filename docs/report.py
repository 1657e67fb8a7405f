"""Draws docs/report.png, parts of the page of a run: python docs/report.py WORKDIR.

Needs Chromium, and playwright of the extra `test`.
"""

import pathlib
import shutil
import sys
import tempfile

from PIL import Image
from playwright.sync_api import sync_playwright

from diga_jax.page import write

# Two columns.
PARTS = {
  'light': ('#results', '#classes'),
  'dark': ('#recipe', '.chart >> nth=0', '.strip >> nth=1'),
}
WIDTH, MARGIN = 800, 12


def draw(workdir: pathlib.Path, place: pathlib.Path) -> None:
  """Tables on light paper, beside recipe, curve and pictures on dark paper."""
  with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
    page_file = pathlib.Path(folder) / 'report.html'
    write.write_run(workdir, page_file)
    program = shutil.which('chromium') or shutil.which('google-chrome')
    browser = playwright.chromium.launch(executable_path=program, args=['--no-sandbox'])
    columns = []
    for scheme, parts in PARTS.items():
      page = browser.new_page(viewport={'width': WIDTH, 'height': 900}, color_scheme=scheme)
      page.goto(page_file.as_uri())
      page.wait_for_timeout(3000)
      files = [pathlib.Path(folder) / f'{number}.png' for number in range(len(parts))]
      for part, file in zip(parts, files, strict=True):
        page.locator(part).screenshot(path=file)
      columns.append([Image.open(file).convert('RGB') for file in files])
    browser.close()
  height = max(sum(part.height + MARGIN for part in column) for column in columns)
  picture = Image.new('RGB', (len(columns) * WIDTH, height + MARGIN))
  for number, (column, paper) in enumerate(zip(columns, ('#ffffff', '#14181d'), strict=True)):
    left, top = number * WIDTH, MARGIN
    picture.paste(paper, (left, 0, left + WIDTH, picture.height))
    for part in column:
      picture.paste(part, (left + 16, top))
      top += part.height + MARGIN
  picture.quantize(256).save(place, optimize=True)


if __name__ == '__main__':
  draw(pathlib.Path(sys.argv[1]), pathlib.Path(__file__).with_name('report.png'))
