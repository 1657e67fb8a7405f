"""What the surfaces of a procedural street show: paint, windows, people, wheels.

Each function paints over a patch of a surface that has one coat of colour. It is called with that
colour in place of the patch, and returns a texture as `shapes` defines it: (u, v) -> (colour
[n, 3], alpha [n]), with u and v in metres from the surface's lower left corner, as seen from
outside.
"""

import functools
from collections.abc import Callable
from typing import Concatenate, NamedTuple, ParamSpec

import numpy as np

from data_pipelines.scenes.shapes import Colour, Pair, Surface, Texture, noise

BLACK = np.array([0.05, 0.05, 0.06], np.float32)
SEE_THROUGH = 0.25  # alpha of spokes and fence gaps
Choices = ParamSpec('Choices')


class Patch(NamedTuple):
  """Points of a surface: u, v [n]; colour [n, 3] and alpha [n] are painted over in place."""

  u: np.ndarray
  v: np.ndarray
  colour: np.ndarray
  alpha: np.ndarray
  coat: Colour

  def disc(self, x: float, y: float, radius: float) -> np.ndarray:
    return (self.u - x) ** 2 + (self.v - y) ** 2 < radius**2

  def limb(self, start: Pair, end: Pair, radius: float) -> np.ndarray:
    """The points within `radius` of a line from `start` to `end`."""
    (x, y), dx, dy = start, end[0] - start[0], end[1] - start[1]
    along = np.clip(((self.u - x) * dx + (self.v - y) * dy) / (dx * dx + dy * dy), 0, 1)
    return self._replace(u=self.u - along * dx, v=self.v - along * dy).disc(x, y, radius)


def _texture(
  draw: Callable[Concatenate[Patch, Choices], None],
) -> Callable[Concatenate[Colour, Choices], Texture]:
  def make(coat: Colour, *args: Choices.args, **kwargs: Choices.kwargs) -> Texture:
    def texture(u: np.ndarray, v: np.ndarray) -> Surface:
      patch = Patch(u, v, np.tile(coat, (len(u), 1)), np.ones(len(u), np.float32), coat)
      draw(patch, *args, **kwargs)
      return patch.colour, patch.alpha

    return texture

  return functools.update_wrapper(make, draw)


@_texture
def plain(patch: Patch) -> None:
  """One colour."""


@_texture
def road(patch: Patch, paint: Colour, width: float, zebra: float, track: float | None) -> None:
  """Asphalt with centre dashes, edge lines, a zebra at v = `zebra`, rails around u = `track`."""
  u, v, colour, _, asphalt = patch
  centre = np.abs(u - width / 2)
  marks = (centre < 0.09) & (v % 6 < 3) | (np.abs(centre - width / 2 + 0.4) < 0.07)
  crossing = (v > zebra) & (v < zebra + 2.5)
  colour[marks & ~crossing | crossing & (u % 1.1 < 0.55)] = paint
  if track is not None:
    colour[np.abs(np.abs(u - track) - 0.72) < 0.07] = asphalt * 0.45


@_texture
def slabs(patch: Patch, kerb: Colour, edge: float) -> None:
  """A pavement of square slabs; the kerb is the 0.25 m beside u = `edge`."""
  patch.colour[(patch.u % 1 < 0.06) | (patch.v % 1 < 0.06)] *= 0.85
  patch.colour[np.abs(patch.u - edge) < 0.25] = kerb


@_texture
def facade(patch: Patch, glass: Colour, shop: Colour, storey: float, bay: float) -> None:
  """A wall with rows of framed windows over a shop floor."""
  u, v, colour, _, wall = patch
  column, row = np.abs(u / bay % 1 - 0.5), np.abs(v / storey % 1 - 0.5)
  pane = glass * (1 + 0.25 * noise(np.floor(u / bay), np.floor(v / storey), 11)[:, None])
  ground = v < storey
  colour[(column < 0.34) & (row < 0.36) & ~ground] = wall * 0.6
  colour[ground] = shop
  window = np.where(ground, (column < 0.42) & (row < 0.3), (column < 0.27) & (row < 0.29))
  colour[window] = pane[window]


@_texture
def blocks(patch: Patch, length: float, course: float) -> None:
  """Masonry: courses of blocks, every other one shifted by half a block."""
  u, v = patch.u, patch.v
  row = np.floor(v / course)
  patch.colour[(v / course % 1 < 0.15) | ((u / length + row / 2) % 1 < 0.08)] *= 0.75


@_texture
def pickets(patch: Patch, height: float, gap: float) -> None:
  """Two rails and upright boards `gap` metres apart; see-through between them."""
  rail = (np.abs(patch.v - 0.25 * height) < 0.06) | (np.abs(patch.v - 0.85 * height) < 0.06)
  patch.alpha[~rail & (patch.u % gap > gap / 2)] = SEE_THROUGH


@_texture
def foliage(patch: Patch, width: float, height: float) -> None:
  """A ragged crown, lit from above, that fills an ellipse in a `width` x `height` quad."""
  u, v, colour, alpha, _ = patch
  clump = noise(u + 17 * width, v + 29 * height, 12)
  colour *= (0.7 + 0.5 * v / height + 0.22 * clump)[:, None]
  radius = np.hypot(2 * u / width - 1, 2 * v / height - 1)
  alpha[radius > 0.85 + 0.13 * clump] = 0


@_texture
def ridge(patch: Patch, height: float) -> None:
  """A far row of tree tops, 60% to 100% of `height`."""
  u, v, colour, alpha, _ = patch
  alpha[v > height * (0.8 + 0.1 * noise(u, 0 * u, 2))] = 0
  colour *= (0.8 + 0.15 * noise(u, v, 5))[:, None]


@_texture
def figure(patch: Patch, skin: Colour, shirt: Colour, hair: Colour, stride: float) -> None:
  """A person standing or walking in 0.9 m x 1.8 m; the coat is the trousers' colour."""
  legs = patch.limb((0.45, 0.9), (0.45 - stride, 0.08), 0.11)
  legs |= patch.limb((0.45, 0.9), (0.45 + stride, 0.08), 0.11)
  body = patch.limb((0.45, 1.3), (0.45, 1.0), 0.2)
  body |= patch.limb((0.3, 1.38), (0.2, 0.9), 0.07) | patch.limb((0.6, 1.38), (0.7, 0.9), 0.07)
  head = patch.disc(0.45, 1.62, 0.15)
  patch.colour[body], patch.colour[head] = shirt, skin
  patch.colour[head & (patch.v > 1.64)] = hair
  patch.alpha[~(legs | body | head)] = 0


@_texture
def sitter(patch: Patch, skin: Colour, shirt: Colour, helmet: Colour) -> None:
  """The rider of a two-wheeler 1.8 m long, in 1.8 m x 1.9 m; the coat is as in `figure`."""
  legs = patch.limb((0.75, 0.98), (1.1, 0.8), 0.12) | patch.limb((1.1, 0.8), (0.95, 0.3), 0.1)
  body = patch.limb((0.75, 1.05), (0.98, 1.45), 0.2)
  body |= patch.limb((1.0, 1.42), (1.38, 1.1), 0.08)
  head = patch.disc(1.08, 1.71, 0.17)
  patch.colour[body], patch.colour[head] = shirt, skin
  patch.colour[head & (patch.v > 1.7)] = helmet
  patch.alpha[~(legs | body | head)] = 0


@_texture
def bicycle(patch: Patch) -> None:
  """A bicycle in 1.8 m x 1.1 m: two spoked wheels, a frame, saddle and handlebar."""
  discs = patch.disc(0.38, 0.36, 0.36) | patch.disc(1.42, 0.36, 0.36)
  spokes = patch.disc(0.38, 0.36, 0.28) | patch.disc(1.42, 0.36, 0.28)
  rear, crank, seat, stem = (0.38, 0.36), (0.85, 0.36), (0.7, 0.85), (1.3, 0.85)
  bars = [(rear, seat), (seat, stem), (crank, stem), (seat, crank), (rear, crank)]
  bars.append(((1.42, 0.36), (1.28, 1.0)))  # the fork
  frame = functools.reduce(np.logical_or, (patch.limb(*bar, 0.05) for bar in bars))
  black = patch.limb((0.55, 0.96), (0.8, 0.96), 0.06)
  black |= patch.limb((1.2, 1.02), (1.45, 1.02), 0.05)
  patch.colour[discs & ~frame | black] = BLACK
  patch.alpha[spokes & ~frame] = SEE_THROUGH
  patch.alpha[~(discs | frame | black)] = 0


@_texture
def motorcycle(patch: Patch) -> None:
  """A motorcycle in 1.8 m x 1.1 m: two solid wheels, engine, tank, seat, fork and lamp."""
  u, v, colour, alpha, paint = patch
  wheels = patch.disc(0.34, 0.33, 0.33) | patch.disc(1.46, 0.33, 0.33)
  hubs = patch.disc(0.34, 0.33, 0.15) | patch.disc(1.46, 0.33, 0.15)
  engine = patch.limb((0.7, 0.45), (1.1, 0.45), 0.2)
  engine |= patch.limb((1.46, 0.33), (1.2, 1.0), 0.06)
  tank = patch.limb((0.25, 0.78), (1.15, 0.8), 0.15) | patch.limb((1.2, 0.8), (1.3, 0.95), 0.12)
  colour[:] = BLACK * 2
  colour[wheels & ~hubs] = BLACK
  colour[tank] = paint
  colour[tank & (u < 0.75) & (v > 0.8)] = BLACK
  alpha[~(wheels | engine | tank)] = 0


@_texture
def flank(
  patch: Patch, glass: Colour, length: float, wheel: float, band: Pair | None, pane: float
) -> None:
  """A vehicle's side: wheels of radius `wheel`, panes of glass at the heights `band`."""
  u, v, colour, alpha, paint = patch
  axle = patch._replace(u=np.minimum(np.abs(u - 0.18 * length), np.abs(u - 0.82 * length)))
  tyre = axle.disc(0, wheel, wheel)
  if band:
    colour[(v > band[0]) & (v < band[1]) & (u % pane > 0.12)] = glass
  colour[v < 1.1 * wheel] = paint * 0.6
  colour[tyre] = BLACK
  colour[axle.disc(0, wheel, 0.5 * wheel)] = 0.5
  alpha[(v < 0.8 * wheel) & ~tyre] = 0


@_texture
def bumper(
  patch: Patch, glass: Colour, lamp: Colour, width: float, lamp_height: float, band: Pair | None
) -> None:
  """A vehicle's front or back: two lamps, perhaps a window at the heights `band`, tyres below."""
  u, v, colour, alpha, _ = patch
  side = width / 2 - np.abs(u - width / 2)
  if band:
    colour[(v > band[0]) & (v < band[1]) & (side > 0.12)] = glass
  colour[(np.abs(v - lamp_height) < 0.11) & (side < 0.45) & (side > 0.06)] = lamp
  colour[v < 0.4] = BLACK
  alpha[(v < 0.25) & (side > 0.3)] = 0


@_texture
def cabin(patch: Patch, paint: Colour, length: float, slope: float, height: float) -> None:
  """The upper part of a car from the side, of glass; its ends lean inwards by `slope`."""
  u, v = patch.u, patch.v
  end = np.minimum(u, length - u) - slope * v / height
  patch.colour[(v > height - 0.1) | (end < 0.1) | (np.abs(u - length / 2) < 0.06)] = paint
  patch.alpha[end < 0] = 0


@_texture
def signal(patch: Patch, lit: int) -> None:
  """A traffic light, 0.6 m x 1.56 m: red, amber and green from above; lamp `lit` shines."""
  lamps = np.array([[0.1, 1, 0.5], [1, 0.75, 0.1], [1, 0.15, 0.1]], np.float32)
  for place, lamp in enumerate(lamps):
    patch.colour[patch.disc(0.3, 0.3 + 0.48 * place, 0.2)] = lamp * (1 if place == lit else 0.25)


@_texture
def sign(patch: Patch, inner: Colour, kind: int, side: float) -> None:
  """A traffic sign in `side` x `side`: 0 disc, 1 triangle, 2 square; `inner` inside its rim."""
  x, y = np.abs(2 * patch.u / side - 1), 2 * patch.v / side - 1
  rim = (np.hypot(x, y), np.maximum(-y, x + (y + 1) / 2), np.maximum(x, np.abs(y)))[kind]
  patch.colour[rim < 0.6] = inner
  patch.colour[(np.abs(y) < 0.14) & (x < 0.4)] = patch.coat
  patch.alpha[rim > 1] = 0
