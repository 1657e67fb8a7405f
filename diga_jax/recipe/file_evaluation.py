"""The evaluation of a file of weights, such as a downloaded checkpoint, without any stage.

OUTPUT/PROTOCOL/SET/ holds what a measurement of a stage does: metrics.json, passport.json,
images.npz and pictures/. The SHA-256 of the weights is part of what it depends on, so that another
file, or another way of measuring, is refused there.
"""

import pathlib

from data_pipelines import sets
from data_pipelines.errors import BadInput
from diga_jax import weights
from diga_jax.config import flatten
from diga_jax.inference.forward import Predictor
from diga_jax.parallel import processes
from diga_jax.recipe import checks, evaluation, graph, networks, provenance
from diga_jax.recipe.experiment import Experiment
from diga_jax.storage import passport, stage_folder
from diga_jax.types import NetworkRow, PyTree

OTHER_OUTPUT = 'give another --output'
PARENT = 'evaluation_of_weights'  # of the outputs that nobody names


def default_output(file: str) -> pathlib.Path:
  """Where the evaluation of a file goes if nobody says: a folder of its name in the current one."""
  return pathlib.Path(PARENT) / name_of(file)


def name_of(file: str) -> str:
  """What the network of FILE[#PART] is called in tables, and its folder."""
  path, part = weights.split(file)
  return f'{path.stem}_{part}'.replace('/', '_') if part else path.stem


def check(
  experiment: Experiment, file: str, output: pathlib.Path
) -> tuple[Predictor, checks.Facts]:
  """The network of a file, and what was looked at: the file, and the sets that are measured.

  Raises:
    BadInput: the file does not hold the whole network, a set has no labels or cannot be read,
      there is nothing to measure, or `output` has another measurement or is a data set's folder.
  """
  config, facts = experiment.config, {}
  if not config.evaluation.sets:
    raise BadInput('config.evaluation.sets is (): there is nothing to measure: name labelled sets')
  stage_folder.check_output(output)
  for name, settings in config.data.sets.items():
    sets.check_pictures(settings, name, config.data.root, str(output))
  checks.check_labels(experiment)
  network = networks.of_file(config, file)
  facts[f'weights {file}'] = network.taken
  for key in config.evaluation.sets:
    facts[f'data.sets.{key}'] = checks.check_set(experiment, key, labelled=True, whole=True)
  for key in config.evaluation.sets:
    place = place_of(experiment, output, key)
    begun = place.with_name(f'{place.name}.partial')
    for folder in (place, begun):
      if (folder / stage_folder.RECORD).exists():
        stage_folder.check_same(folder, identity(experiment, file, key), OTHER_OUTPUT)
  return network.predictor, facts


def evaluate(
  experiment: Experiment, file: str, predictor: Predictor, output: pathlib.Path
) -> list[NetworkRow]:
  """Measures a network on all sets of the protocol, each once; returns their rows.

  Raises:
    BadInput: `output` holds the measurement of another file, or a set's files are wrong.
  """
  keys = experiment.config.evaluation.sets
  return [measure(experiment, file, predictor, output, key) for key in keys]


def measure(
  experiment: Experiment, file: str, predictor: Predictor, output: pathlib.Path, key: str
) -> NetworkRow:
  """One measurement, made once: its metrics.json and passport."""
  known, digest = identity(experiment, file, key), weights.file_digest(file)
  facts = evaluation.protocol_on(experiment, key) | {'weights_sha256': digest}

  def build(directory: pathlib.Path) -> NetworkRow:
    found = evaluation.measure_network(experiment, predictor, key, facts, directory)
    row: NetworkRow = {'name': name_of(file), **found}
    if processes.is_main_process():
      stage_folder.write_metrics(directory / 'metrics.json', row)
      content = provenance.describe_file(experiment, file, digest, key, row)
      passport.write(directory, {**content, 'measurement': stage_folder.hash_of(known)})
    return row

  place = place_of(experiment, output, key)
  row = stage_folder.produce(place, known, build, OTHER_OUTPUT)
  stage_folder.check_files(place, 'metrics.json')
  return row


def identity(experiment: Experiment, file: str, key: str) -> dict[str, PyTree]:
  """All that a measurement of a file of weights depends on, flat."""
  found = {
    'weights': weights.file_digest(file),
    'padding': graph.padding_of(experiment, key),
    **graph.measurement_on(experiment, key),
  }
  del found['evaluation']['network']  # student or teacher: FILE#PART tells
  return flatten(found)


def place_of(experiment: Experiment, output: pathlib.Path, key: str) -> pathlib.Path:
  """The folder of one measurement."""
  return output / experiment.config.evaluation.name / key
