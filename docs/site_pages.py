"""A hook of MkDocs: what the pages of docs/ link to outside of it becomes pages of the site too.

README.md is the home page. Source files and the notebook are shown as pages; links that work in
the repository work on the site.
"""

import json
import pathlib
import posixpath
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).parents[1]
CODE = {'.cff': 'yaml', '.py': 'python', '.sh': 'bash'}  # endings -> the language they are shown in
INFO = re.compile(r'^( *```\w+) (.+)$', re.M)
PICTURE = re.compile(r'^!\[(.*)\]\((.+)\)$', re.M)
LINK = re.compile(r'(?<=\]\()([^)\s#:]+)(?=[)#])')


def place_on_site(path: str) -> str:
  """Where a file of the repository is on the site: 'docs/x.md' -> 'x.md'."""
  if path == 'README.md':
    return 'index.md'
  if posixpath.splitext(path)[1] in CODE:
    return f'repository/{path}.md'
  place = path.removeprefix('docs/') if path.startswith('docs/') else f'repository/{path}'
  return re.sub(r'\.ipynb$', '.md', place)


def linked_files(path: str, found: set[str]) -> set[str]:
  """`found` with `path` and all files of the repository that it leads to, link by link."""
  if path not in found and (ROOT / path).is_file():
    found.add(path)
    if path.endswith('.md'):
      for link in LINK.findall((ROOT / path).read_text(encoding='utf-8')):
        linked_files(posixpath.normpath(posixpath.join(posixpath.dirname(path), link)), found)
  return found


def markdown_of(path: str) -> str:
  """A file of the repository as Markdown; links of a page lead to places on the site."""
  text, ending = (ROOT / path).read_text(encoding='utf-8'), posixpath.splitext(path)[1]
  if ending in CODE:
    return f'# {path}\n\n````{CODE[ending]}\n{text}````\n'
  if ending == '.ipynb':
    return '\n\n'.join(map(markdown_of_cell, json.loads(text)['cells']))
  folder, here = posixpath.dirname(path), posixpath.dirname(place_on_site(path))

  def mend(match: re.Match[str]) -> str:
    target = posixpath.normpath(posixpath.join(folder, match[1]))
    return posixpath.relpath(place_on_site(target), here or '.')

  text = PICTURE.sub(r'[![\1](\2)](\2)', LINK.sub(mend, text))  # a click shows it in full size
  return INFO.sub(lambda match: f'{match[1]} title="{match[2]}"', text)


def markdown_of_cell(cell: dict[str, str | list[str]]) -> str:
  """A cell of a notebook: text, or a block of code."""
  text = ''.join(cell['source'])
  return f'```python\n{text}\n```' if cell['cell_type'] == 'code' else text


def on_files(files: Files, config: MkDocsConfig) -> Files:
  """Adds a page for each file outside of docs/, and each notebook, that a page leads to."""
  pages = {f'docs/{file.src_uri}' for file in files.documentation_pages()}
  found: set[str] = set()
  for path in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', *sorted(pages)):
    linked_files(path, found)
  for path in sorted(found - pages):
    if path.endswith(('.md', '.ipynb', *CODE)):
      files.append(File.generated(config, place_on_site(path), content=markdown_of(path)))
  return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
  """A page of docs/ with its links mended; those of the others are already."""
  made = page.file.generated_by is not None
  return markdown if made else markdown_of(f'docs/{page.file.src_uri}')
