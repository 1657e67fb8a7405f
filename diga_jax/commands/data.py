"""doctor and prepare: data sets inspected, and packed into shards."""

import argparse
import pathlib
from collections.abc import Iterator

import numpy as np
from ml_collections import ConfigDict

from data_pipelines import atomic, sets
from data_pipelines import doctor as examination
from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder
from diga_jax import progress
from diga_jax.recipe import labels
from diga_jax.recipe.experiment import Experiment, class_names, palette
from diga_jax.report import tables
from diga_jax.report.pictures import comparison_panels
from diga_jax.storage import stage_folder


def doctor(arguments: argparse.Namespace, config: ConfigDict) -> int:
  """Reads every file of the folders of data.sets; 1 if anything is wrong with them."""
  experiment = Experiment(config, None)
  data, sets_with_findings = config.data, 0
  for name, settings in folders(arguments, config):
    folder = opened(name, settings, data, check=False)
    with progress.bar(len(folder), f'reading {name}') as bar:
      files = list(
        examination.inspect_all(folder, arguments.jobs, on_file=lambda bar=bar: bar.update(1))
      )
    found = examination.examine(folder, class_names(experiment), files)
    path = examination.manifest_path(data.cache, name, settings, data.root)
    stage_folder.write_metrics(path, found.manifest)
    print(tables.render_report(name, found, class_names(experiment), settings['table']))
    readable = [index for index, file in enumerate(files) if not file.problems]
    pictures = pathlib.Path(path).with_suffix('')
    draw_samples(experiment, folder, readable, pictures)
    print(f'manifest: {path}\nsamples with their labels: {pictures}\n')
    sets_with_findings += bool(found.findings)
  return int(sets_with_findings > 0)


def draw_samples(
  experiment: Experiment, images: Folder, readable: list[int], place: pathlib.Path, count: int = 3
) -> None:
  """Pictures of some images, evenly spread, beside their labels as they are read."""
  for index in np.linspace(0, len(readable) - 1, min(count, len(readable))).round().astype(int):
    image, label = images.read(readable[index])
    picture = comparison_panels(
      image,
      truth=label,
      palette=palette(experiment),
      names=class_names(experiment),
    )
    atomic.write_png(place / f'{images.ids[readable[index]]}.png', picture)


def folders(arguments: argparse.Namespace, config: ConfigDict) -> Iterator[tuple[str, dict]]:
  """(name, settings) of the sets asked for, all by default, that are files on disk."""
  data = config.data
  for name in arguments.sets or ():
    if name not in data.sets:
      raise BadInput(f'--sets: there is no {name!r} in data.sets: it has {", ".join(data.sets)}')
  for name in arguments.sets or data.sets:
    settings = data.sets[name].to_dict()
    if settings['kind'] == 'folder':
      yield name, settings | {'shards': ''}
    else:
      print(f'{name}: rendered scenes, which need no {arguments.command}\n')


def opened(name: str, settings: dict, data: ConfigDict, check: bool) -> Folder:
  """A set with its labels, if it has any."""
  return sets.open_set(
    settings,
    name=name,
    root=data.root,
    cache=data.cache,
    classes=data.classes,
    labelled=bool(settings['labels']),
    check=check,
  )


def prepare(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Packs data sets, or a label stage's labels, into shards."""
  from data_pipelines import prepare as packing  # TensorFlow Datasets takes seconds to import

  if arguments.stage:
    if not arguments.workdir:
      raise BadInput('--stage: give the --workdir that the stage is in')
    experiment = Experiment(config, arguments.workdir)
    stage, made = experiment.stage(arguments.stage), arguments.workdir / arguments.stage
    stage_folder.read_record(made)
    target = experiment.images(stage.target, labelled=False)
    labelled = target.with_labels(str(made / 'labels' / '{id}.png'))
    place = made / labels.LABEL_SHARDS
    with stage_folder.locked(arguments.workdir):
      _prepared(packing, arguments, labelled, place, None, images='none')
    print(f'{arguments.stage}: its labels are read from {place}')
    return
  if not arguments.output:
    raise BadInput('--output: give the folder that the shards are to go to')
  data = config.data
  for name, settings in folders(arguments, config):
    folder = opened(name, settings, data, check=True)
    path = examination.manifest_path(data.cache, name, settings, data.root)
    manifest = examination.check_manifest(path, folder)
    if manifest is None:
      raise BadInput(f'{name}: no manifest: run python -m diga_jax doctor --sets {name} first')
    place = arguments.output / name
    options = {'images': arguments.images, 'low_size': tuple(settings['low_size'])}
    with stage_folder.locked(arguments.output):
      _prepared(packing, arguments, folder, place, manifest, **options)
    print(f'{name}: --config.data.sets.{name}.shards={place.absolute()}')


def _prepared(packing, arguments, folder, place, manifest, **options) -> None:
  with progress.bar(len(folder), f'packing {place.name}') as bar:

    def show(done: int, total: int) -> None:
      bar.total = total
      bar.update(done - bar.n)

    packing.prepare(folder, place, manifest, jobs=arguments.jobs, progress=show, **options)
