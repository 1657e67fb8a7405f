"""The networks of a recipe against one of them, over seeds and images."""

from collections.abc import Sequence

from data_pipelines.errors import BadInput
from diga_jax.recipe import evaluation, graph
from diga_jax.recipe.experiment import Run
from diga_jax.report import paired, tables
from diga_jax.stages.kinds import kind_of
from diga_jax.storage.stage_folder import stage_and_choice


def check(run: Run, reference: str) -> None:
  """Refuses a reference that is not measured, or means that are no plain ones; raises BadInput."""
  known = networks(run)
  if reference not in known:
    raise BadInput(f'--against={reference}: is no row of a network: there are {", ".join(known)}')
  if evaluation.class_means(run).divisors:
    raise BadInput(
      f'--against={reference}: is for means over the classes that occur: set '
      "config.evaluation.class_means to 'present'"
    )


def networks(run: Run) -> list[str]:
  """The stages whose networks the config's protocol measures, in order."""
  measured = dict.fromkeys(name for name, _ in graph.measurements(run))
  return [
    name
    for name in measured
    if kind_of(run.stage(stage_and_choice(name)[0])).train_step is not None
  ]


def differences(runs: Sequence[Run], reference: str) -> dict[str, dict[str, paired.Difference]]:
  """Data set -> network -> its difference to the reference, of runs of the same recipe.

  Args:
    runs: complete and measured, one for each seed.
    reference: the stage whose network the others are compared with.

  Raises:
    BadInput: as `graph.counts_of`.
  """
  config = runs[0].config
  classes = evaluation.class_means(runs[0]).subsets.get(
    config.evaluation.mean, range(config.data.classes)
  )
  found = {}
  for key in config.evaluation.sets:
    theirs = graph.counts_of(runs, reference, key)
    found[key] = {
      name: paired.difference(graph.counts_of(runs, name, key), theirs, classes)
      for name in networks(runs[0])
      if name != reference
    }
  return found


def describe(runs: Sequence[Run], reference: str) -> str:
  """Markdown tables of `differences`, each with what it is of."""
  parts: list[tables.Part] = []
  for key, found in differences(runs, reference).items():
    parts.append(
      f'{key}: mIoU of each network minus that of {reference} in points, {len(runs)} seeds; 95% '
      'interval by bootstrap over seeds and images; p of the paired t-test over seeds.'
    )
    if len(runs) < paired.FEWEST:
      parts.append(
        f'Of fewer than {paired.FEWEST} seeds nothing is told of other seeds: the intervals are '
        'those of these images.'
      )
    parts.append(paired.table(found, reference))
  return tables.render_tables(parts, width=1000)
