"""The charts of a page: Vega-Lite, whose scripts are those that vl-convert brings.

Vega's libraries for the browser are 0.9 MB together; Plotly's package for Python brings 4.7 MB,
which every working directory would hold.
"""

import contextlib
import functools
import importlib.metadata
import importlib.resources
import json
import os
import subprocess
import sys
from collections.abc import Mapping

from data_pipelines import atomic
from data_pipelines.errors import one_line
from diga_jax.storage import program_cache
from diga_jax.types import PyTree

TEMPLATES = 'diga_jax.page'
# Readable on light and on dark paper: a contrast of 3 to both.
COLOURS = (
  '#2f7fc1', '#c8553d', '#2e8b57', '#9467bd', '#b7791f', '#d1478c', '#5f7d8c', '#7a8423',
)  # fmt: skip
PANELS = {'loss': 'loss', 'rate': 'learning rate', 'score': 'score, as a fraction'}
DEFINES = 'window.vegaEmbed'
BUNDLE = f'import vl_convert; print(vl_convert.javascript_bundle("{DEFINES} = vegaEmbed;"))'


def template(name: str) -> str:
  """A file of templates/."""
  place = importlib.resources.files(TEMPLATES) / 'templates' / name
  return place.read_text(encoding='utf-8')


@functools.cache
def vega() -> str:
  """Vega, Vega-Lite and Vega-Embed as one script that defines `vegaEmbed`.

  It is kept in the user's cache: to bundle it takes two seconds.

  Raises:
    RuntimeError: it could not be bundled.
  """
  version = importlib.metadata.version('vl-convert-python')
  kept = program_cache.folder_of(program_cache.DEFAULT, os.environ).parent / f'vega-{version}.js'
  with contextlib.suppress(OSError, UnicodeError):
    if DEFINES in (script := kept.read_text(encoding='utf-8')):
      return script
  script = bundle()
  with contextlib.suppress(OSError):
    kept.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(kept) as temporary:
      temporary.write_text(script, encoding='utf-8')
  return script


def bundle() -> str:
  """The script, made by a process of its own.

  The JavaScript engine that does it takes memory and threads, and might crash.

  Raises:
    RuntimeError: it could not.
  """
  command = [sys.executable, '-c', BUNDLE]
  done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
  if done.returncode or DEFINES not in done.stdout:
    raise RuntimeError(f'Vega cannot be bundled: {one_line(done.stderr)}')
  return done.stdout


def specs(curves: Mapping[str, PyTree]) -> dict[str, dict[str, PyTree]]:
  """Panel -> its Vega-Lite specification, of those that have a curve; all on one axis of steps."""
  points, bounds, tags = (curves[key] for key in ('points', 'bounds', 'tags'))
  end = max((point['x'] for point in points), default=0)
  series = list(dict.fromkeys(point['series'] for point in points))
  found = {}
  for panel, title in PANELS.items():
    own = [point for point in points if point['panel'] == panel]
    if not own:
      continue
    names = list(dict.fromkeys(point['series'] for point in own))
    spec = json.loads(template('curve.vl.json'))
    spec['description'] = f'{title} against the steps of all stages, one behind the other'
    spec['datasets'] = {'points': own, 'bounds': bounds}
    spec['params'][0]['value'] = tags[0] if panel == 'loss' else ''
    colours = [COLOURS[series.index(name) % len(COLOURS)] for name in names]
    encoding = spec['encoding']
    encoding['x']['scale'] = {'domain': [0, 1.01 * end], 'nice': False}
    spec['layer'][1]['encoding']['y']['title'] = title
    spec['layer'][1]['encoding']['color']['scale'] = {'domain': names, 'range': colours}
    if panel != 'score':  # no line from the end of a stage to the beginning of the next
      spec['layer'][1]['encoding']['detail'] = {'field': 'stage', 'type': 'nominal'}
    found[panel] = spec
  return found
