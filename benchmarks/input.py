"""What reading costs: the input pipeline against a plain Pillow loader, on full-size images.

  python benchmarks/input.py [--images=12] [--repeats=5] [--batches=2000]

Images and labels are generated with the statistics of natural ones (1/f spectra, edges, sensor
noise; regions) in GTA5's size and formats, so that decoding costs what it costs on the real files.
All ways of reading take turns in one run and are compared by CPU time, which is what a core can do,
whatever else the machine does meanwhile. Last, the pipeline runs for many batches and its memory
is measured.
"""

import argparse
import itertools
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
import rich.console
import rich.table
import tensorflow as tf
from PIL import Image
from tqdm import tqdm

from data_pipelines import doctor, label_tables, pipeline, prepare, sets
from data_pipelines.folder import Folder
from diga_jax.configs import datasets

SIZE, LOW, CROP = (1052, 1914), (720, 1280), (512, 896)
LOW_ROWS, FULL_ROWS = 1, 2  # DiGA's warm-up on GTA5
NAMES = label_tables.NAMES['cityscapes19']


# Images like real ones.


def natural(rng: np.random.Generator) -> np.ndarray:
  """Noise with the spectrum of a photograph, the same edges in all channels: uint8 [H, W, 3]."""
  rows = np.fft.fftfreq(SIZE[0])[:, None]
  columns = np.fft.rfftfreq(SIZE[1])[None]
  amplitude = 1 / np.maximum(np.hypot(rows, columns), 1 / max(SIZE)) ** 1.2

  def field() -> np.ndarray:
    phases = rng.normal(size=(*amplitude.shape, 2)) @ np.array([1, 1j])
    made = np.fft.irfft2(phases * amplitude, SIZE)
    return (made - made.mean()) / made.std()

  shade = 0.8 * field() + 0.6 * (regions(rng) % 7 - 3) / 2
  image = np.stack([shade + 0.25 * field() for _ in range(3)], -1)
  return (image * 45 + 115 + rng.normal(0, 1.5, (*SIZE, 1))).clip(0, 255).astype(np.uint8)


def regions(rng: np.random.Generator, count: int = 60) -> np.ndarray:
  """Which of `count` random points is nearest: uint8 [H, W], ids of a label in its regions."""
  points = rng.uniform(0, 1, (count, 2)) * SIZE
  grid = np.stack(np.meshgrid(*(np.arange(0, side, 8) for side in SIZE), indexing='ij'), -1)
  nearest = np.square(grid[:, :, None] - points).sum(-1).argmin(-1)
  ids = rng.choice(
    [7, 8, 11, 21, 23, 26, 17, 0], count, p=[0.3, 0.1, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05]
  )
  return ids[nearest].repeat(8, 0).repeat(8, 1)[: SIZE[0], : SIZE[1]].astype(np.uint8)


def write(root: pathlib.Path, count: int) -> None:
  palette = np.zeros((256, 3), np.uint8)
  for colour, raw in label_tables.COLOURS['gta5'].items():
    palette[raw] = colour
  for part in ('images', 'labels'):
    (root / 'GTA5' / part).mkdir(parents=True)
  for index in tqdm(range(1, count + 1), 'generating images'):
    rng = np.random.default_rng(index)
    Image.fromarray(natural(rng)).save(root / f'GTA5/images/{index:05d}.png')
    label = Image.fromarray(regions(rng)).copy()
    label.putpalette(palette.ravel().tolist())
    label.save(root / f'GTA5/labels/{index:05d}.png')


# A plain loader: what docs/diga.md section 2 says, line by line.


def plain(
  paths: tuple[str, str], low: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  image, label = Image.open(paths[0]).convert('RGB'), Image.open(paths[1])
  if low:
    image = image.resize((LOW[1], LOW[0]), Image.Resampling.BICUBIC)
    label = label.resize((LOW[1], LOW[0]), Image.Resampling.NEAREST)
  if rng.random() < 0.5:
    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    label = label.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
  ids = np.asarray(label)
  train = np.full(ids.shape, 255, np.uint8)
  for raw, to in label_tables.TABLES['gta5'].items():
    if to != 255:
      train[ids == raw] = to
  for _ in range(6):
    cut, truth = sized_crop(image, Image.fromarray(train), rng)
    values, counts = np.unique(truth, return_counts=True)
    large = values[counts > 0.02 * truth.size]
    if len(large) >= 3 or (len(large) == 2 and 255 not in large):
      break
  return np.asarray(cut), truth


def sized_crop(
  image: Image.Image, label: Image.Image, rng: np.random.Generator
) -> tuple[Image.Image, np.ndarray]:
  width, height = (int(side * rng.uniform(0.7, 1)) for side in image.size)
  size = width, height
  image = image.resize(size, Image.Resampling.BILINEAR)
  label = label.resize(size, Image.Resampling.NEAREST)
  left, top = (int(rng.integers(0, a - b + 1)) for a, b in zip(size, CROP[::-1], strict=True))
  box = left, top, left + CROP[1], top + CROP[0]
  return image.crop(box), np.asarray(label.crop(box))


# Measuring.


def cpu_seconds(work: Callable[[], object]) -> float:
  """From rest to rest: a pipeline fills its buffer again after it has been asked for batches."""
  begun = time.process_time()
  work()
  return at_rest() - begun


def at_rest(pause: float = 0.2) -> float:
  """Waits until no thread works any more; the CPU time of this process."""
  before, now = -1.0, time.process_time()
  while now - before > 0.01 * pause:
    time.sleep(pause)
    before, now = now, time.process_time()
  return now


def resident() -> float:
  """Resident memory of this process in MB."""
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * os.sysconf('SC_PAGE_SIZE') / 1e6


def stream(folder: Folder, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
  view = pipeline.View(
    folder, LOW_ROWS, FULL_ROWS, low_size=LOW, crop=CROP, cut='sized', redraw=True
  )
  return pipeline.batches({'v': view}, seed=0, start=start, parallel_calls=1)


def open_gta5(root: pathlib.Path, **changes: str) -> Folder:
  settings = datasets.gta5(**changes).to_dict()
  return sets.open_set(settings, name='gta5', root=str(root), cache='', classes=19)


def ways(folder: Folder, packed: Folder) -> dict[str, Callable[[], object]]:
  """What is timed: one call reads each image once, or does one part of that."""
  paths = [(folder.image_path(i), folder.label_path(i)) for i in range(len(folder))]
  rows = LOW_ROWS + FULL_ROWS
  batches = len(folder) // rows
  running = {'folder': stream(folder), 'shards': stream(packed)}
  for one in running.values():
    next(one)
  at_rest()

  def by_plain_loader():
    rng = np.random.default_rng(0)
    for index, pair in enumerate(paths):
      plain(pair, index % rows < LOW_ROWS, rng)

  return {
    'plain Pillow loader': by_plain_loader,
    'pipeline, folder': lambda: list(itertools.islice(running['folder'], batches)),
    'pipeline, shards': lambda: list(itertools.islice(running['shards'], batches)),
    'decode the images, Pillow': lambda: [Image.open(p).convert('RGB') for p, _ in paths],
    'decode the images, TensorFlow': lambda: [
      tf.io.decode_png(tf.io.read_file(p), channels=3) for p, _ in paths
    ],
    'decode the labels, Pillow': lambda: [np.asarray(Image.open(p)) for _, p in paths],
    'read full pairs, shards': lambda: [packed.read(i) for i in range(len(paths))],
    'read low pairs, shards': lambda: [packed.read_low(i, LOW) for i in range(len(paths))],
  }


def show(times: dict[str, float], images: int) -> None:
  table = rich.table.Table('way', 'CPU ms / image', 'images / s and core', 'times the plain loader')
  for column in table.columns[1:]:
    column.justify = 'right'
  base = times['plain Pillow loader']
  for name, seconds in times.items():
    each = seconds / images
    table.add_row(name, f'{1000 * each:.1f}', f'{1 / each:.1f}', f'{base / seconds:.2f}')
  rich.console.Console(width=100).print(table)


def main() -> None:
  parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
  parser.add_argument('--images', type=int, default=12)
  parser.add_argument('--repeats', type=int, default=5)
  parser.add_argument('--batches', type=int, default=2000, help='over which memory is measured')
  arguments = parser.parse_args()
  tf.config.threading.set_intra_op_parallelism_threads(1)
  with tempfile.TemporaryDirectory() as place:
    root = pathlib.Path(place)
    write(root, arguments.images - arguments.images % (LOW_ROWS + FULL_ROWS))
    folder = open_gta5(root, list='')
    found = list(doctor.inspect_all(folder, 1))
    manifest = doctor.examine(folder, NAMES, found).manifest
    prepare.prepare(folder, root / 'packed', manifest, low_size=LOW)
    packed = open_gta5(root, list='', shards='packed')

    begun = time.perf_counter()
    next(stream(folder))
    print(f'first batch from the folder after {time.perf_counter() - begun:.2f} s')
    tasks = ways(folder, packed)
    taken = {name: [] for name in tasks}
    for _ in tqdm(range(arguments.repeats + 1), 'rounds'):
      for name, work in tasks.items():
        taken[name].append(cpu_seconds(work))
    show({name: statistics.median(every[1:]) for name, every in taken.items()}, len(folder))

    memory, running = {}, stream(packed)
    for number in tqdm(range(1, arguments.batches + 1), 'batches'):
      next(running)
      if number % max(arguments.batches // 4, 1) == 0:
        memory[number] = resident()
    text = ', '.join(f'{mb:.0f} MB after {number}' for number, mb in memory.items())
    print(f'resident memory: {text}')


if __name__ == '__main__':
  main()
