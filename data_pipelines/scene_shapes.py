"""What a procedural street is made of: one primitive, its textures, and the things built of it.

The only primitive is a textured parallelogram, `Quad`. A quad with corner P and edges U and V, in
camera coordinates, covers the point (s, t) of pixel ray d where s U + t V + P = z d; so
(s, t, 1) / z = [U V P]^-1 d: one 3x3 matrix per quad gives texture coordinates and inverse depth
for all pixels at once. Quads are painted from far to near into a depth buffer.

World: x right, y up, z forward along the street, metres, ground at y = 0. Textures are functions
(u, v) -> (colour [n, 3], alpha [n]) of metres from the quad's corner. The label is written
wherever alpha > 0, so the gaps of a fence (alpha 0.2) belong to the fence, as in Cityscapes,
although one sees through them.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

Colour = np.ndarray  # [3] float32, 0..1
Texture = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

(ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, LIGHT, SIGN, VEGETATION, TERRAIN, SKY, PERSON, RIDER,
 CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE) = range(19)

NEAR = 0.1  # metres in front of the eye; nothing nearer is painted
UP = np.array([0, 1, 0], np.float32)
BLACK = np.array([0.05, 0.05, 0.06], np.float32)
SEE_THROUGH = 0.25  # alpha of spokes and fence gaps


def _cross(a: list[float], b: list[float]) -> tuple[float, float, float]:
  """np.cross for single vectors, where it spends its time on shapes."""
  return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@dataclasses.dataclass(frozen=True)
class Quad:
  """A textured parallelogram: a corner, its two edges (metres), what it shows and what it is.

  Seen from outside, `across` points right and `up` points up. `thin` quads have no back.
  """

  corner: np.ndarray
  across: np.ndarray
  up: np.ndarray
  texture: Texture
  label: int
  thin: bool = False

  @property
  def centre(self) -> np.ndarray:
    return self.corner + (self.across + self.up) / 2

  @property
  def normal(self) -> np.ndarray:
    normal = np.array(_cross(self.up.tolist(), self.across.tolist()), np.float32)
    return normal / (np.linalg.norm(normal) + np.float32(1e-9))


@dataclasses.dataclass(frozen=True)
class Camera:
  """A pinhole camera at `eye`, turned by `yaw` (radians); pitch is a shift of the horizon's row."""

  eye: np.ndarray
  yaw: float
  focal: float  # pixels
  horizon: float  # row

  def coordinates(self, vectors: np.ndarray) -> np.ndarray:
    """World vectors [n, 3] -> (right, up, forward) [n, 3]."""
    cosine, sine = np.cos(self.yaw), np.sin(self.yaw)
    axes = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]], np.float32)
    return vectors @ axes

  def rays(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Slopes of the pixel centres: x [width] to the right, y [height] upwards, at depth 1."""
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / self.focal
    y = (self.horizon - 0.5 - np.arange(height, dtype=np.float32)) / self.focal
    return x, y


class Canvas:
  """The picture being painted: colour [h, w, 3], label [h, w], inverse depth [h, w] (0 = sky)."""

  def __init__(self, camera: Camera, height: int, width: int):
    self.camera = camera
    self.x, self.y = camera.rays(height, width)
    self.colour = np.zeros((height, width, 3), np.float32)
    self.label = np.full((height, width), SKY, np.uint8)
    self.inverse_depth = np.zeros((height, width), np.float32)


def _window(canvas: Canvas, corners: list[list[float]]) -> tuple[slice, slice] | None:
  """The rows and columns that four corners in camera coordinates can cover."""
  height, width = canvas.label.shape
  nearest, farthest = min(c[2] for c in corners), max(c[2] for c in corners)
  if farthest < NEAR:
    return None
  if nearest < NEAR:  # reaches behind the eye: its outline is not a bounded polygon
    return slice(0, height), slice(0, width)
  focal, horizon = canvas.camera.focal, canvas.camera.horizon
  columns = [width / 2 + x / z * focal for x, _, z in corners]
  rows = [horizon - y / z * focal for _, y, z in corners]
  top, bottom = max(int(min(rows)), 0), min(int(max(rows)) + 1, height)
  left, right = max(int(min(columns)), 0), min(int(max(columns)) + 1, width)
  return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None


def _hits(canvas: Canvas, corner: np.ndarray, across: np.ndarray, up: np.ndarray):
  """The pixels that see a parallelogram: (rows, columns, u, v, inverse depth) [n], or None."""
  edges = canvas.camera.coordinates(np.stack([across, up, corner - canvas.camera.eye]))
  sums = np.stack([edges[2], edges[2] + edges[0], edges[2] + edges[1], edges.sum(0)])
  window = _window(canvas, sums.tolist())
  if window is None:
    return None
  u, v, p = edges.tolist()
  normal = _cross(u, v)
  volume = sum(a * b for a, b in zip(normal, p, strict=True))
  if abs(volume) < 1e-6:  # seen edge-on
    return None
  inverse = np.array([_cross(v, p), _cross(p, u), normal], np.float32) / np.float32(volume)
  x, y = canvas.x[window[1]], canvas.y[window[0], None]
  s, t, near = (row[0] * x + (row[1] * y + row[2]) for row in inverse)
  seen = (near > 0) & (near < 1 / NEAR) & (s >= 0) & (s <= near) & (t >= 0) & (t <= near)
  seen &= near * 1.0002 > canvas.inverse_depth[window]  # of two in one plane the later one wins
  rows, columns = np.nonzero(seen)
  if not len(rows):
    return None
  near = near[seen]
  u = s[seen] / near * np.float32(np.linalg.norm(across))
  v = t[seen] / near * np.float32(np.linalg.norm(up))
  return rows + window[0].start, columns + window[1].start, u, v, near


@functools.cache
def _noise_table() -> np.ndarray:
  """Periodic 256x256 noise with a 1/f spectrum, mean 0 and deviation 1; the same in every scene."""
  white = np.random.default_rng(0).standard_normal((256, 256))
  frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256)))
  frequency[0, 0] = np.inf
  table = np.fft.ifft2(np.fft.fft2(white) / frequency).real
  return (table / table.std()).astype(np.float32)


def noise(u: np.ndarray, v: np.ndarray, scale: float) -> np.ndarray:
  """Cloudy noise at (u, v), `scale` table cells a metre; mean 0, deviation 1."""
  row, column = (v * scale).astype(np.int32) & 255, (u * scale).astype(np.int32) & 255
  return _noise_table()[row, column]


def paint(canvas: Canvas, quad: Quad, light: Callable[[np.ndarray], Colour], grain: float) -> None:
  """Paints a quad where it is nearest, lit by `light(normal)`, mottled by `grain` (0 = clean)."""
  normal = quad.normal
  if normal @ (quad.corner - canvas.camera.eye) >= 0:
    if not quad.thin:
      return
    normal = -normal
  hits = _hits(canvas, quad.corner, quad.across, quad.up)
  if hits is None:
    return
  rows, columns, u, v, near = hits
  colour, alpha = quad.texture(u, v)
  if grain:
    place = 5 * float(np.abs(quad.corner).sum())  # so that no two surfaces are mottled alike
    colour = colour * (1 + grain * (noise(u + place, v, 24) + noise(u, v + place, 3)))[:, None]
  solid = alpha > 0
  rows, columns, near, alpha = rows[solid], columns[solid], near[solid], alpha[solid, None]
  colour = colour[solid] * light(normal)
  canvas.colour[rows, columns] += alpha * (colour - canvas.colour[rows, columns])
  canvas.label[rows, columns] = quad.label
  canvas.inverse_depth[rows, columns] = near


def shade(canvas: Canvas, quads: list[Quad], sun: np.ndarray, strength: float) -> None:
  """Darkens the painted ground where `quads` keep the sun (a direction [3]) off it."""
  dark = np.zeros(canvas.label.shape, bool)
  for quad in quads:
    corner, across, up = (
        edge - sun * (edge[1] / sun[1]) for edge in (quad.corner, quad.across, quad.up))
    hits = _hits(canvas, corner, across, up)
    if hits is not None:
      rows, columns, u, v, _ = hits
      size = np.linalg.norm([across, quad.across, up, quad.up], axis=1) + 1e-9
      _, alpha = quad.texture(u * size[1] / size[0], v * size[3] / size[2])
      dark[rows, columns] |= alpha > 0
  canvas.colour[dark & (canvas.inverse_depth > 0)] *= 1 - strength


# Textures.


def _coat(u: np.ndarray, colour: Colour) -> tuple[np.ndarray, np.ndarray]:
  return np.tile(colour, (len(u), 1)), np.ones(len(u), np.float32)


def _disc(u: np.ndarray, v: np.ndarray, x: float, y: float, radius: float) -> np.ndarray:
  return (u - x) ** 2 + (v - y) ** 2 < radius**2


def _limb(u, v, start: tuple[float, float], end: tuple[float, float], radius: float) -> np.ndarray:
  """The points within `radius` of a line from `start` to `end`."""
  (x, y), dx, dy = start, end[0] - start[0], end[1] - start[1]
  along = np.clip(((u - x) * dx + (v - y) * dy) / (dx * dx + dy * dy), 0, 1)
  return _disc(u - along * dx, v - along * dy, x, y, radius)


def plain(colour: Colour) -> Texture:
  return lambda u, v: _coat(u, colour)


def road(asphalt: Colour, paint_colour: Colour, width: float, zebra: float, rails: bool) -> Texture:
  """Asphalt with centre dashes, edge lines, a zebra crossing at v = `zebra`, perhaps rails."""

  def texture(u, v):
    colour, alpha = _coat(u, asphalt)
    centre = np.abs(u - width / 2)
    marks = (centre < 0.09) & (v % 6 < 3) | (np.abs(centre - width / 2 + 0.4) < 0.07)
    crossing = (v > zebra) & (v < zebra + 2.5)
    colour[marks & ~crossing | crossing & (u % 1.1 < 0.55)] = paint_colour
    if rails:
      colour[(np.abs(np.abs(u - width / 4) - 0.72) < 0.07)] = asphalt * 0.45
    return colour, alpha

  return texture


def slabs(stone: Colour, kerb: Colour, edge: float) -> Texture:
  """A pavement of square slabs; the kerb is the 0.25 m beside u = `edge`."""

  def texture(u, v):
    colour, alpha = _coat(u, stone)
    colour[(u % 1 < 0.06) | (v % 1 < 0.06)] *= 0.85
    colour[np.abs(u - edge) < 0.25] = kerb
    return colour, alpha

  return texture


def facade(wall: Colour, glass: Colour, shop: Colour, storey: float, bay: float) -> Texture:
  """Rows of framed windows over a shop floor."""

  def texture(u, v):
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

  def texture(u, v):
    colour, alpha = _coat(u, stone)
    row = np.floor(v / course)
    colour[(v / course % 1 < 0.15) | ((u / length + row / 2) % 1 < 0.08)] *= 0.75
    return colour, alpha

  return texture


def pickets(paint_colour: Colour, height: float, gap: float) -> Texture:
  """Two rails and upright boards `gap` metres apart; see-through between them."""

  def texture(u, v):
    colour, alpha = _coat(u, paint_colour)
    rail = (np.abs(v - 0.25 * height) < 0.06) | (np.abs(v - 0.85 * height) < 0.06)
    alpha[~rail & (u % gap > gap / 2)] = SEE_THROUGH
    return colour, alpha

  return texture


def foliage(leaf: Colour, width: float, height: float, scale: float = 12) -> Texture:
  """A ragged crown, lit from above, that fills an ellipse in a `width` x `height` quad."""

  def texture(u, v):
    clump = noise(u + 17 * width, v + 29 * height, scale)
    colour, alpha = _coat(u, leaf)
    colour *= (0.7 + 0.5 * v / height + 0.22 * clump)[:, None]
    radius = np.hypot(2 * u / width - 1, 2 * v / height - 1)
    alpha[radius > 0.85 + 0.13 * clump] = 0
    return colour, alpha

  return texture


def ridge(leaf: Colour, height: float) -> Texture:
  """A far row of tree tops, 60% to 100% of `height`."""

  def texture(u, v):
    colour, alpha = _coat(u, leaf)
    alpha[v > height * (0.8 + 0.1 * noise(u, 0 * u, 2))] = 0
    return colour * (0.8 + 0.15 * noise(u, v, 5))[:, None], alpha

  return texture


def figure(skin: Colour, shirt: Colour, trousers: Colour, hair: Colour, stride: float) -> Texture:
  """A person standing or walking in 0.9 m x 1.8 m."""

  def texture(u, v):
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

  def texture(u, v):
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

  def texture(u, v):
    colour, alpha = _coat(u, frame)
    discs = _disc(u, v, 0.38, 0.36, 0.36) | _disc(u, v, 1.42, 0.36, 0.36)
    spokes = _disc(u, v, 0.38, 0.36, 0.28) | _disc(u, v, 1.42, 0.36, 0.28)
    bars = (((0.38, 0.36), (0.7, 0.85)), ((0.7, 0.85), (1.3, 0.85)), ((0.85, 0.36), (1.3, 0.85)),
            ((0.7, 0.85), (0.85, 0.36)), ((1.42, 0.36), (1.28, 1.0)), ((0.38, 0.36), (0.85, 0.36)))
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

  def texture(u, v):
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


def flank(paint_colour: Colour, length: float, wheel: float, band: tuple[float, float] | None,
          glass: Colour, pane: float = 1.5) -> Texture:
  """A vehicle's side: wheels of radius `wheel`, panes of glass at the heights `band`."""

  def texture(u, v):
    colour, alpha = _coat(u, paint_colour)
    axle = np.minimum(np.abs(u - 0.18 * length), np.abs(u - 0.82 * length))
    tyre = _disc(axle, v, 0, wheel, wheel)
    if band:
      colour[(v > band[0]) & (v < band[1]) & (u % pane > 0.12)] = glass
    colour[v < 1.1 * wheel] = paint_colour * 0.6
    colour[tyre] = BLACK
    colour[_disc(axle, v, 0, wheel, 0.5 * wheel)] = 0.5
    alpha[(v < 0.8 * wheel) & ~tyre] = 0
    return colour, alpha

  return texture


def bumper(paint_colour: Colour, width: float, lamp: Colour, lamp_height: float,
           band: tuple[float, float] | None, glass: Colour) -> Texture:
  """A vehicle's front or back: two lamps, perhaps a window at the heights `band`, tyres below."""

  def texture(u, v):
    colour, alpha = _coat(u, paint_colour)
    side = width / 2 - np.abs(u - width / 2)
    if band:
      colour[(v > band[0]) & (v < band[1]) & (side > 0.12)] = glass
    colour[(np.abs(v - lamp_height) < 0.11) & (side < 0.45) & (side > 0.06)] = lamp
    colour[v < 0.4] = BLACK
    alpha[(v < 0.25) & (side > 0.3)] = 0
    return colour, alpha

  return texture


def cabin(paint_colour: Colour, length: float, slope: float, height: float,
          glass: Colour) -> Texture:
  """The glazed upper part of a car from the side; its ends lean inwards by `slope`."""

  def texture(u, v):
    colour, alpha = _coat(u, glass)
    end = np.minimum(u, length - u) - slope * v / height
    colour[(v > height - 0.1) | (end < 0.1) | (np.abs(u - length / 2) < 0.06)] = paint_colour
    alpha[end < 0] = 0
    return colour, alpha

  return texture


def signal(housing: Colour, lit: int) -> Texture:
  """A traffic light, 0.5 m x 1.3 m: red, amber and green from above; lamp `lit` shines."""
  lamps = np.array([[0.1, 1, 0.5], [1, 0.75, 0.1], [1, 0.15, 0.1]], np.float32)

  def texture(u, v):
    colour, alpha = _coat(u, housing)
    for place, lamp in enumerate(lamps):
      colour[_disc(u, v, 0.25, 0.25 + 0.4 * place, 0.17)] = lamp * (1 if place == lit else 0.25)
    return colour, alpha

  return texture


def sign(colour_: Colour, inner: Colour, kind: int, side: float) -> Texture:
  """A traffic sign in `side` x `side`: 0 disc, 1 triangle, 2 square; `inner` inside its rim."""

  def texture(u, v):
    colour, alpha = _coat(u, colour_)
    x, y = np.abs(2 * u / side - 1), 2 * v / side - 1
    rim = (np.hypot(x, y), np.maximum(-y, x + (y + 1) / 2), np.maximum(x, np.abs(y)))[kind]
    colour[rim < 0.6] = inner
    colour[(np.abs(y) < 0.14) & (x < 0.4)] = colour_
    alpha[rim > 1] = 0
    return colour, alpha

  return texture


# Solids.


def billboard(eye: np.ndarray, x: float, z: float, size: tuple[float, float], texture: Texture,
              label: int, base: float = 0.0, turn: float = 0.0) -> Quad:
  """An upright quad, `size` = (width, height), that faces the eye, or turns from it by `turn`."""
  angle = np.arctan2(x - eye[0], z - eye[2]) + turn
  across = np.array([np.cos(angle), 0, -np.sin(angle)], np.float32) * size[0]
  corner = np.array([x, base, z], np.float32) - across / 2
  return Quad(corner, across, UP * size[1], texture, label, thin=True)


def box(x: float, z: float, size: tuple[float, float, float], label: int,
        textures: tuple[Texture, Texture, Texture, Texture], base: float = 0.0, yaw: float = 0.0,
        slope: float = 0.0) -> list[Quad]:
  """A box (width, height, length) around (x, z), its length along z before it is turned by `yaw`.

  Args:
    textures: of its sides, front (far end), back (near end) and top.
    slope: metres by which front and back lean inwards over the height.
  """
  width, height, length = size
  right = np.array([np.cos(yaw), 0, -np.sin(yaw)], np.float32) * width
  ahead = np.array([np.sin(yaw), 0, np.cos(yaw)], np.float32) * length
  corner = np.array([x, base, z], np.float32) - (right + ahead) / 2
  up, lean = UP * height, ahead * (slope / length)
  side, front, back, top = textures
  return [
      Quad(corner + right, ahead, up, side, label),
      Quad(corner + ahead, -ahead, up, side, label),
      Quad(corner + right + ahead, -right, up - lean, front, label),
      Quad(corner, right, up + lean, back, label),
      Quad(corner + up + lean, right, ahead - 2 * lean, top, label),
  ]
