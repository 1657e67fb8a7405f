"""What each command of the command line does."""

import argparse
import pathlib
import re
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from data_pipelines import doctor as examination
from data_pipelines import sets
from data_pipelines.errors import BadInput
from data_pipelines.sources import Folder, read_image
from diga_jax import (
  artifact,
  build,
  checkpoint,
  exported,
  files,
  hosts,
  models,
  pretrained,
  progress,
  recipe,
  report,
)
from diga_jax import images as pixels
from diga_jax import plan as planning
from diga_jax import predict as prediction
from diga_jax import study as summary
from diga_jax import weights as layers
from diga_jax.experiment import Experiment, file_digest, filled, weights_file


def set_up(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """What comes before any command: the other processes, and programs compiled by earlier runs.

  Raises:
    BadInput: a place is a URL, or the other processes cannot be reached.
  """
  places = {'--workdir': getattr(arguments, 'workdir', ''), 'config.data.root': config.data.root}
  for field, place in places.items():
    if re.match(r'\w+:/', str(place)):
      raise BadInput(f'{field} is {place}: mount the bucket and give its folder (docs/launch.md)')
  if getattr(arguments, 'distributed', None):
    hosts.connect(arguments.distributed)
  if config.compilation_cache:
    jax.config.update('jax_compilation_cache_dir', config.compilation_cache)


def run(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """The whole recipe, then its table."""
  experiment = Experiment(config, arguments.workdir)
  with artifact.locked(arguments.workdir):
    results = recipe.run(experiment)
  show(experiment, results)


def study(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """The recipe once per seed, in WORKDIR/seed_N; then mean and spread, in WORKDIR/study/."""
  runs = []
  for seed in arguments.seeds:
    seeded = config.copy_and_resolve_references()
    seeded.seed = seed
    workdir = arguments.workdir / f'seed_{seed}'
    with artifact.locked(workdir):
      runs.append(recipe.run(Experiment(seeded, workdir)))
  if not hosts.is_first():
    return
  place = arguments.workdir / 'study' / config.evaluation.name
  text = summary.summarise(runs)
  for name, draw, rows in summary.drawings(runs):
    draw(rows, place.with_name(f'{place.name}_{name}.png'))
  with files.replacing(place.with_suffix('.md')) as temporary:
    temporary.write_text(text + '\n')
  report.write_metrics(place.with_suffix('.json'), runs)
  print(text)
  print(f'these tables, all numbers and plots: {place}.md, .json and _*.png')


def train(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """One training stage, whose inputs must be complete."""
  experiment = Experiment(config, arguments.workdir)
  if experiment.stage(arguments.stage).kind not in build.STEPS:
    raise BadInput(f'stage {arguments.stage!r} is not trained: use the command label')
  with artifact.locked(arguments.workdir):
    recipe.run_stage(experiment, arguments.stage)


def label(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """One label pass."""
  experiment = Experiment(config, arguments.workdir)
  if experiment.stage(arguments.stage).kind != 'label':
    raise BadInput(f'stage {arguments.stage!r} is not a label pass: use the command train')
  with artifact.locked(arguments.workdir):
    recipe.run_stage(experiment, arguments.stage)


def evaluate(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Every network of the recipe under the config's protocol."""
  experiment = Experiment(config, arguments.workdir)
  with artifact.locked(arguments.workdir):
    results = recipe.evaluate(experiment)
  show(experiment, results)


def show(experiment: Experiment, results: list[dict]) -> None:
  """Prints the table, the table of classes, what of the labels was kept, and where the rest is."""
  if not hosts.is_first():
    return
  networks = [row for row in results if 'iou' in row]
  print(report.table(networks))
  print(report.per_class(networks))
  for row in results:
    if 'kept' in row:
      print(report.kept(row))
  place = experiment.workdir / 'evaluation' / experiment.config.evaluation.name
  print(f'metrics.json and pictures of every network: {place}')


def predict(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Labels images with the network of a stage."""
  experiment = Experiment(config, arguments.workdir)
  settings = config.evaluation
  prediction.predict(
    experiment.model,
    experiment.trained(arguments.stage, settings.network),
    arguments.images,
    arguments.output,
    palette=build.palette(experiment),
    scales=settings.scales,
    batch_size=experiment.rows(1),
    put=experiment.put,
  )


def plan(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Prints what the recipe's training steps need on each topology."""
  jax.config.update('jax_platforms', 'cpu')
  experiment = Experiment(config, None)
  for topology in arguments.topology:
    rows = planning.plan(experiment, topology)
    print(report.rendered(planning.table(topology, rows), width=1000), end='\n\n')


def doctor(arguments: argparse.Namespace, config: ConfigDict) -> int:
  """Looks at every file of the folders of data.sets; 1 if anything is wrong with them."""
  experiment = Experiment(config, None)
  data, ill = config.data, 0
  for name, settings in folders(arguments, config):
    folder = opened(name, settings, data, check=False)
    with progress.bar(len(folder), f'looking at {name}') as bar:
      looks = list(examination.looks(folder, arguments.jobs, seen=lambda bar=bar: bar.update(1)))
    found = examination.examine(folder, build.class_names(experiment), looks)
    path = examination.manifest_path(data.cache, name, settings, data.root)
    report.write_metrics(path, found.manifest)
    print(report.examined(name, found, build.class_names(experiment), settings['table']))
    readable = [index for index, look in enumerate(looks) if not look.problems]
    pictures = pathlib.Path(path).with_suffix('')
    draw_samples(experiment, folder, readable, pictures)
    print(f'manifest: {path}\nsamples with their labels: {pictures}\n')
    ill += bool(found.findings)
  return int(ill > 0)


def draw_samples(
  experiment: Experiment, images: Folder, readable: list[int], place: pathlib.Path, count: int = 3
) -> None:
  """Pictures of some images, evenly spread, beside their labels as they are read."""
  for index in np.linspace(0, len(readable) - 1, min(count, len(readable))).round().astype(int):
    image, label = images.read(readable[index])
    picture = report.strip(
      image,
      truth=label,
      palette=build.palette(experiment),
      names=build.class_names(experiment),
    )
    files.write_png(place / f'{images.ids[readable[index]]}.png', picture)


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
  from data_pipelines import shards  # TensorFlow Datasets takes seconds to import

  if arguments.stage:
    if not arguments.workdir:
      raise BadInput('--stage: give the --workdir that the stage is in')
    experiment = Experiment(config, arguments.workdir)
    stage, made = experiment.stage(arguments.stage), arguments.workdir / arguments.stage
    artifact.read_record(made)
    target = experiment.images(stage.target, labelled=False)
    labelled = target.with_labels(str(made / 'labels' / '{id}.png'))
    place = made / build.LABEL_SHARDS
    with artifact.locked(arguments.workdir):
      _prepared(shards, arguments, labelled, place, None, images='none')
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
      raise BadInput(
        f'{name}: nobody has looked at its files: python -m diga_jax doctor --sets {name} first'
      )
    place = arguments.output / name
    options = {'images': arguments.images, 'low_size': tuple(settings['low_size'])}
    with artifact.locked(arguments.output):
      _prepared(shards, arguments, folder, place, manifest, **options)
    print(f'{name}: --config.data.sets.{name}.shards={place.absolute()}')


def _prepared(shards, arguments, folder, place, manifest, **options) -> None:
  with progress.bar(len(folder), f'packing {place.name}') as bar:

    def show(done: int, total: int) -> None:
      bar.total = total
      bar.update(done - bar.n)

    shards.prepare(folder, place, manifest, jobs=arguments.jobs, progress=show, **options)


def weights(arguments: argparse.Namespace, config: ConfigDict | None) -> None:
  """Looks at, imports, exports or compares weights."""
  action = {
    'show': show_weights,
    'import': import_weights,
    'export': export_weights,
    'compare': compare_weights,
  }[arguments.action]
  action(arguments, config)


def show_weights(arguments: argparse.Namespace, config: ConfigDict) -> None:
  """Prints how a weights file and the config's network fit."""
  experiment = Experiment(config, None)
  _, rows = filled(experiment.shapes, arguments.file, arguments.partial)
  print(layers.format_report(rows))


def import_weights(arguments: argparse.Namespace, config: None) -> None:
  """Writes the network of a file as a folder that model.weights and the other actions take."""
  found = layers.read(weights_file(arguments.file))
  print(f'{arguments.file} holds {pretrained.describe(found)}')
  model = models.build(arguments.model, classes=arguments.classes)
  variables = models.shapes(model)
  if arguments.partial:  # what the file lacks starts at random
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
  variables, rows = filled(variables, arguments.file, arguments.partial)
  print(layers.format_report(rows))
  identity = {
    'model': arguments.model,
    'classes': arguments.classes,
    'file': file_digest(arguments.file),
    'partial': arguments.partial,
  }

  def build(directory: pathlib.Path) -> dict:
    tree = {'params': variables['params'], 'batch_stats': variables.get('batch_stats', {})}
    checkpoint.write_arrays(directory / 'checkpoints', 0, tree)
    return {'step': 0}

  artifact.produce(arguments.output, identity, build)
  print(f'--config.model.weights={arguments.output}')


def export_weights(arguments: argparse.Namespace, config: ConfigDict | None) -> None:
  """Writes a stage's network as a PyTorch state dict, or with its scales as a program."""
  found = layers.read_stage(arguments.stage, arguments.network)
  if arguments.format == 'weights':
    named = {arguments.prefix + name: value for name, value in found.items()}
    layers.save(arguments.output, named)
    print(f'{arguments.output}: {len(found)} entries')
    return
  if config is None or arguments.size is None:
    raise BadInput(f'--format={arguments.format}: give the --config of the network and a --size')
  model = Experiment(config, None).model
  variables, _ = layers.initialise(models.shapes(model), found)
  size, scales = tuple(arguments.size), tuple(config.evaluation.scales)
  what = f'uint8 RGB [B, {size[0]}, {size[1]}, 3] -> classes'
  if arguments.format == 'savedmodel':
    exported.write_saved_model(arguments.output, model, variables, size, scales=scales)
    print(f'{arguments.output}: tf.saved_model.load(folder).predict(images), {what}')
    return
  program = exported.stablehlo(model, variables, size, scales=scales)
  exported.write(arguments.output, program)
  print(f'{arguments.output}: jax.export.deserialize(data).call(images), {what}')


def compare_weights(arguments: argparse.Namespace, config: ConfigDict | None) -> None:
  """Prints two networks layer by layer, and what their layers make of an image."""
  pair = [layers.read(weights_file(name)) for name in (arguments.first, arguments.second)]
  print(layers.format_comparison(layers.compare(*map(pretrained.bare, pair))))
  if not arguments.image:
    return
  if config is None:
    raise BadInput('--image: give the --config of the network as well')
  model = Experiment(config, None).model
  image = pixels.normalise(jnp.asarray(read_image(arguments.image))[None])
  shown = [
    layers.activations(model, layers.initialise(models.shapes(model), one)[0], image)
    for one in pair
  ]
  print(layers.format_comparison(layers.compare(*shown)))
