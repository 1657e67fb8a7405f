"""docs/start.md and docs/tutorial.md as a new user follows them, on a quickstart of fewer steps.

The pictures of docs/concepts.md are drawn from the run of the tutorial.
"""

import pathlib
import re

import pytest
from PIL import Image

from tests.support import pages
from tests.support.pages import ROOT

PICTURES = sorted((ROOT / 'docs/concepts').glob('*'))
# A file of the name that the commands give: it comes before the shipped config of that name.
SMALL = """
from diga_jax.configs import quickstart
def get_config():
  config = quickstart.get_config()
  for name, count in {'source': 12, 'target': 12, 'game_test': 4, 'camera_test': 4}.items():
    config.data.sets[name].count = count
  for name in ('source_only', 'warmup', 'self_training_1'):
    config.stages[name].steps = 4
  return config
"""


def steps(name: str) -> str:
  """The commands and programs of a page as one script, without its installation."""
  script = []
  for block in pages.blocks(ROOT / 'docs' / name):
    if block.kind == 'python':
      script.append(f"python - <<'END'\n{block.text}END\n")
    elif block.kind == 'bash':
      script.append(re.sub(r'^(bash launch/setup.sh|source) .*\n', '', block.text, flags=re.M))
  return ''.join(script)


@pytest.fixture(scope='module')
def followed(tmp_path_factory) -> tuple[pathlib.Path, str]:
  """A folder in which both pages were followed, and what was printed."""
  place = tmp_path_factory.mktemp('user')
  (place / 'quickstart').write_text(SMALL)
  return place, pages.follow(steps('start.md') + steps('tutorial.md'), place)


@pytest.mark.exhaustive
def test_the_tutorial_makes_what_it_says(followed):
  place, printed = followed
  for name in (
    'runs/quickstart/report.html', 'labels/010000.png', 'labels/010000_overlay.png', 'student.pth',
    'runs/study/study/published.md', 'comparison.html',
  ):  # fmt: skip
    assert (place / name).exists(), name
  assert 'label_1: consensus keeps labels of ' in printed
  table = (place / 'runs/study/study/published.md').read_text()
  assert 'selector=consensus/self_training_1' in table and 'selector=none/self_training_1' in table


@pytest.mark.exhaustive
def test_the_concepts_are_drawn(followed):
  place, _ = followed
  pages.follow(f'python {ROOT}/docs/concepts.py runs/quickstart --output=pictures', place)
  drawn = sorted((place / 'pictures').iterdir())
  assert [path.name for path in drawn] == [path.name for path in PICTURES]
  for path, kept in zip(drawn, PICTURES, strict=True):
    with Image.open(path) as new, Image.open(kept) as old:
      assert new.width == old.width


def test_the_pictures_of_the_concepts_are_small_and_shown():
  page = (ROOT / 'docs/concepts.md').read_text(encoding='utf-8')
  assert len(PICTURES) == 5
  for path in PICTURES:
    assert path.stat().st_size <= 200_000, path.name
    assert f'](concepts/{path.name})' in page, path.name
