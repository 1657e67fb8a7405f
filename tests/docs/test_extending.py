"""The recipes of docs/extending, carried out on a copy of the repository.

A fenced block says in its info string what it is: `python FILE` is a new file, or is appended to
one; `diff FILE` replaces its lines with ' ' and '-' by those with ' ' and '+'; `bash prints: TEXT`
is run and must print TEXT.
"""

import pathlib
import re
import shutil
import subprocess
import textwrap

import numpy as np
import pytest
from PIL import Image

from tests.support import data_files, pages

ROOT = pathlib.Path(__file__).parents[2]
LIST, *PAGES = sorted((ROOT / 'docs/extending').glob('*.md'))  # README.md comes first
RECIPES = {path.stem: path.read_text(encoding='utf-8') for path in PAGES}
BLOCK = re.compile(r'^ *```(\w+) (.+?)\n(.*?)^ *```$', re.M | re.S)


@pytest.fixture
def copy(tmp_path) -> pathlib.Path:
  """The repository without the golden arrays and the pages; `diga_jax.configs` are the copy's."""
  options = ['--cached', '--others', '--exclude-standard', '--', ':!docs', ':!tests/golden']
  listed = subprocess.run(
    ['git', 'ls-files', *options],
    cwd=ROOT, capture_output=True, text=True, check=False,
  ).stdout.splitlines()  # fmt: skip
  if not listed:
    pytest.skip('needs the git repository')
  for name in listed:
    if (ROOT / name).is_file():
      (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
      shutil.copyfile(ROOT / name, tmp_path / name)
  (tmp_path / 'diga_jax/configs').symlink_to(tmp_path / 'configs')
  return tmp_path


def apply(kind: str, path: pathlib.Path, text: str) -> None:
  """Writes a new file, appends to one, or changes the lines of a diff, which must occur once."""
  if kind == 'python' and path.exists():
    path.write_text(path.read_text().rstrip('\n') + '\n\n\n' + text)
  elif kind == 'python':
    path.write_text(text)
  else:
    lines = text.rstrip('\n').split('\n')
    old, new = ('\n'.join(line[1:] for line in lines if line[0] in ' ' + s) for s in '-+')
    before = path.read_text()
    assert before.count(old) == 1, f'{path.name}: {before.count(old)} times: {old}'
    path.write_text(before.replace(old, new))


def make_campus(place: pathlib.Path) -> None:
  """Two images with labels, where the recipe for a data set looks for them."""
  rng = np.random.default_rng(0)
  for name in ('a', 'b'):
    image = Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8))
    labels = Image.fromarray(rng.integers(0, 5, (48, 64), np.uint8))
    data_files.save(place / f'data/campus/val/{name}.jpg', image)
    data_files.save(place / f'data/campus/val_labels/{name}.png', labels)


@pytest.mark.parametrize('name', RECIPES)
def test_a_recipe_works_in_five_steps(name, copy):
  make_campus(copy)
  blocks = BLOCK.findall(RECIPES[name])
  for kind, info, text in blocks:
    text = textwrap.dedent(text)
    if kind == 'bash':
      wanted = info.removeprefix('prints: ')
      printed = pages.follow(text, copy, modules=copy)
      assert wanted in printed, printed
    else:
      assert f'`{info}`' in RECIPES[name], 'a reader does not see the info string'
      apply(kind, copy / info, text)
  assert blocks[-1][0] == 'bash'
  assert len(re.findall(r'^\d\. ', RECIPES[name], re.M)) <= 5


@pytest.mark.parametrize('name', RECIPES)
def test_every_block_is_carried_out(name):
  fences = re.findall(r'^ *```', RECIPES[name], re.M)
  assert len(fences) == 2 * len(BLOCK.findall(RECIPES[name]))


def test_the_list_names_every_recipe():
  text = LIST.read_text(encoding='utf-8')
  assert set(re.findall(r'\]\((\w+)\.md\)', text)) == set(RECIPES)
  assert '```' not in text, 'its blocks are not carried out'
