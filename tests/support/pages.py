"""The pages of the documentation, and the fenced blocks and commands that stand in them."""

import os
import pathlib
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted(
  path for pattern in ('*.md', 'docs/**/*.md', 'tests/**/*.md') for path in ROOT.glob(pattern)
)
FENCE = re.compile(r'^ *```(.*)$')
INLINE = re.compile(r'(?<![`\\])`([^`]+)`(?!`)')
ENDS = ('&&', '||', '|', ';', '&')  # of a simple command


class Block(NamedTuple):
  """A fenced block: where it stands, the word and the rest of its first line, its content."""

  page: str
  line: int
  kind: str
  info: str
  text: str

  @property
  def place(self) -> str:
    return f'{self.page}:{self.line}'


def follow(script: str, place: pathlib.Path, modules: pathlib.Path = ROOT) -> str:
  """What a bash script prints in a folder that is the user's home too.

  `python` is this one, which finds the modules of a checkout first.
  """
  environment = os.environ | {
    'HOME': str(place), 'PYTHONPATH': str(modules), 'THIS': sys.executable,
  }  # fmt: skip
  done = subprocess.run(
    ['bash', '-euc', f'python() {{ "$THIS" "$@"; }}\n{script}'],
    cwd=place, env=environment, capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


def blocks(path: pathlib.Path) -> Iterator[Block]:
  """The fenced blocks of a page, in order; an open one ends with the page."""
  opened: Block | None = None
  for number, line in enumerate(path.read_text(encoding='utf-8').split('\n'), 1):
    fence = FENCE.match(line)
    if fence and opened is None:
      kind, _, info = fence[1].partition(' ')
      opened = Block(str(path.relative_to(ROOT)), number, kind, info, '')
    elif fence and opened:
      yield opened._replace(text=textwrap.dedent(opened.text))
      opened = None
    elif opened:
      opened = opened._replace(text=f'{opened.text}{line}\n')
  assert opened is None, f'{opened.place}: the block has no end'


def without_blocks(path: pathlib.Path) -> str:
  """The text of a page outside of its fenced blocks."""
  return re.sub(r'^ *```.*?^ *```$', '', path.read_text(encoding='utf-8'), flags=re.M | re.S)


def inline_code(path: pathlib.Path) -> list[str]:
  """What stands between backticks, on one line."""
  return [' '.join(code.split()) for code in INLINE.findall(without_blocks(path))]


def commands(script: str) -> list[list[str]]:
  """The simple commands of a shell script, word by word, without comments."""
  found: list[list[str]] = []
  for line in script.replace('\\\n', ' ').split('\n'):
    lexer = shlex.shlex(line, posix=True, punctuation_chars='|&;<')
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ';']:
      if word in ENDS:
        found, words = [*found, words] if words else found, []
      else:
        words.append(word)
  return found
