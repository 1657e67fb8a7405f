"""What a card says of a network: where it comes from and what was measured of it."""

import glob
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ml_collections import ConfigDict

from data_pipelines.errors import BadInput
from diga_jax.recipe import provenance
from diga_jax.stages.kinds import is_chosen
from diga_jax.storage import passport, stage_folder
from diga_jax.storage.stage_folder import stage_and_choice
from diga_jax.types import PyTree

PARTIAL = '.partial'
# What the paths of public data sets have in them (configs/datasets.py), and the sets' names. All of
# them but CamVid, of which no licence is stated, are for research or non-commercial use.
SETS = {
  'GTA5': 'GTA5', 'SYNTHIA': 'SYNTHIA', 'cityscapes': 'Cityscapes', 'bdd100k': 'BDD100K',
  'mapillary': 'Mapillary Vistas', 'Oxford_Robot': 'Oxford RobotCar', 'CamVid': 'CamVid',
  'acdc': 'ACDC', 'dark_zurich': 'Dark Zurich',
}  # fmt: skip


class Measured(NamedTuple):
  """A measurement of the network.

  Attributes:
    folder: WORKDIR/evaluation/PROTOCOL/STAGE/SET.
    content: of its passport.
  """

  folder: pathlib.Path
  content: Mapping[str, PyTree]

  @property
  def name(self) -> str:
    """PROTOCOL/SET, which no other measurement of the network has."""
    return f'{self.folder.parents[1].name}/{self.folder.name}'

  @property
  def oracle(self) -> bool:
    """Whether labels of the target chose the weights that were measured."""
    return self.content['protocol'].get('chosen_by') == 'oracle'


class Facts(NamedTuple):
  """What is known of a network of a working directory.

  Attributes:
    stage: its stage, or STAGE@CHOICE.
    network: student or teacher.
    chosen_by: how its checkpoint was chosen.
    seed: that it was trained with.
    stages: `provenance.origin` of its stage and of all that this one was made from, which come
      first, as far as their folders are still there.
    measured: its measurements, those of the config's protocol first.
    others: measurements of the other one of student and teacher.
    sets: public data sets that it was trained on, by name.
    starts: files of weights that its stages started from: name -> SHA-256.
  """

  stage: str
  network: str
  chosen_by: str
  seed: int | None
  stages: dict[str, dict[str, PyTree]]
  measured: list[Measured]
  others: int
  sets: list[str]
  starts: dict[str, str]

  @property
  def oracle(self) -> bool:
    """Whether labels of the target chose the weights."""
    return self.chosen_by == 'oracle' or any(each.oracle for each in self.measured)


def trained_stages(config: ConfigDict) -> list[str]:
  """The stages of the recipe that train a segmentation network; raises BadInput for none."""
  trained = [name for name in config.recipe if is_chosen(config.stages[name])]
  if not trained:
    raise BadInput('config.recipe trains no segmentation network: name a --stage')
  return trained


def collect(workdir: pathlib.Path, name: str, config: ConfigDict) -> Facts:
  """The facts of the network STAGE or STAGE@CHOICE of a working directory.

  Raises:
    BadInput: a record is damaged, a measurement has no passport, or is of another training.
  """
  directory, step, chosen_by = stage_folder.network_of(workdir / name)
  identity = stage_folder.read_record(directory)['identity']
  network = config.evaluation.network
  found = list(measurements(workdir, name))
  for each in found:
    check_same_network(each, identity, step)
  own = [each for each in found if each.content['protocol'].get('network') == network]
  own.sort(key=lambda each: each.folder.parents[1].name != config.evaluation.name)
  made = {each: stage_folder.read_record(workdir / each) for each in ancestors(workdir, directory)}
  identities = [record['identity'] for record in made.values()]
  stages = {
    each: provenance.origin(workdir, each, record['result'].get('step'), 'network')
    for each, record in made.items()
    if each != directory.name
  }
  stages[directory.name] = provenance.origin(workdir, directory.name, step, 'network')
  return Facts(
    stage=name,
    network=network,
    chosen_by=chosen_by or '',
    seed=identity.get('seed'),
    stages=stages,
    measured=own,
    others=len(found) - len(own),
    sets=public_sets(identities),
    starts=starts(identities),
  )


def measurements(workdir: pathlib.Path, name: str) -> Iterator[Measured]:
  """The complete measurements of STAGE or STAGE@CHOICE; raises BadInput.

  STAGE is the same as STAGE@CHOICE where the stage's own choice is that one.
  """
  directory, _, chosen_by = stage_folder.network_of(workdir / name)
  names = [f'{directory.name}@{chosen_by}']
  if stage_folder.network_of(directory).chosen_by == chosen_by:
    names.insert(0, directory.name)
  seen: set[tuple[str, str]] = set()
  for each in names:
    for folder in sorted(workdir.glob(f'evaluation/*/{glob.escape(each)}/*')):
      key = folder.parents[1].name, folder.name
      whole = not folder.name.endswith(PARTIAL) and (folder / stage_folder.RECORD).exists()
      if whole and key not in seen:
        seen.add(key)
        yield Measured(folder, passport.read(passport.find(folder)))


def check_same_network(
  measured: Measured, identity: Mapping[str, PyTree], step: int | None
) -> None:
  """Refuses a copied or renamed measurement, and one of another training than a stage records."""
  protocol = measured.content['protocol']
  if (own := f'{protocol.get("protocol")}/{protocol.get("data")}') != measured.name:
    raise BadInput(f'{measured.folder}: is a copy of {own}, or was renamed: move it away')
  made_from = measured.content['made_from']
  if (made_from.get('stage'), made_from.get('step')) != (stage_folder.hash_of(identity), step):
    raise BadInput(
      f'{measured.folder}: is of another network than its stage holds: move it away, and run '
      '`evaluate`'
    )


def ancestors(workdir: pathlib.Path, directory: pathlib.Path) -> list[str]:
  """A stage and the stages that it was made from and that are there, each behind its inputs."""
  order: list[str] = []

  def visit(name: str, above: tuple[str, ...]) -> None:
    place = workdir / name
    if name in order or name in above or not (place / stage_folder.RECORD).exists():
      return
    identity = stage_folder.read_record(place)['identity']
    for key in sorted(identity):
      if key.startswith('input.'):
        visit(stage_and_choice(key.removeprefix('input.'))[0], (*above, name))
    order.append(name)

  visit(directory.name, ())
  return order


def public_sets(identities: list[dict[str, PyTree]]) -> list[str]:
  """The names of the public data sets that stages read."""
  places = [
    str(value)
    for identity in identities
    for key, value in identity.items()
    if key.startswith('data.sets.') and key.endswith('.images')
  ]
  return [name for part, name in SETS.items() if any(part in place for place in places)]


def starts(identities: list[dict[str, PyTree]]) -> dict[str, str]:
  """The files of weights that stages read: name, without its folder -> SHA-256."""
  found: dict[str, str] = {}
  for identity in identities:
    for key, value in identity.items():
      if key.startswith('files.') and value:
        field = key.removeprefix('files.')
        place = str(identity.get(field, identity.get(f'stage.{field.rpartition(".")[2]}', field)))
        found[os.path.basename(place) or field] = str(value)
  return found
