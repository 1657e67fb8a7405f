"""Writes the card of a network: a folder for the Hugging Face Hub."""

import os
import pathlib
import shutil
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from data_pipelines import atomic
from data_pipelines.errors import BadInput, one_line
from diga_jax import weights
from diga_jax.card import facts, folder, onnx, readme, sample
from diga_jax.card.facts import Facts
from diga_jax.models import deeplab, ocr, segformer
from diga_jax.page import working_directory
from diga_jax.recipe import hub_config, networks
from diga_jax.recipe.experiment import Experiment
from diga_jax.storage import passport, run_record, stage_folder
from diga_jax.types import PyTree, Size, Variables

# The networks that network.py has.
IN_PYTORCH = (
  deeplab.ResNetDeepLab, deeplab.HiastDeepLab, deeplab.EfficientNetDeepLab, ocr.HrNetOcr,
  segformer.SegFormer, segformer.DaFormer,
)  # fmt: skip


class Options(NamedTuple):
  """How a card is written.

  Attributes:
    network: student or teacher; None: that of the config's evaluation.
    licence: the Hub's word for a licence.
    onnx: (height, width) of the images of an ONNX file; None: none is written.
    picture: whether images of the evaluation are shown.
    overwrite: whether a card that is there already is replaced.
  """

  network: str | None = None
  licence: str = readme.UNKNOWN
  onnx: Size | None = None
  picture: bool = True
  overwrite: bool = False


class Source(NamedTuple):
  """The network that a card is of.

  Attributes:
    experiment: its config.
    facts: what is known of it.
    arrays: its state dict under PyTorch's names.
    variables: the same as Flax has it.
  """

  experiment: Experiment
  facts: Facts
  arrays: dict[str, np.ndarray]
  variables: Variables

  @property
  def in_pytorch(self) -> bool:
    """Whether network.py has this network."""
    return type(self.experiment.model) in IN_PYTORCH


def write(
  workdir: pathlib.Path,
  output: pathlib.Path,
  stage: str | None = None,
  config: ConfigDict | None = None,
  options: Options | None = None,
  say: Callable[[str], None] = print,
) -> None:
  """Writes the card of a network of a working directory.

  Args:
    workdir: of a run.
    output: a new or empty folder, or with `overwrite` one that holds a card; files in it that are
      no part of the card are kept.
    stage: STAGE or STAGE@CHOICE; None: the last one of the recipe that trains a network.
    config: None: that which the stage was made with (run.json).
    options: None: the defaults.
    say: is given lines for the user.

  Raises:
    BadInput: there is no complete stage, one of its files is damaged, the folder holds what others
      have made or cannot be written, or the ONNX file differs from the network.
  """
  options = options or Options()
  output = pathlib.Path(os.path.realpath(output))
  if output == pathlib.Path(os.path.realpath(workdir)):
    raise BadInput(f'--output: {output} is the working directory: give another folder')
  stage_folder.check_output(output)
  folder.clear_remains(output)
  folder.written_before(output, options.overwrite)  # a mistake ends before the work
  source = read(workdir, stage, config, options)
  if not source.in_pytorch:
    name = source.experiment.config.model.name
    if options.onnx is not None:
      raise BadInput(f'--onnx: {name} has no PyTorch form, of which ONNX files are made')
    say(f'{name} has no PyTorch form: the card is written without {folder.NETWORK}')
  if options.onnx is not None:
    onnx.check_possible(options.onnx, source.experiment.config.data.classes)
  drawn = sample.draw(source.facts.measured) if options.picture else None
  with folder.new_folder(output) as place:
    contents = fill(place, source, drawn, options)
    folder.publish(place, output, options.overwrite)
  for line in told(output, source.facts, contents, options):
    say(line)


def read(
  workdir: pathlib.Path, stage: str | None, config: ConfigDict | None, options: Options
) -> Source:
  """The network of a stage, and what is known of it; arguments and errors as of `write`."""
  working_directory.check_is_one(workdir)
  if stage is None:
    known = ConfigDict(run_record.config_of(workdir, '')) if config is None else config
    *before, stage = facts.trained_stages(known)
    if stage not in (complete := stage_folder.stages_in(workdir)):
      whole = [name for name in before if name in complete]
      others = f', or give the --stage: {", ".join(whole)}' if whole else ''
      raise BadInput(f'{workdir / stage}: the stage is not complete: run it first{others}')
  settings = networks.settings_of(workdir, stage, config)
  try:
    settings.evaluation.network = options.network or settings.evaluation.network
    experiment = Experiment(settings)
  except (BadInput, AttributeError) as error:
    if config is not None:
      raise
    place, why = workdir / run_record.NAME, one_line(error)
    raise BadInput(f'{place}: holds a config of another version ({why}): give --config') from None
  arrays = weights.read_stage(workdir / stage, settings.evaluation.network)
  variables, _ = weights.fit(experiment.shapes, arrays, workdir / stage)
  return Source(experiment, facts.collect(workdir, stage, settings), arrays, variables)


def fill(
  place: pathlib.Path, source: Source, drawn: sample.Sample | None, options: Options
) -> readme.Contents:
  """Writes all files of a card into an empty folder; returns what there is."""
  weights.save(place / hub_config.WEIGHTS, source.arrays)
  if source.in_pytorch:
    shutil.copyfile(pathlib.Path(__file__).with_name(folder.NETWORK), place / folder.NETWORK)
  for each in source.facts.measured:
    file = place / folder.PASSPORTS / f'{each.name}.json'
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(each.folder / passport.NAME, file)
  if drawn is not None:
    atomic.write_png(place / folder.PICTURE, drawn.picture)
  content = hub_config.describe(source.experiment) | {'training': training(source.facts)}
  whole, exported = folder.write_config(place, content), None
  if options.onnx is not None:
    found = onnx.write(place, source.experiment, source.variables, options.onnx)
    exported = readme.Onnx(options.onnx, found)
  contents = readme.Contents(source.in_pytorch, drawn, exported)
  text = readme.write(whole, source.facts, contents, options.licence)
  atomic.write_text(place / folder.README, text)
  folder.write_config(place, content)
  return contents


def training(known: Facts) -> dict[str, PyTree]:
  """What config.json holds of the training, without the folders of the machine it was done on."""
  return {
    'stage': known.stage,
    'network': known.network,
    'seed': known.seed,
    'chosen_by': known.chosen_by,
    'public_sets': known.sets,
    'started_from': known.starts,
    'stages': {name: without_folders(made) for name, made in known.stages.items()},
  }


def without_folders(value: PyTree) -> PyTree:
  """A tree of JSON in which files are named without their folders."""
  if isinstance(value, dict):
    return {key: without_folders(each) for key, each in value.items()}
  if isinstance(value, list):
    return [without_folders(each) for each in value]
  is_path = isinstance(value, str) and value.startswith(('/', '~'))
  return os.path.basename(value.rstrip('/')) if is_path else value


def told(
  output: pathlib.Path, known: Facts, contents: readme.Contents, options: Options
) -> list[str]:
  """What the user is told of a card, a line each."""
  count = len(known.measured)
  lines = [
    f'{output}: {known.network} of {known.stage}, {count} measurement{"s" * (count != 1)}, licence '
    f'{options.licence}'
  ]
  if options.licence == readme.UNKNOWN:
    lines.append('licence: none is chosen; give --license=ID before you publish it')
  if not count:
    lines.append('results: nothing has been measured of this network; run `evaluate` for numbers')
  if known.oracle:
    lines.append('oracle: labels of the target chose these weights, as the card says')
  if contents.picture is not None:
    images, name = contents.picture.images, contents.picture.data
    lines.append(
      f'{folder.PICTURE}: shows {images} image{"s" * (images > 1)} of {name}; leave it out by '
      '--no_picture unless you may publish them'
    )
  if contents.onnx is not None:
    lines.append(f'{folder.ONNX}: its logits differ by {contents.onnx.difference:.2g} at most')
  return lines
