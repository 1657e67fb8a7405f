"""docs/config.md: tables of all config fields, made from the comments in configs/.

`python -m tests.support.config_page` writes it anew.
"""

import ast
import io
import pathlib
import tokenize
from collections.abc import Iterator

from diga_jax.configs import default

FOLDER = pathlib.Path(default.__file__).parent
PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'config.md'
MODULES = ('default', 'stages', 'optimizers', 'networks', 'datasets')
HEAD = """# The fields of a config

Made from the comments in `configs/` by `python -m tests.support.config_page`: change them there.

A field is set in a config file (`config.stages.warmup.steps = 100`) or on the command line
(`--config.stages.warmup.steps=100`); `python -m diga_jax config --config=FILE` prints what a config
amounts to, with `--diff` only what differs from `configs/default.py`. A config file is Python code
that is executed: use only those that you trust.

Later rounds follow the first: a field that is set in `label_1` or `self_training_1` (`hiast_1`) is
set in `label_2` and `self_training_2` as well, unless it is set there or differs there already.
Set single fields: a new group (`config.stages.self_training_1.batch = ...`) is not followed.

Sizes are (height, width) in pixels. A default such as `batch(low_rows=2)` is the group of that
name below with these changes.
"""
COLUMNS = '| field | default | what it is and may be |\n|---|---|---|'
Row = tuple[str, str, str]
Group = tuple[str, str, list[Row]]


def comments(source: str) -> dict[int, tuple[str, bool]]:
  """Line number -> (its comment, whether the line is nothing else)."""
  found = {}
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type == tokenize.COMMENT:
      alone = token.line.strip() == token.string
      found[token.start[0]] = token.string.lstrip('# '), alone
  return found


def remark(key: ast.expr, value: ast.expr, notes: dict[int, tuple[str, bool]]) -> str:
  """The comment lines right above a field and the comments behind it."""
  line, above = key.lineno - 1, []
  while line in notes and notes[line][1]:
    above.insert(0, notes[line][0])
    line -= 1
  end = value.lineno if isinstance(value, ast.Dict) else value.end_lineno
  behind = [notes[line][0] for line in range(key.lineno, end + 1) if line in notes]
  return ' '.join([*above, *behind])


def groups(
  name: str, about: str, table: ast.Dict, notes: dict[int, tuple[str, bool]]
) -> Iterator[Group]:
  """(name, what it is, rows (field, default, meaning)) of a dict and of the dicts in it."""
  rows, inner = [], []
  for key, value in zip(table.keys, table.values, strict=True):
    text = remark(key, value, notes)
    if isinstance(value, ast.Dict):
      inner.append((f'{name}.{key.value}', text, value))
    else:
      shown = 'to be given' if isinstance(value, ast.Name) else f'`{ast.unparse(value)}`'
      rows.append((key.value, shown, text))
  yield name, about, rows
  for group in inner:
    yield from groups(*group, notes)


def all_groups() -> list[Group]:
  """The groups of every function in MODULES that ends with a table of fields."""
  found = []
  for module in MODULES:
    source = (FOLDER / f'{module}.py').read_text()
    for function in ast.parse(source).body:
      last = function.body[-1] if isinstance(function, ast.FunctionDef) else None
      match last:
        case ast.Return(value=ast.Call(args=[ast.Dict() as table, *_])):
          name = f'{module}.{function.name}' if module != 'default' else 'config'
          found += groups(name, ast.get_docstring(function), table, comments(source))
  return found


def page() -> str:
  """The whole page, as Markdown."""
  parts = [HEAD]
  for name, about, rows in all_groups():
    parts.append(f'\n## {name}\n\n{about}\n\n{COLUMNS}')
    for row in rows:
      field, value, text = (cell.replace('|', r'\|') for cell in row)
      parts.append(f'| `{field}` | {value} | {text[:1].upper()}{text[1:].rstrip(".")} |')
  return '\n'.join(parts) + '\n'


if __name__ == '__main__':
  PAGE.write_text(page())
