"""Procedural street scenes with exact labels in the 19 Cityscapes train ids: the embedded source.

`render` makes one scene, a function of (index, look, size, seed) only; `cache` keeps many of them
as PNG files. `street` says what stands where, `shapes` and `textures` how it is drawn, `looks` in
which colours and light and with which camera.
"""

import numpy as np

from data_pipelines.errors import BadInput
from data_pipelines.scenes import looks, shapes
from data_pipelines.scenes.street import camera, lay_out

VERSION = 3  # of the pictures; belongs in the name of a cache's folder, raise it with every change
LOOKS = tuple(looks.LOOKS)
SHADOWS = 40.0  # metres along the street where things cast shadows


def render(
  index: int, look: str, size: tuple[int, int] = (128, 256), seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
  """Renders one scene.

  Args:
    index: which scene, >= 0; scenes of two looks with one index are different streets.
    look: a key of `looks.LOOKS`.
    size: (height, width) in pixels; the street does not depend on it.
    seed: another seed is another city, >= 0.

  Returns:
    The image, uint8 [height, width, 3] RGB, and its labels, uint8 [height, width] in 0..18.

  Raises:
    BadInput: unknown look, size under 16 pixels, negative index or seed.
  """
  check_arguments(index, look, size, seed)
  style = looks.LOOKS[look]
  # Three streams, so that the layout is the same whatever the size and however much noise is drawn.
  layout, light, sensor = (
    np.random.default_rng([seed, index, LOOKS.index(look), part]) for part in range(3)
  )
  street = lay_out(layout, style)
  weather = style.weathers[light.integers(len(style.weathers))]
  canvas = shapes.Canvas(camera(street, size), *size)
  lamp = looks.draw_light(light, weather)
  looks.add_sky(canvas, weather, light)
  for quad in street.ground:
    shapes.paint(canvas, quad, lamp, style.grain)
  far_to_near = sorted(street.quads, key=lambda quad: -np.linalg.norm(quad.centre - street.eye))
  shapes.shade(
    canvas, [quad for quad in far_to_near if quad.centre[2] < SHADOWS], lamp.sun, weather.shadow
  )
  for quad in far_to_near:
    shapes.paint(canvas, quad, lamp, style.grain)
  looks.add_haze(canvas, weather, light)
  return looks.photograph(canvas.colour, style, sensor), canvas.label


def check_arguments(index: int, look: str, size: tuple[int, int], seed: int) -> None:
  """Raises BadInput for what `render` cannot draw."""
  if look not in LOOKS:
    raise BadInput(f'look {look!r} is not one of {", ".join(LOOKS)}')
  if len(size) != 2 or min(size) < 16:
    raise BadInput(f'scene size {size} is not (height, width) of at least 16 pixels each')
  if index < 0 or seed < 0:
    raise BadInput(f'scene index {index} and seed {seed} must not be negative')
