"""What the surfaces of a procedural street show: paint, windows, people, wheels.

Each function returns a texture as `shapes` defines it: (u, v) -> (colour [n, 3], alpha [n]),
with u and v in metres from the surface's lower left corner, as seen from outside.
"""

import functools

import numpy as np

from data_pipelines.scenes.shapes import Colour, Surface, Texture, noise

BLACK = np.array([0.05, 0.05, 0.06], np.float32)
SEE_THROUGH = 0.25  # alpha of spokes and fence gaps
Pair = tuple[float, float]


def _coat(u: np.ndarray, colour: Colour) -> Surface:
  return np.tile(colour, (len(u), 1)), np.ones(len(u), np.float32)


def _disc(u: np.ndarray, v: np.ndarray, x: float, y: float, radius: float) -> np.ndarray:
  return (u - x) ** 2 + (v - y) ** 2 < radius**2


def _limb(u: np.ndarray, v: np.ndarray, start: Pair, end: Pair, radius: float) -> np.ndarray:
  """The points within `radius` of a line from `start` to `end`."""
  (x, y), dx, dy = start, end[0] - start[0], end[1] - start[1]
  along = np.clip(((u - x) * dx + (v - y) * dy) / (dx * dx + dy * dy), 0, 1)
  return _disc(u - along * dx, v - along * dy, x, y, radius)


def plain(colour: Colour) -> Texture:
  """One colour."""
  return lambda u, v: _coat(u, colour)


def road(
  asphalt: Colour, paint: Colour, width: float, zebra: float, track: float | None
) -> Texture:
  """Asphalt with centre dashes, edge lines, a zebra at v = `zebra`, rails around u = `track`."""

  def texture(u: np.ndarray, v: np.ndarray) -> Surface:
    colour, alpha = _coat(u, asphalt)
    centre = np.abs(u - width / 2)
    marks = (centre < 0.09) & (v % 6 < 3) | (np.abs(centre - width / 2 + 0.4) < 0.07)
    crossing = (v > zebra) & (v < zebra + 2.5)
    colour[marks & ~crossing | crossing & (u % 1.1 < 0.55)] = paint
    if track is not None:
      colour[np.abs(np.abs(u - track) - 0.72) < 0.07] = asphalt * 0.45
    return colour, alpha

  return texture


def slabs(stone: Colour, kerb: Colour, edge: float) -> Texture:
  """A pavement of square slabs; the kerb is the 0.25 m beside u = `edge`."""

  def texture(u: np.ndarray, v: np.ndarray) -> Surface:
    colour, alpha = _coat(u, stone)
    colour[(u % 1 < 0.06) | (v % 1 < 0.06)] *= 0.85
    colour[np.abs(u - edge) < 0.25] = kerb
    return colour, alpha

  return texture


def facade(wall: Colour, glass: Colour, shop: Colour, storey: float, bay: float) -> Texture:
  """Rows of framed windows over a shop floor."""

  def texture(u: np.ndarray, v: np.ndarray) -> Surface:
    colour, alpha = _coat(u, wall)
    column, row = np.abs(u / bay % 1 - 0.5), np.abs(v / storey % 1 - 0.5)
    pane = glass * (1 + 0.25 * noise(np.floor(u / bay), np.floor(v / storey), 11)[:, None])
    ground = v < storey
    colour[(column < 0.34) & (row < 0.36) & ~ground] = wall * 0.6
    colour[ground] = shop
    window = np.where(ground, (column < 0.42) & (row < 0.3), (column < 0.27) & (row < 0.29))
    colour[window] = pane[window]
    return colour, alpha

  return texture


def blocks(stone: Colour, length: float, course: float) -> Texture:
  """Masonry: courses of blocks, every other one shifted by half a block, under a coping."""

  def texture(u: np.ndarray, v: np.ndarray) -> Surface:
    colour, alpha = _coat(u, stone)
    row = np.floor(v / course)
    colour[(v / course % 1 < 0.15) | ((u / length + row / 2) % 1 < 0.08)] *= 0.75
    return colour, alpha

  return texture


def pickets(paint: Colour, height: float, gap: float) -> Texture:
  """Two rails and upright boards `gap` metres apart; see-through between them."""

  def texture(u: np.ndarray, v: np.ndarray) -> Surface:
    colour, alpha = _coat(u, paint)
    rail = (np.abs(v - 0.25 * height) < 0.06) | (np.abs(v - 0.85 * height) < 0.06)
    alpha[~rail & (u % gap > gap / 2)] = SEE_THROUGH
    return colour, alpha

  return texture


def foliage(leaf: Colour, width: float, height: float, scale: float = 12) -> Texture:
  """A ragged crown, lit from above, that fills an ellipse in a `width` x `height` quad."""

  def texture(u: np.ndarray, v: np.ndarray) -> Surface:
    clump = noise(u + 17 * width, v + 29 * height, scale)
    colour, alpha = _coat(u, leaf)
    colour *= (0.7 + 0.5 * v / height + 0.22 * clump)[:, None]
    radius = np.hypot(2 * u / width - 1, 2 * v / height - 1)
    alpha[radius > 0.85 + 0.13 * clump] = 0
    return colour, alpha

  return texture


def ridge(leaf: Colour, height: float) -> Texture:
  """A far row of tree tops, 60% to 100% of `height`."""

  def texture(u: np.ndarray, v: np.ndarray) -> Surface:
    colour, alpha = _coat(u, leaf)
    alpha[v > height * (0.8 + 0.1 * noise(u, 0 * u, 2))] = 0
    return colour * (0.8 + 0.15 * noise(u, v, 5))[:, None], alpha

  return texture


def figure(skin: Colour, shirt: Colour, trousers: Colour, hair: Colour, stride: float) -> Texture:
  """A person standing or walking in 0.9 m x 1.8 m."""

  def texture(u: np.ndarray, v: np.ndarray) -> Surface:
    colour, alpha = _coat(u, trousers)
    legs = _limb(u, v, (0.45, 0.9), (0.45 - stride, 0.08), 0.11)
    legs |= _limb(u, v, (0.45, 0.9), (0.45 + stride, 0.08), 0.11)
    arms = _limb(u, v, (0.3, 1.38), (0.2, 0.9), 0.07) | _limb(u, v, (0.6, 1.38), (0.7, 0.9), 0.07)
    body = _limb(u, v, (0.45, 1.3), (0.45, 1.0), 0.2) | arms
    head = _disc(u, v, 0.45, 1.62, 0.15)
    colour[body], colour[head] = shirt, skin
    colour[head & (v > 1.64)] = hair
    alpha[~(legs | body | head)] = 0
    return colour, alpha

  return texture


def sitter(skin: Colour, shirt: Colour, trousers: Colour, helmet: Colour) -> Texture:
  """The rider of a two-wheeler 1.8 m long, in 1.8 m x 1.9 m."""

  def texture(u: np.ndarray, v: np.ndarray) -> Surface:
    colour, alpha = _coat(u, trousers)
    legs = _limb(u, v, (0.75, 0.98), (1.1, 0.8), 0.12) | _limb(u, v, (1.1, 0.8), (0.95, 0.3), 0.1)
    body = _limb(u, v, (0.75, 1.05), (0.98, 1.45), 0.2)
    body |= _limb(u, v, (1.0, 1.42), (1.38, 1.1), 0.08)
    head = _disc(u, v, 1.08, 1.71, 0.17)
    colour[body], colour[head] = shirt, skin
    colour[head & (v > 1.7)] = helmet
    alpha[~(legs | body | head)] = 0
    return colour, alpha

  return texture


def bicycle(frame: Colour) -> Texture:
  """A bicycle in 1.8 m x 1.1 m: two spoked wheels, a frame, saddle and handlebar."""

  def texture(u: np.ndarray, v: np.ndarray) -> Surface:
    colour, alpha = _coat(u, frame)
    discs = _disc(u, v, 0.38, 0.36, 0.36) | _disc(u, v, 1.42, 0.36, 0.36)
    spokes = _disc(u, v, 0.38, 0.36, 0.28) | _disc(u, v, 1.42, 0.36, 0.28)
    bars = (
      ((0.38, 0.36), (0.7, 0.85)),
      ((0.7, 0.85), (1.3, 0.85)),
      ((0.85, 0.36), (1.3, 0.85)),
      ((0.7, 0.85), (0.85, 0.36)),
      ((1.42, 0.36), (1.28, 1.0)),
      ((0.38, 0.36), (0.85, 0.36)),
    )
    frame_bars = functools.reduce(np.logical_or, (_limb(u, v, a, b, 0.05) for a, b in bars))
    black = _limb(u, v, (0.55, 0.96), (0.8, 0.96), 0.06)
    black |= _limb(u, v, (1.2, 1.02), (1.45, 1.02), 0.05)
    colour[discs & ~frame_bars | black] = BLACK
    alpha[spokes & ~frame_bars] = SEE_THROUGH
    alpha[~(discs | frame_bars | black)] = 0
    return colour, alpha

  return texture


def motorcycle(body_colour: Colour) -> Texture:
  """A motorcycle in 1.8 m x 1.1 m: two solid wheels, engine, tank, seat, fork and lamp."""

  def texture(u: np.ndarray, v: np.ndarray) -> Surface:
    colour, alpha = _coat(u, BLACK * 2)
    wheels = _disc(u, v, 0.34, 0.33, 0.33) | _disc(u, v, 1.46, 0.33, 0.33)
    engine = _limb(u, v, (0.7, 0.45), (1.1, 0.45), 0.2)
    engine |= _limb(u, v, (1.46, 0.33), (1.2, 1.0), 0.06)
    tank = _limb(u, v, (0.25, 0.78), (1.15, 0.8), 0.15) | _limb(u, v, (1.2, 0.8), (1.3, 0.95), 0.12)
    colour[wheels & ~_disc(u, v, 0.34, 0.33, 0.15) & ~_disc(u, v, 1.46, 0.33, 0.15)] = BLACK
    colour[tank] = body_colour
    colour[tank & (u < 0.75) & (v > 0.8)] = BLACK
    alpha[~(wheels | engine | tank)] = 0
    return colour, alpha

  return texture


def flank(
  paint: Colour, length: float, wheel: float, band: Pair | None, glass: Colour, pane: float = 1.5
) -> Texture:
  """A vehicle's side: wheels of radius `wheel`, panes of glass at the heights `band`."""

  def texture(u: np.ndarray, v: np.ndarray) -> Surface:
    colour, alpha = _coat(u, paint)
    axle = np.minimum(np.abs(u - 0.18 * length), np.abs(u - 0.82 * length))
    tyre = _disc(axle, v, 0, wheel, wheel)
    if band:
      colour[(v > band[0]) & (v < band[1]) & (u % pane > 0.12)] = glass
    colour[v < 1.1 * wheel] = paint * 0.6
    colour[tyre] = BLACK
    colour[_disc(axle, v, 0, wheel, 0.5 * wheel)] = 0.5
    alpha[(v < 0.8 * wheel) & ~tyre] = 0
    return colour, alpha

  return texture


def bumper(
  paint: Colour, width: float, lamp: Colour, lamp_height: float, band: Pair | None, glass: Colour
) -> Texture:
  """A vehicle's front or back: two lamps, perhaps a window at the heights `band`, tyres below."""

  def texture(u: np.ndarray, v: np.ndarray) -> Surface:
    colour, alpha = _coat(u, paint)
    side = width / 2 - np.abs(u - width / 2)
    if band:
      colour[(v > band[0]) & (v < band[1]) & (side > 0.12)] = glass
    colour[(np.abs(v - lamp_height) < 0.11) & (side < 0.45) & (side > 0.06)] = lamp
    colour[v < 0.4] = BLACK
    alpha[(v < 0.25) & (side > 0.3)] = 0
    return colour, alpha

  return texture


def cabin(paint: Colour, length: float, slope: float, height: float, glass: Colour) -> Texture:
  """The glazed upper part of a car from the side; its ends lean inwards by `slope`."""

  def texture(u: np.ndarray, v: np.ndarray) -> Surface:
    colour, alpha = _coat(u, glass)
    end = np.minimum(u, length - u) - slope * v / height
    colour[(v > height - 0.1) | (end < 0.1) | (np.abs(u - length / 2) < 0.06)] = paint
    alpha[end < 0] = 0
    return colour, alpha

  return texture


def signal(housing: Colour, lit: int) -> Texture:
  """A traffic light, 0.6 m x 1.56 m: red, amber and green from above; lamp `lit` shines."""
  lamps = np.array([[0.1, 1, 0.5], [1, 0.75, 0.1], [1, 0.15, 0.1]], np.float32)

  def texture(u: np.ndarray, v: np.ndarray) -> Surface:
    colour, alpha = _coat(u, housing)
    for place, lamp in enumerate(lamps):
      colour[_disc(u, v, 0.3, 0.3 + 0.48 * place, 0.2)] = lamp * (1 if place == lit else 0.25)
    return colour, alpha

  return texture


def sign(colour_: Colour, inner: Colour, kind: int, side: float) -> Texture:
  """A traffic sign in `side` x `side`: 0 disc, 1 triangle, 2 square; `inner` inside its rim."""

  def texture(u: np.ndarray, v: np.ndarray) -> Surface:
    colour, alpha = _coat(u, colour_)
    x, y = np.abs(2 * u / side - 1), 2 * v / side - 1
    rim = (np.hypot(x, y), np.maximum(-y, x + (y + 1) / 2), np.maximum(x, np.abs(y)))[kind]
    colour[rim < 0.6] = inner
    colour[(np.abs(y) < 0.14) & (x < 0.4)] = colour_
    alpha[rim > 1] = 0
    return colour, alpha

  return texture
