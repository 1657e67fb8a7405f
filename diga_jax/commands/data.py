"""doctor and prepare: data sets inspected, and packed into shards."""

import argparse
import functools
import pathlib
import time
from collections.abc import Iterator

from ml_collections import ConfigDict

from data_pipelines import atomic, doctor, overlaps, records, sets
from data_pipelines.errors import BadInput
from data_pipelines.folder import Folder
from diga_jax import progress
from diga_jax.commands.arguments import Commands, add_command, add_sets, parse_folder
from diga_jax.report.pictures import comparison_panels

IMAGES = 'pixels (fast, large) or the files as they are; default: pixels, but JPEG files are kept'


def add_arguments(commands: Commands) -> None:
  """Data sets inspected, and packed."""
  add_sets(add_command(commands, 'doctor', 'inspect every file of the data sets', inspect))
  command = add_command(commands, 'prepare', 'pack data sets into shards for fast reading', pack)
  add_sets(command)
  command.add_argument('--output', type=parse_folder, metavar='DIR', help='where the shards go')
  command.add_argument(
    '--images', type=str, choices=('raw', 'png', 'jpeg'), default='', help=IMAGES
  )
  command.add_argument('--stage', metavar='NAME', help="pack this label stage's labels instead")
  command.add_argument('--workdir', type=parse_folder, metavar='DIR', help='of that stage')


def inspect(arguments: argparse.Namespace, config: ConfigDict) -> int:
  """Reads every file of the folders of data.sets; 1 if anything is wrong with them."""
  from diga_jax.inference.evaluate import evenly_spread
  from diga_jax.recipe.experiment import Experiment, class_names, digest_memory, palette
  from diga_jax.recipe.training import sizes_before_crops
  from diga_jax.report import tables
  from diga_jax.stages.kinds import inputs

  experiment, inspected, sets_with_findings = Experiment(config), {}, 0
  names, unopened = class_names(experiment), []
  trained = {key for stage in config.recipe for key in inputs(experiment.stage(stage), config).sets}
  measured = config.evaluation.sets
  sizes, crop = sizes_before_crops(experiment), tuple(config.data.crop)
  for name, folder, manifest in folders(arguments, config, unopened):
    since, stamps = time.time_ns(), doctor.stamps(folder)
    with progress.bar(len(folder), f'reading {name}') as bar:
      files = []
      for file in doctor.inspect_all(folder, arguments.jobs):
        files.append(file)
        bar.update(1)
    doctor.remember(digest_memory(config), folder, stamps, since, files)
    inspected[name] = overlaps.Inspected(folder, files)
    found = doctor.examine(folder, names, files, name in trained or name not in measured)
    small = doctor.small_images(folder, files, sizes.get(name, ()), crop)
    found.findings.extend([small] * bool(small.where))
    records.write(manifest, found.manifest)
    print(tables.render_report(name, found, names, folder.table))
    readable = [index for index, file in enumerate(files) if not file.problems]
    pictures = pathlib.Path(manifest).with_suffix('')
    for index in (readable[i] for i in evenly_spread(3, len(readable))):
      image, label = folder.read(index)
      panels = comparison_panels(image, truth=label, palette=palette(experiment), names=names)
      atomic.write_png(pictures / f'{folder.ids[index]}.png', panels)
    print(f'manifest: {manifest}\nsamples with their labels: {pictures}\n')
    sets_with_findings += bool(found.findings)
  facts, findings = overlaps.compare(inspected, config.evaluation.sets, trained)
  findings += overlaps.shared_scenes(config.data.sets.to_dict(), config.evaluation.sets, trained)
  if findings or len(inspected) > 1:
    print(tables.render_comparison(', '.join(inspected) or 'rendered scenes', facts, findings))
  if unopened:
    raise BadInput('; '.join(unopened))
  return int(sets_with_findings > 0 or bool(findings))


def folders(
  arguments: argparse.Namespace, config: ConfigDict, unopened: list[str] | None = None
) -> Iterator[tuple[str, Folder, str]]:
  """(name, images with labels, manifest file) of the sets asked for that are files on disk.

  Raises BadInput for a set that cannot be opened, or a file that is missing; with `unopened` files
  may be missing, and the reasons are added there.
  """
  data = config.data
  for name in arguments.sets or ():
    if name not in data.sets:
      raise BadInput(f'--sets: there is no {name!r} in data.sets: it has {", ".join(data.sets)}')
  for name in dict.fromkeys(arguments.sets or data.sets):
    settings = data.sets[name].to_dict() | {'shards': ''}
    if settings['kind'] != 'folder':
      print(f'{name}: rendered scenes, which need no {arguments.command}\n')
      continue
    try:
      folder = sets.open_set(
        settings,
        name=name,
        root=data.root,
        cache=data.cache,
        classes=data.classes,
        labelled=bool(settings['labels']),
        check=unopened is None,
        max_pixels=data.max_pixels,
      )
    except BadInput as error:
      if unopened is None:
        raise
      unopened.append(str(error))
      continue
    yield name, folder, doctor.manifest_path(data.cache, name, settings, data.root)


def pack_labels(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Packs the labels of a complete label stage, beside them."""
  from diga_jax.recipe import labels
  from diga_jax.recipe.experiment import Run
  from diga_jax.storage import stage_folder

  if not arguments.workdir:
    raise BadInput('--stage: give the --workdir that the stage is in')
  experiment = Run(config, arguments.workdir)
  stage, made = experiment.stage(arguments.stage), arguments.workdir / arguments.stage
  stage_folder.check_files(made, 'labels/*')
  target = experiment.images(stage.target, labelled=False)
  labelled = target.with_labels(str(made / 'labels' / '{id}.png'))
  place = made / labels.LABEL_SHARDS
  with stage_folder.lock(arguments.workdir):
    write_shards(arguments, labelled, place, None, images='none')
  print(f'{arguments.stage}: its labels are read from {place}')


def pack(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Packs data sets that doctor has inspected, each into a folder of --output, or labels."""
  from diga_jax.recipe.experiment import digest_memory
  from diga_jax.storage import stage_folder

  if arguments.stage:
    return pack_labels(arguments, config)
  if not arguments.output:
    raise BadInput('--output: give the folder that the shards are to go to')
  stage_folder.check_output(arguments.output)
  for name, folder, path in folders(arguments, config):
    bar = functools.partial(progress.bar, description=f'hashing {name}', unit='files')
    now = folder.file_digests(digest_memory(config), bar=bar)
    manifest = doctor.check_manifest(path, folder, now)
    if manifest is None:
      raise BadInput(f'{name}: no manifest: run python -m diga_jax doctor --sets {name} first')
    place, low_size = arguments.output / name, tuple(config.data.sets[name].low_size)
    with stage_folder.lock(arguments.output):
      write_shards(arguments, folder, place, manifest, arguments.images, low_size)
    print(f'{name}: --config.data.sets.{name}.shards={place.absolute()}')


def write_shards(
  arguments: argparse.Namespace,
  folder: Folder,
  place: pathlib.Path,
  manifest: doctor.Manifest | None,
  images: str,
  low_size: tuple[int, ...] = (),
) -> None:
  """Packs a folder's files into shards at `place`, with a progress bar; see `prepare.prepare`."""
  from data_pipelines import prepare  # TensorFlow Datasets takes seconds to import

  with progress.bar(len(folder), f'packing {place.name}') as bar:

    def show(done: int, total: int) -> None:
      bar.total = total
      bar.update(done - bar.n)

    prepare.prepare(
      folder,
      place,
      manifest,
      images=images,
      low_size=low_size,
      jobs=arguments.jobs,
      progress=show,
    )
