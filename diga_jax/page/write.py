"""Writes pages: of one working directory, or of several beside each other."""

import datetime
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import jinja2
import markupsafe
from absl import logging

from data_pipelines import atomic
from data_pipelines.errors import BadInput, line_of
from diga_jax.page import charts, comparison, facts, results, strip, working_directory
from diga_jax.page.working_directory import PAGE, Measurement, WorkingDirectory
from diga_jax.parallel import processes
from diga_jax.storage import run_record, stage_folder
from diga_jax.types import PyTree

GENERATOR = 'diga_jax'
TOP = ('stages', 'seed', 'begun', 'last start', 'starts', 'hours', 'commit', 'devices', 'cores')
SECTIONS = {
  'problems': 'Problems', 'runs': 'Runs', 'differences': 'Differences', 'results': 'Results',
  'made': 'What was run', 'recipe': 'Recipe', 'curves': 'Curves', 'classes': 'Classes',
  'pictures': 'Pictures', 'confusion': 'Confusion', 'labels': 'Pseudo-labels',
}  # fmt: skip


def update(workdir: pathlib.Path) -> None:
  """Writes the page of a run that is at work; by one process. A failure is a warning."""
  attempt(lambda path: write_run(workdir, path), workdir / PAGE)


def update_comparison(workdirs: Sequence[pathlib.Path], path: pathlib.Path) -> bool:
  """Writes the page of the runs of a study, as `update`; returns whether it is there."""
  return attempt(lambda path: write_comparison(workdirs, path), path)


def attempt(make: Callable[[pathlib.Path], PyTree], path: pathlib.Path) -> bool:
  """Makes a page, by one process; a failure is a warning. Returns whether it was made."""
  if not processes.is_main_process():
    return False
  try:
    make(path)
  except Exception as error:  # nothing that is only looked at may end a run
    logging.warning('%s is not written: %s', path, line_of(error))
    return False
  return True


def write_run(workdir: pathlib.Path, path: pathlib.Path) -> list[str]:
  """Writes the page of a working directory; returns what could not be read, a line each.

  Raises:
    BadInput: it is no working directory, or the page cannot be written.
  """
  working_directory.check_is_one(workdir)
  check_output(path)
  run = working_directory.read(workdir)
  write(path, page_of_run(run))
  return run.problems


def write_comparison(workdirs: Sequence[pathlib.Path], path: pathlib.Path) -> list[str]:
  """Writes one page of several working directories; returns what could not be read.

  Raises:
    BadInput: one is no working directory or named twice, or the page cannot be written.
  """
  for workdir in workdirs:
    working_directory.check_is_one(workdir)
  check_output(path)
  runs = [working_directory.read(workdir) for workdir in workdirs]
  write(path, page_of_runs(runs))
  return list(itertools.chain(*(run.problems for run in runs)))


def write(path: pathlib.Path, text: str) -> None:
  """Writes a page, in UTF-8 whatever the locale and the names of files."""
  with atomic.replacing(path) as temporary:
    temporary.write_bytes(text.encode('utf-8', 'backslashreplace'))


def check_output(path: pathlib.Path) -> None:
  """Refuses a place where a page may not be: in a stage's folder, or over another file."""
  stage_folder.check_output(path)
  if not os.path.lexists(path):
    return
  if path.is_file():
    with path.open('rb') as file:
      if f'content="{GENERATOR}'.encode() in file.read(2000):
        return
  raise BadInput(f'{path}: exists and is no page of this package: rename it, or give --output')


def page_of_run(run: WorkingDirectory) -> str:
  """The page of a working directory, as HTML."""
  curves = results.curves(run)
  specs = charts.specs(curves)
  strips = strip.strips(run)
  content = {
    'run': run,
    'top': TOP,
    'results': results.result_tables(run.measurements),
    'while_training': results.tables_while_training(run),
    'warnings': results.warnings(run),
    'summary': facts.summary(run),
    'costs': facts.costs(run),
    'changed': facts.changed_fields(run),
    'differing': facts.differing(run),
    'graph': facts.graph(run.stages),
    'duration': facts.duration,
    'specs': specs,
    'tags': curves['tags'],
    'classes': results.class_tables(run.measurements),
    'strips': strips,
    'confusions': results.confusion_tables(run.measurements),
    'audits': results.audit(run),
  }
  data = {'specs': specs, 'strips': [each.data() for each in strips]}
  return render('run.html.jinja', run.name, state_of(run), data, content)


def page_of_runs(runs: Sequence[WorkingDirectory]) -> str:
  """The page of several working directories beside each other, as HTML."""
  names = comparison.names_of(runs)
  groups = comparison.groups_of(names, runs)
  curves = [results.curves(run, name) for run, name in zip(runs, names, strict=True)]
  together = {
    'points': [point for each in curves for point in each['points']],
    'bounds': max((each['bounds'] for each in curves), key=len),
    'tags': list(dict.fromkeys(tag for each in curves for tag in each['tags'])),
  }
  measurements = [
    each._replace(row={**each.row, 'name': f'{name}: {each.name}'}, name=f'{name}: {each.name}')
    for run, name in zip(runs, names, strict=True)
    for each in run.measurements
  ]
  specs = charts.specs(together)
  content = {
    'runs': comparison.runs_table(names, runs),
    'differences': comparison.difference_tables(groups),
    'left_out': comparison.left_out(names, runs),
    'results': results.result_tables(measurements),
    'classes': results.class_tables(last_networks(measurements)),
    'specs': specs,
    'tags': together['tags'],
  }
  pairs = zip(runs, names, strict=True)
  content['lines'] = [f'{name}: {line}' for run, name in pairs for line in run.problems]
  title, state = f'{len(runs)} runs', ', '.join(names)
  return render('comparison.html.jinja', title, state, {'specs': specs}, content)


def last_networks(measurements: Sequence[Measurement]) -> list[Measurement]:
  """Of each run and data set the last network, which the recipe is for."""
  networks = [each for each in measurements if each.row['kind'] == 'network']
  last = {(each.protocol, each.key, each.folder.parents[3]): each for each in networks}
  return list(last.values())


def state_of(run: WorkingDirectory) -> str:
  """How far a run is, in a line."""
  complete = sum(stage.state == 'complete' for stage in run.stages)
  if not run.stages:
    return 'nothing has been run here yet'
  if complete == len(run.stages):
    measured = len({each.name for each in run.measurements})
    return f'all {complete} stages complete, {measured} of them measured'
  begun = [stage for stage in run.stages if stage.state == 'begun']
  at = ''.join(
    f'; {stage.name} begun' + (f', step {stage.done} of {stage.steps}' if stage.steps else '')
    for stage in begun
  )
  return f'{complete} of {len(run.stages)} stages complete{at}'


def render(name: str, title: str, state: str, data: PyTree, content: Mapping[str, PyTree]) -> str:
  """A page from a template of templates/."""
  environment = jinja2.Environment(
    loader=jinja2.FunctionLoader(charts.template),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  library = as_script(charts.vega()) if data['specs'] else ''
  options = {
    'generator': f'{GENERATOR} {run_record.versions()[GENERATOR]}',
    'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
    'title': title,
    'state': state,
    'style': markupsafe.Markup(charts.template('style.css')),
    'script': as_script(charts.template('page.js')),
    'library': library,
    'sections': SECTIONS,
    # In a script '<' may only stand where no tag can begin.
    'data': markupsafe.Markup(json.dumps(data, allow_nan=False).replace('<', '\\u003c')),
  }
  return environment.get_template(name).render(options, **content)


def as_script(text: str) -> markupsafe.Markup:
  """JavaScript that may stand in an element <script>."""
  return markupsafe.Markup(text.replace('</script', '<\\/script').replace('<!--', '<\\!--'))
