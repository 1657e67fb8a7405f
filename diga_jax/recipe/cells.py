"""The cells of a study, one for each variant and seed, and the machines that work on them.

The working directory is the queue: a machine takes the next cell that is not complete, that nobody
holds (`storage.lease`) and that waits for nothing. A stage that several variants of a seed have in
common, by its identity, is made in the folder of the first of them; the others link to it.
"""

import collections
import contextlib
import dataclasses
import functools
import os
import pathlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from data_pipelines.errors import BadInput
from diga_jax import progress
from diga_jax.parallel import processes
from diga_jax.recipe import checks, graph
from diga_jax.recipe.experiment import Run
from diga_jax.recipe.variants import Variant
from diga_jax.storage import run_record, stage_folder
from diga_jax.storage.lease import Leases
from diga_jax.storage.stage_folder import stage_and_choice
from diga_jax.types import PyTree

PAUSE = 5.0  # seconds between two looks at what other machines have done
# (variant, stage) -> all variants that have it, in order.
Twins = dict[tuple[str, str], tuple[str, ...]]
Action = Literal['make', 'link', 'wait']


class Cell(NamedTuple):
  """A variant with a seed, in a folder of its own."""

  variant: str
  seed: int
  run: Run

  @property
  def name(self) -> str:
    return f'{self.variant}{"," * bool(self.variant)}seed_{self.seed}'


@dataclasses.dataclass(frozen=True)
class Study:
  """Cells by (variant, seed), those of a seed together, and what the variants have in common."""

  workdir: pathlib.Path
  cells: Mapping[tuple[str, int], Cell]
  twins: Twins = dataclasses.field(default_factory=dict)

  @property
  def variants(self) -> list[str]:
    return list(dict.fromkeys(variant for variant, _ in self.cells))

  @property
  def seeds(self) -> list[int]:
    return list(dict.fromkeys(seed for _, seed in self.cells))

  def runs(self, variant: str) -> list[Run]:
    """Those of a variant, one for each seed."""
    return [self.cells[variant, seed].run for seed in self.seeds]


def study(workdir: pathlib.Path, variants: Sequence[Variant], seeds: Sequence[int]) -> Study:
  """The cells WORKDIR/[VARIANT/]seed_N, with nothing in common as yet."""
  cells = {}
  for seed in seeds:
    for variant in variants:
      config = variant.config.copy_and_resolve_references()
      config.seed = seed
      run = Run(config, workdir / variant.name / f'seed_{seed}')
      cells[variant.name, seed] = Cell(variant.name, seed, run)
  return Study(workdir, cells)


def seeds_of(workdir: pathlib.Path, variants: Sequence[str], protocol: str) -> set[int]:
  """The seeds whose folders hold measurements of a protocol."""
  found = (
    place.parents[1].name
    for variant in variants
    for place in (workdir / variant).glob(f'seed_*/evaluation/{protocol}')
  )
  return {int(name[5:]) for name in found if re.fullmatch(r'seed_(0|[1-9]\d{0,18})', name)}


# What is looked at before the first step.


def check(cells: Study) -> tuple[Study, checks.Facts]:
  """Opens all that the cells read; returns the study with what variants have in common, and facts.

  Raises:
    BadInput: as `checks.check`; or variants are the same, are measured in different ways, or
      cells were made by other versions than the rest will be.
  """
  first = [cells.runs(variant)[0] for variant in cells.variants]
  facts: checks.Facts = {}
  for run in first:
    facts |= checks.check_recipe(run)
  for run in (run for variant in cells.variants for run in cells.runs(variant)[1:]):
    checks.check_folders(run, graph.stages_of(run), graph.measurements(run))  # they read the same
  check_measured_alike(dict(zip(cells.variants, first, strict=True)))
  digests = {
    (variant, stage): checks.expected_digests(run)(stage)
    for variant, run in zip(cells.variants, first, strict=True)
    for stage in graph.stages_of(run)
  }
  check_different(cells.variants, digests)
  by_digest = collections.defaultdict(list)
  for (variant, stage), digest in digests.items():
    by_digest[stage, digest].append(variant)
  twins = {key: tuple(by_digest[key[1], digest]) for key, digest in digests.items()}
  found = dataclasses.replace(cells, twins=twins)
  check_versions(found)
  return found, facts


def check_different(variants: Sequence[str], digests: Mapping[tuple[str, str], str]) -> None:
  """Refuses two variants all of whose stages are the same."""
  known: dict[frozenset[tuple[str, str]], str] = {}
  for variant in variants:
    own = frozenset((stage, digest) for (of, stage), digest in digests.items() if of == variant)
    if own in known:
      raise BadInput(
        f'the variants {known[own]!r} and {variant!r} are the same: no stage of config.recipe '
        'depends on what differs between them'
      )
    known[own] = variant


def check_measured_alike(runs: Mapping[str, Run]) -> None:
  """Refuses variants whose rows would be of different protocols."""
  (first, one), *others = runs.items()
  for name, other in others:
    ways, theirs = graph.way_of_measuring(one), graph.way_of_measuring(other)
    for field in sorted(ways.keys() | theirs.keys()):
      if ways.get(field) != theirs.get(field):
        raise BadInput(
          f'the variants {first!r} and {name!r} are measured in different ways: config.{field} is '
          f'{ways.get(field, "absent")} and {theirs.get(field, "absent")}: such rows are not '
          'compared; give a study of its own to each, with another config.evaluation.name'
        )


def check_versions(cells: Study) -> None:
  """Refuses stages that were made, or would be made now, by different versions."""
  if not processes.is_main_process():
    return
  now = {key: str(value) for key, value in run_record.versions().items()}
  to_do = [cell.name for cell in cells.cells.values() if not is_complete(cell)]
  known = [('the rest would be', now)] if to_do else []
  for cell in cells.cells.values():
    for found in run_record.made_by(cell.run.workdir):
      known.append((f'{cell.name} was', found))
  for what, found in known[1:]:
    for key, value in found.items():
      before = known[0][1].get(key, value)
      same = run_record.same_program(before, value) if key == 'commit' else before == value
      if not same:
        raise BadInput(
          f'{what} made with {key} {value or "unknown"}, {known[0][0]} with '
          f'{before or "unknown"}: they are not averaged; take the same version for all, '
          'or begin another --workdir'
        )


def is_complete(cell: Cell) -> bool:
  """Whether all stages of a cell are made and measured."""
  run = cell.run
  places = [run.workdir / name for name in graph.stages_of(run)]
  places += [graph.place_of(run, name, key) for name, key in graph.measurements(run)]
  return all((place / stage_folder.RECORD).exists() for place in places)


# The work.


def home_of(cells: Study, cell: Cell, name: str) -> Cell:
  """The cell in whose folder a stage is made: where it is complete, or begun, or the first."""
  twins = cells.twins.get((cell.variant, name), (cell.variant,))
  alike = [cells.cells[variant, cell.seed] for variant in twins]
  for folder in (name, f'{name}.partial'):
    for other in alike:
      if (other.run.workdir / folder / stage_folder.RECORD).exists():
        return other
  return alike[0]


def next_action(cells: Study, cell: Cell) -> tuple[Action, str] | None:
  """What is to be done for the first stage of a cell that is not complete, and which that is."""
  for name in graph.stages_of(cell.run):
    if not checks.is_complete(cell.run, name):
      home = home_of(cells, cell, name)
      if home is cell:
        return 'make', name
      return ('link' if checks.is_complete(home.run, name) else 'wait'), name
  return None


def advance(
  cells: Study, cell: Cell, after: Callable[[pathlib.Path], None] = lambda workdir: None
) -> None:
  """Makes the stages of a cell and measures them, until it waits for one of another cell.

  `after` is called with its working directory after each stage and at the end.
  """
  workdir, config = cell.run.workdir, cell.run.config.to_dict()
  with (
    stage_folder.lock(workdir),
    run_record.recorded(workdir, config),
    progress.within(cell.variant),
  ):
    while found := told(functools.partial(next_action, cells, cell)):
      action, name = found
      if action == 'wait':
        return
      if action == 'make':
        graph.run_stage(cell.run, name)
      else:
        home = home_of(cells, cell, name).run
        link(home.workdir / name, cell.run.workdir / name, graph.identity(cell.run, name))
      after(workdir)
    for name, key in graph.measurements(cell.run):
      if found := told(functools.partial(measured_at, cells, cell, name, key)):
        needed = graph.dependencies(cell.run, name, key)
        link(found, graph.place_of(cell.run, name, key), needed)
    graph.evaluate(cell.run)
    after(workdir)


def measured_at(cells: Study, cell: Cell, name: str, key: str) -> pathlib.Path | None:
  """Where a stage that a cell has in common has been measured, if it has not in its own folder."""
  twins = (cell.variant, *cells.twins.get((cell.variant, stage_and_choice(name)[0]), ()))
  places = [graph.place_of(cells.cells[each, cell.seed].run, name, key) for each in twins]
  found = [place for place in places if (place / stage_folder.RECORD).exists()]
  return found[0] if found and found[0] != places[0] else None


def link(made: pathlib.Path, directory: pathlib.Path, identity: Mapping[str, PyTree]) -> None:
  """Makes a complete folder a folder of another working directory; `identity`: as it is there."""
  stage_folder.check_link(directory)
  stage_folder.check_same(made, identity)
  if processes.is_main_process():
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.symlink_to(os.path.relpath(made.resolve(), directory.parent.resolve()))
  processes.barrier(f'{directory.name} is linked')


def work(
  cells: Study, begin: int = 0, after: Callable[[pathlib.Path], None] = lambda workdir: None
) -> None:
  """Makes what is not complete of a study, together with the machines that do the same.

  Args:
    cells: checked.
    begin: the position of the cell to begin with, so that not all machines want the same ones.
    after: as of `advance`.
  """
  ordered = list(cells.cells.values())
  ordered = ordered[begin:] + ordered[:begin]
  leases, shown = Leases(cells.workdir / 'study' / 'queue'), ''
  while True:
    with contextlib.ExitStack() as held:
      found = told(functools.partial(take, cells, ordered, leases, held))
      if found is None:
        return
      if found >= 0:
        advance(cells, ordered[found], after)
        continue
    shown = say_waiting(ordered, leases, shown)
    time.sleep(PAUSE)


def take(
  cells: Study, ordered: Sequence[Cell], leases: Leases, held: contextlib.ExitStack
) -> int | None:
  """The position of a cell that can be worked on, now held; -1 for none yet, None for all done."""
  waiting = [position for position, cell in enumerate(ordered) if not is_complete(cell)]
  for position in waiting:
    cell = ordered[position]
    found = next_action(cells, cell)
    if found and found[0] == 'wait':
      continue
    # Another machine may just have ended it.
    if held.enter_context(leases.take(cell.name)) and not is_complete(cell):
      return position
  return -1 if waiting else None


def say_waiting(ordered: Sequence[Cell], leases: Leases, before: str) -> str:
  """Prints whom this machine waits for, if that is news."""
  if not processes.is_main_process():
    return ''
  names = [cell.name for cell in ordered if not is_complete(cell)]
  text = ', '.join(f'{name} ({leases.holder(name)})' for name in names if leases.holder(name))
  if text and text != before:
    print(f'waiting for what other machines make: {text}', flush=True)
  return text


def told(decide: Callable[[], PyTree]) -> PyTree:
  """What the main process decides, in all of them: others may see a shared disk later."""
  return processes.exchange(decide() if processes.is_main_process() else None)[0]


# The rows.


class TableRow(NamedTuple):
  """A row of the tables: a stage of a variant, which may be that of other variants too.

  Attributes:
    name: STAGE if there is one variant or all have it; else VARIANT/STAGE.
    variant, stage: whose folder it is read from.
    others: further names of it.
  """

  name: str
  variant: str
  stage: str
  others: tuple[str, ...] = ()


def table_rows(cells: Study) -> list[TableRow]:
  """What is measured of all variants, in order, everything once."""
  found = []
  for variant in cells.variants:
    run = cells.runs(variant)[0]
    for stage in dict.fromkeys(name for name, _ in graph.measurements(run)):
      twins = cells.twins.get((variant, stage_and_choice(stage)[0]), (variant,))
      if variant == twins[0]:
        names = [f'{twin}/{stage}' if twin else stage for twin in twins]
        names = [stage, *names] if len(twins) == len(cells.variants) > 1 else names
        found.append(TableRow(names[0], variant, stage, tuple(names[1:])))
  return found


def measured(cells: Study) -> list[list[PyTree]]:
  """The rows of every seed, of complete cells, under the names of `table_rows`."""
  wanted = {(row.variant, row.stage): row.name for row in table_rows(cells)}
  return [
    [
      {**row, 'name': wanted[variant, row['name']]}
      for variant in cells.variants
      for row in graph.evaluate(cells.cells[variant, seed].run)
      if (variant, row['name']) in wanted
    ]
    for seed in cells.seeds
  ]


def networks(cells: Study) -> Iterator[TableRow]:
  """The rows that are networks."""
  for row in table_rows(cells):
    if graph.is_network(cells.runs(row.variant)[0], row.stage):
      yield row


def describe(cells: Study) -> dict[str, str]:
  """The variants of a study, and which stages several of them have in common."""
  facts = {}
  if cells.variants != ['']:
    facts['variants'] = ', '.join(cells.variants)
  for (variant, stage), twins in cells.twins.items():
    if len(twins) > 1 and variant == twins[0]:
      others = f'{facts[key]}; ' if (key := f'in common {stage}') in facts else ''
      facts[key] = f'{others}of {", ".join(twins)}: made once for each seed'
  return facts
