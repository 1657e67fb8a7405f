"""How a procedural street is painted: one primitive, solids built of it, and the canvas.

The only primitive is a textured parallelogram, `Quad`. A quad with corner P and edges U and V, in
camera coordinates, covers the point (s, t) of pixel ray d where s U + t V + P = z d; so
(s, t, 1) / z = [U V P]^-1 d: one 3x3 matrix per quad gives texture coordinates and inverse depth
for all pixels at once. Quads are painted from far to near into a depth buffer.

World: x right, y up, z forward along the street, metres, ground at y = 0. Textures are functions
(u, v) -> (colour [n, 3], alpha [n]) of metres from the quad's corner. The label is written
wherever alpha > 0, so the gaps of a fence (a small alpha) belong to the fence, as in Cityscapes,
although one sees through them.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Colour = np.ndarray  # [3] float32, 0..1
Surface = tuple[np.ndarray, np.ndarray]  # colour [n, 3] and alpha [n]
Pair = tuple[float, float]
Triple = tuple[float, float, float]
Texture = Callable[[np.ndarray, np.ndarray], Surface]  # of (u, v), both [n]

(
  ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, LIGHT, SIGN, VEGETATION, TERRAIN,
  SKY, PERSON, RIDER, CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE,
) = range(19)  # fmt: skip
NEAR = 0.1  # metres in front of the eye; nothing nearer is painted
UP = np.array([0, 1, 0], np.float32)


def _cross(a: list[float], b: list[float]) -> tuple[float, float, float]:
  """np.cross for single vectors, where it spends its time on shapes."""
  return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


class Quad(NamedTuple):
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


class Camera(NamedTuple):
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


class Canvas:
  """The picture being painted: colour [h, w, 3], label [h, w], inverse depth [h, w] (0 = sky)."""

  def __init__(self, camera: Camera, height: int, width: int):
    self.camera = camera
    # Slopes of the pixel centres: x [width] to the right, y [height] upwards, at depth 1.
    self.x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / camera.focal
    self.y = (camera.horizon - 0.5 - np.arange(height, dtype=np.float32)) / camera.focal
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


def _hits(
  canvas: Canvas, corner: np.ndarray, across: np.ndarray, up: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
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
      edge - sun * (edge[1] / sun[1]) for edge in (quad.corner, quad.across, quad.up)
    )
    hits = _hits(canvas, corner, across, up)
    if hits is not None:
      rows, columns, u, v, _ = hits
      size = np.linalg.norm([across, quad.across, up, quad.up], axis=1) + 1e-9
      _, alpha = quad.texture(u * size[1] / size[0], v * size[3] / size[2])
      dark[rows, columns] |= alpha > 0
  canvas.colour[dark & (canvas.inverse_depth > 0)] *= 1 - strength


def box(
  place: Triple,
  size: Triple,
  label: int,
  faces: Sequence[Texture],
  base: float = 0,
  slope: float = 0,
) -> list[Quad]:
  """A box at `place` (x, z, yaw) of `size` (width, height, length), along z before it is turned.

  `faces` are textures of its sides, front (far end), back (near end) and top; `base` is its height
  above the ground; front and back lean inwards by `slope` metres over the height.
  """
  (x, z, yaw), (width, height, length) = place, size
  right = np.array([np.cos(yaw), 0, -np.sin(yaw)], np.float32) * width
  ahead = np.array([np.sin(yaw), 0, np.cos(yaw)], np.float32) * length
  corner = np.array([x, base, z], np.float32) - (right + ahead) / 2
  up, lean = UP * height, ahead * (slope / length)
  side, front, back, top = faces
  return [
    Quad(corner + right, ahead, up, side, label),
    Quad(corner + ahead, -ahead, up, side, label),
    Quad(corner + right + ahead, -right, up - lean, front, label),
    Quad(corner, right, up + lean, back, label),
    Quad(corner + up + lean, right, ahead - 2 * lean, top, label),
  ]
