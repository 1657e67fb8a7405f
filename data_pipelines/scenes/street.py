"""A procedural street: what stands where, and how often.

Nothing here paints; `lay_out` lists the surfaces (`shapes`) with what they show (`textures`) in
the colours of a look (`looks`). How often things stand there is chosen so that every class
is in at least 15% of the scenes and covers at least 0.2% of the pixels.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from data_pipelines.scenes import looks, shapes, textures
from data_pipelines.scenes.shapes import Pair, Texture, Triple

FAR = 90.0  # metres along the street with plots; furniture and traffic end sooner
LANE = 0.4  # where traffic drives, as a share of the carriageway; the kerb lane is beside it
Paints = tuple[shapes.Colour, shapes.Colour, shapes.Colour]


class Body(NamedTuple):
  """A kind of vehicle's body, metres: heights of its lamps and of the glass in ends and sides."""

  label: int
  wheel: float  # radius
  lamp: float
  end: Pair | None = None
  side: Pair | None = None
  pane: float = 1.5
  slope: float = 0.0  # by how much the ends lean inwards


CAR = Body(shapes.CAR, 0.34, 0.7)
CARGO = Body(shapes.TRUCK, 0.5, 0.8)
CAB = Body(shapes.TRUCK, 0.3, 0.7, (1.3, 2.1), (1.3, 2.1))
BUS = Body(shapes.BUS, 0.48, 0.75, (1.2, 2.6), (1.35, 2.4))
TRAM = Body(shapes.TRAIN, 0.12, 0.85, (1.5, 2.9), (1.3, 2.5), pane=2.4, slope=0.4)


@dataclasses.dataclass
class Street:
  """A street being furnished. Metres; x = 0 is the middle of the road, the eye is at z = 0."""

  rng: np.random.Generator
  look: looks.Look
  half: float  # width of one carriageway
  walk: float  # width of each pavement
  verge: float  # width of the grass beyond each pavement
  crossing: float  # z of a cross street's middle, or -100 for none
  tram: bool
  eye: np.ndarray
  yaw: float  # of the camera, radians
  horizon: float  # share of the picture above it
  ground: list[shapes.Quad] = dataclasses.field(default_factory=list)
  quads: list[shapes.Quad] = dataclasses.field(default_factory=list)

  def paint(self, material: str) -> shapes.Colour:
    return self.look.paint(self.rng, material)

  def chance(self, probability: float) -> bool:
    return self.rng.random() < probability

  def stand(
    self, place: Pair, size: Pair, texture: Texture, label: int, base: float = 0, turn: float = 0
  ) -> None:
    """Adds an upright quad (width, height) at (x, z) that faces the eye or is turned from it."""
    x, z = place
    angle = np.arctan2(x - self.eye[0], z - self.eye[2]) + turn
    across = np.array([np.cos(angle), 0, -np.sin(angle)], np.float32) * size[0]
    corner = np.array([x, base, z], np.float32) - across / 2
    self.quads.append(shapes.Quad(corner, across, shapes.UP * size[1], texture, label, thin=True))

  def is_blocked(self, start: float, end: float) -> bool:
    """Whether z = start..end meets the cross street."""
    return start < self.crossing + 6 and end > self.crossing - 6


def lay_out(rng: np.random.Generator, look: looks.Look) -> Street:
  """Lays out a whole street."""
  half = rng.uniform(4.8, 6.2)
  street = Street(
    rng,
    look,
    half=half,
    walk=rng.uniform(2.0, 3.5),
    verge=rng.uniform(1.0, 3.0) if rng.random() < 0.6 else 0.0,
    crossing=rng.uniform(16, 50) if rng.random() < 0.5 else -100.0,
    tram=rng.random() < 0.4,
    eye=np.array([LANE * half + rng.uniform(-0.5, 0.5), rng.uniform(1.4, 1.9), 0], np.float32),
    yaw=rng.normal(0, 0.06),
    horizon=rng.uniform(0.4, 0.5),
  )
  _lay_ground(street)
  for side in (-1, 1):
    _line_with_plots(street, side)
    _furnish_pavement(street, side)
    _add_pedestrians(street, side)
    _fill_kerb(street, side)
  _fill_lane(street, -LANE * half, rng.uniform(5, 14), np.pi)
  _fill_lane(street, LANE * half, rng.uniform(9, 24), 0.0)
  return street


def camera(street: Street, size: tuple[int, int]) -> shapes.Camera:
  """A camera of 71 degrees, or less if the picture is wider than 2:1, looking down the street."""
  height, width = size
  return shapes.Camera(
    street.eye, street.yaw, focal=0.7 * min(width, 2 * height), horizon=height * street.horizon
  )


def _lay_ground(street: Street) -> None:
  """Grass everywhere, on it two pavements, the road and perhaps a cross street; far trees."""
  rng, half, walk = street.rng, street.half, street.walk
  zebra = street.crossing - 8 if street.crossing > 0 and street.chance(0.7) else -100.0
  asphalt, stone, kerb = street.paint('asphalt'), street.paint('pavement'), street.paint('kerb')
  track = (1 - LANE) * half if street.tram else None
  road = textures.road(asphalt, street.paint('marking'), 2 * half, zebra, track)
  strips = [
    (-300, 0.3, 600, 400, textures.plain(street.paint('grass')), shapes.TERRAIN),
    (-half - walk, 0.3, walk, 400, textures.slabs(stone, kerb, walk), shapes.SIDEWALK),
    (half, 0.3, walk, 400, textures.slabs(stone, kerb, 0), shapes.SIDEWALK),
    (-half, 0.3, 2 * half, 400, road, shapes.ROAD),
  ]
  if street.crossing > 0:
    strips.append((-300, street.crossing - 4, 600, 8, textures.plain(asphalt), shapes.ROAD))
  for left, start, width, length, texture, label in strips:
    corner, across, ahead = np.array([[left, 0, start], [width, 0, 0], [0, 0, length]], np.float32)
    street.ground.append(shapes.Quad(corner, across, ahead, texture, label))
  height = rng.uniform(6, 14)
  trees = textures.ridge(street.paint('leaf'), height)
  corner, across = np.array([[-250, 0, 150], [500, 0, 0]], np.float32)
  far = shapes.Quad(corner, across, shapes.UP * height, trees, shapes.VEGETATION, thin=True)
  street.ground.append(far)


def _line_with_plots(street: Street, side: int) -> None:
  """Plots of houses, gardens behind fences, yards behind walls, and parks, one after another."""
  z = street.rng.uniform(-4, 2)
  while z < FAR:
    length = street.rng.uniform(8, 18)
    if street.is_blocked(z, z + length):
      z = max(z + 4, street.crossing + 6) if z > street.crossing - 10 else z + 4
      continue
    plot = street.rng.choice(['house', 'garden', 'yard', 'park'], p=[0.3, 0.3, 0.25, 0.15])
    edge = side * (street.half + street.walk + street.verge)
    if plot == 'house':
      _add_building(street, side, edge, z, length)
    elif plot == 'park':
      _add_trees(street, side, edge, z, length, count=3)
    else:
      _add_enclosure(street, edge, z, length, shapes.FENCE if plot == 'garden' else shapes.WALL)
      if street.chance(0.75):
        _add_building(street, side, edge + side * street.rng.uniform(2, 7), z, length)
      _add_trees(street, side, edge, z, length, count=1)
    z += length


def _add_building(street: Street, side: int, front: float, z: float, length: float) -> None:
  """A house whose front is at x = `front`, away from the road."""
  rng, depth = street.rng, 8.0
  height = rng.uniform(2.8, 3.6) * rng.integers(2, 6)
  wall, glass, shop = map(street.paint, ('facade', 'glass', 'shop'))
  walls = textures.facade(wall, glass, shop, rng.uniform(2.8, 3.6), rng.uniform(1.8, 3.2))
  size = (depth, height, length * rng.uniform(0.85, 1))
  place = (front + side * depth / 2, z + length / 2, 0)
  faces = (walls, walls, walls, textures.plain(street.paint('shop')))
  street.quads += shapes.box(place, size, shapes.BUILDING, faces)


def _add_enclosure(street: Street, edge: float, z: float, length: float, label: int) -> None:
  """A fence or a wall along the pavement's far edge."""
  rng = street.rng
  if label == shapes.FENCE:
    height = rng.uniform(1.1, 1.9)
    texture = textures.pickets(street.paint('fence'), height, rng.uniform(0.25, 0.5))
  else:
    height = rng.uniform(1.4, 2.8)
    texture = textures.blocks(street.paint('stone'), rng.uniform(0.5, 1.2), rng.uniform(0.25, 0.5))
  street.quads += shapes.box((edge, z + length / 2, 0), (0.3, height, length), label, [texture] * 4)


def _add_trees(street: Street, side: int, edge: float, z: float, length: float, count: int) -> None:
  """Trees and bushes on the grass beyond x = `edge`."""
  rng = street.rng
  for _ in range(count):
    x, depth = edge + side * rng.uniform(1, 5), z + rng.uniform(0, 1) * length
    if street.chance(0.3):
      size = (rng.uniform(1.5, 3), rng.uniform(1, 2))
      texture = textures.foliage(street.paint('leaf'), *size)
      street.stand((x, depth), size, texture, shapes.VEGETATION, base=-0.2)
    else:
      _add_tree(street, x, depth)


def _add_tree(street: Street, x: float, z: float) -> None:
  rng, leaf = street.rng, street.paint('leaf')
  trunk, size = rng.uniform(1.8, 2.6), (rng.uniform(3.5, 6), rng.uniform(3.5, 6))
  street.stand((x, z), (0.35, trunk + 1), textures.plain(leaf * 0.6), shapes.VEGETATION)
  street.stand((x, z - 0.05), size, textures.foliage(leaf, *size), shapes.VEGETATION, base=trunk)


def _furnish_pavement(street: Street, side: int) -> None:
  """Lamp posts, traffic lights, signs and trees near the kerb."""
  rng, x = street.rng, side * (street.half + 0.45)
  z, metal = rng.uniform(5, 16), textures.plain(street.paint('metal'))
  while z < 60:
    street.stand((x, z), (0.2, rng.uniform(5.5, 7.5)), metal, shapes.POLE)
    street.stand((x - side * 0.8, z), (1.8, 0.2), metal, shapes.POLE, base=5.4)
    z += rng.uniform(14, 26)
  if street.crossing > 0 or street.chance(0.25):
    _add_signal(street, x, street.crossing - 5.2 if street.crossing > 0 else rng.uniform(8, 20))
  for _ in range(rng.integers(1, 3)):
    _add_sign(street, x + side * 0.15, rng.uniform(6, 26))
  if street.chance(0.35):
    for z in np.arange(rng.uniform(8, 16), 60, rng.uniform(10, 16)):
      if not street.is_blocked(z, z):
        _add_tree(street, side * (street.half + street.walk - 0.6), float(z))


def _add_signal(street: Street, x: float, z: float) -> None:
  """A traffic light at the kerb and, on an arm, a second one over the road."""
  housing, lit = street.paint('housing'), int(street.rng.integers(3))
  metal, texture = textures.plain(street.paint('metal')), textures.signal(housing, lit)
  over = x - np.sign(x) * 2.6
  street.stand((x, z), (0.18, 5.0), metal, shapes.POLE)
  street.stand(((x + over) / 2, z), (abs(x - over), 0.16), metal, shapes.POLE, base=4.9)
  street.stand((x, z - 0.1), (0.6, 1.56), texture, shapes.LIGHT, base=2.5)
  street.stand((over, z - 0.1), (0.6, 1.56), texture, shapes.LIGHT, base=4.0)


def _add_sign(street: Street, x: float, z: float) -> None:
  rng, side = street.rng, street.rng.uniform(0.9, 1.3)
  base = rng.uniform(2.0, 2.8)
  colour, face, kind = street.paint('sign'), street.paint('sign_face'), int(rng.integers(3))
  texture = textures.sign(colour, face, kind, side)
  metal = textures.plain(street.paint('metal'))
  street.stand((x, z), (0.12, base + 0.2), metal, shapes.POLE)
  street.stand((x, z - 0.1), (side, side), texture, shapes.SIGN, base)


def _add_pedestrians(street: Street, side: int) -> None:
  rng = street.rng
  for _ in range(rng.integers(2, 6)):
    x = side * (street.half + rng.uniform(0.6, street.walk - 0.3))
    height = rng.uniform(0.88, 1.05)
    skin, shirt, trousers, hair = map(street.paint, ('skin', 'cloth', 'trousers', 'hair'))
    texture = textures.figure(trousers, skin, shirt, hair, rng.uniform(0.03, 0.25))
    street.stand((x, rng.uniform(4.5, 24)), (0.9, 1.8 * height), texture, shapes.PERSON)


def _fill_kerb(street: Street, side: int) -> None:
  """Along the kerb: parked cars, or two-wheelers with and without riders."""
  rng, z = street.rng, street.rng.uniform(5, 12)
  parked = street.chance(0.35)
  while z < (60 if parked else 32):
    if not street.is_blocked(z, z + 5):
      if parked:
        _add_car(street, side * (street.half - 1.0), z, 0.0 if side > 0 else np.pi)
      else:
        _add_two_wheeler(street, side * (street.half - rng.uniform(0.5, 1.2)), z)
    z += rng.uniform(5.5, 9)


def _add_two_wheeler(street: Street, x: float, z: float) -> None:
  """A bicycle or a motorcycle, three in four with a rider, seen from an angle of at least 35."""
  rng = street.rng
  turn = rng.uniform(-0.9, 0.9) + (np.pi if street.chance(0.5) else 0)
  if street.chance(0.5):
    label, texture = shapes.BICYCLE, textures.bicycle(street.paint('bicycle'))
  else:
    label, texture = shapes.MOTORCYCLE, textures.motorcycle(street.paint('motorcycle'))
  street.stand((x, z), (1.8, 1.1), texture, label, turn=turn)
  if street.chance(0.75):
    skin, shirt, trousers, helmet = map(street.paint, ('skin', 'cloth', 'trousers', 'helmet'))
    rider = textures.sitter(trousers, skin, shirt, helmet)
    street.stand((x, z - 0.03), (1.8, 1.9), rider, shapes.RIDER, turn=turn)


def _fill_lane(street: Street, x: float, z: float, yaw: float) -> None:
  """Traffic in one lane from z on; trams run only in the oncoming lane of streets with rails."""
  rng = street.rng
  kinds = [_add_car, _add_truck, _add_bus, _add_tram]
  odds = [0.25, 0.15, 0.15, 0.45] if street.tram and x < 0 else [0.5, 0.26, 0.24, 0]
  while z < 50:
    add = kinds[rng.choice(4, p=odds)]
    z = add(street, x, z, yaw + rng.normal(0, 0.02)) + rng.uniform(6, 24)


def _add_body(street: Street, kind: Body, place: Triple, size: Triple, paints: Paints) -> None:
  """Adds a body at (x, z, yaw) of size (width, height, length); paints of body, glass and roof."""
  (width, _, length), (colour, glass, roof) = size, paints
  ends = [
    textures.bumper(colour, glass, street.paint(lamp), width, kind.lamp, kind.end)
    for lamp in ('headlamp', 'taillamp')
  ]
  side = textures.flank(colour, glass, length, kind.wheel, kind.side, kind.pane)
  faces = (side, *ends, textures.plain(roof))
  street.quads += shapes.box(place, size, kind.label, faces, slope=kind.slope)


def _add_car(street: Street, x: float, z: float, yaw: float) -> float:
  """A car whose near end is at z; returns where its far end is. So do the next three."""
  rng, colour, glass = street.rng, street.paint('car'), street.paint('glass')
  width, length = rng.uniform(1.7, 1.9), rng.uniform(3.8, 4.7)
  body, top, slope = rng.uniform(0.85, 1.0), rng.uniform(0.5, 0.65), rng.uniform(0.3, 0.6)
  z += length / 2
  _add_body(street, CAR, (x, z, yaw), (width, body, length), (colour, glass, colour))
  upper, pane = 0.6 * length, textures.plain(glass)
  faces = (textures.cabin(glass, colour, upper, slope, top), pane, pane, textures.plain(colour))
  place, size = (x, z - 0.1 * np.cos(yaw) * length, yaw), (width - 0.2, top, upper)
  street.quads += shapes.box(place, size, shapes.CAR, faces, body, slope)
  return z + length / 2


def _add_truck(street: Street, x: float, z: float, yaw: float) -> float:
  rng, colour, glass = street.rng, street.paint('truck'), street.paint('glass')
  cargo, length, height = street.paint('cargo'), rng.uniform(5, 8), rng.uniform(2.8, 3.6)
  z += length / 2 + 1
  _add_body(street, CARGO, (x, z, yaw), (2.4, height, length), (cargo, glass, cargo))
  x, ahead = x + np.sin(yaw) * (length / 2 + 1.0), z + np.cos(yaw) * (length / 2 + 1.0)
  _add_body(street, CAB, (x, ahead, yaw), (2.3, 2.5, 1.9), (colour, glass, colour))
  return z + length / 2 + 2


def _add_bus(street: Street, x: float, z: float, yaw: float) -> float:
  rng, colour, glass = street.rng, street.paint('bus'), street.paint('glass')
  length, height = rng.uniform(9, 12), rng.uniform(2.9, 3.3)
  z += length / 2
  _add_body(street, BUS, (x, z, yaw), (2.5, height, length), (colour, glass, colour))
  return z + length / 2


def _add_tram(street: Street, x: float, z: float, yaw: float) -> float:
  """Longer and higher than a bus, with a leaning nose, a roof of another colour and no wheels."""
  rng, colour, glass = street.rng, street.paint('tram'), street.paint('glass')
  length, roof = rng.uniform(16, 26), street.paint('tram_roof')
  z += length / 2
  _add_body(street, TRAM, (x, z, yaw), (2.6, 3.2, length), (colour, glass, roof))
  gear = [textures.plain(roof)] * 4
  street.quads += shapes.box((x, z, yaw), (2.0, 0.6, length - 2), shapes.TRAIN, gear, 3.2)
  return z + length / 2
