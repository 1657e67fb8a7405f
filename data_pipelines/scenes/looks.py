"""The looks of the procedural streets: what things are painted with, light, and the camera.

'game' is clean: saturated paint, one clear noon, no texture, a perfect lens. 'camera' has other,
duller paint, several kinds of weather, stained and rough surfaces, haze, and a lens and a sensor
with their faults; 'dusk' and 'fog' are that camera in worse light. Shapes come from `street`
and are the same in all; only the statistics of colour, light and texture shift, which is what
adaptation has to overcome.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from data_pipelines.scenes import shapes


@functools.cache
def _colours(text: str) -> np.ndarray:
  """'8a8d96 9a9ca3' -> [2, 3] float32 in 0..1."""
  return np.array([list(bytes.fromhex(word)) for word in text.split()], np.float32) / 255


class Weather(NamedTuple):
  """Sky and light. Colours are '#rrggbb' without '#'; elevations in degrees, haze per metre."""

  zenith: str
  horizon: str
  sun: str
  ambient: str
  elevation: tuple[float, float]
  shadow: float  # how much darker the ground is where the sun does not reach
  haze: tuple[float, float]
  clouds: float


class Look(NamedTuple):
  """How a world is painted, lit and photographed; amounts are 0 for a perfect picture."""

  paints: Mapping[str, str]  # per material, the colours it is drawn from
  variation: float  # relative spread of brightness between things of one material
  grain: float  # contrast of the mottling within a surface
  weathers: tuple[Weather, ...]  # one is drawn per scene
  exposure: tuple[float, float] = (1.0, 1.0)  # range of the factor on brightness
  gamma: tuple[float, float] = (1.0, 1.0)  # range of the exponent on brightness
  cast: float = 0.0  # spread of the colour balance
  vignette: float = 0.0  # most darkening of the corners
  blur: tuple[float, float] = (0.0, 0.0)  # range of the standard deviation, 1/128 of the height
  noise: tuple[float, float] = (0.0, 0.0)  # range of the standard deviation at white

  def paint(self, rng: np.random.Generator, material: str) -> np.ndarray:
    """Draws a colour [3] for one thing made of `material`."""
    choices = _colours(self.paints[material])
    factor = rng.uniform(1 - self.variation, 1 + self.variation)
    return np.clip(choices[rng.integers(len(choices))] * np.float32(factor), 0, 1)


GAME = Look(dict(
  asphalt='6c7280 777d8c', marking='ffffff', pavement='d8c4a0 ccb898', kerb='f0e8d8',
  facade='e8a05c d86a50 f0d488 78aad8 c890c0 e0c0a8', glass='3060a0', shop='b04838 30785c',
  stone='a84c38 b86040', fence='8a5020 f4f4f4 3c70b0', metal='3c4450', housing='101010',
  sign='e01818 1850d0 f0c000', sign_face='ffffff', leaf='2c9030 38a838 208048',
  grass='88cc38 98d850', skin='f0c098 b07848', cloth='e02828 2850e0 f0d020 20b060 f080c0',
  trousers='203060 404040 604020', hair='402010 c89030', helmet='f0f0f0 e04020',
  car='e02020 2060e0 f0f0f0 f0b820 28a050 303038', truck='f07818 3068c0 e8e8e8',
  cargo='f0f0e8 e8d8b0', bus='f0c000 e84020', tram='18a0a0 20b890', tram_roof='f0f0f0',
  bicycle='e02020 1870e0 20a040', motorcycle='d01818 1840c0 f08010', headlamp='ffffe0',
  taillamp='ff2010',
), variation=0.08, grain=0.015, weathers=(
  Weather('3888f0', 'b8dcff', '706858', 'a4a4b0', (40, 65), 0.4, (0, 0), 0.0),
))  # fmt: skip

CAMERA = Look(dict(
  asphalt='5a5248 6b6254 4a4540', marking='c8c4b8 a8a498', pavement='7a7870 8c8a84 6a6660',
  kerb='a09a90 8a857c', facade='8f8578 a89a84 766a60 8e7464 b5b0a8 6c7078', glass='3a4044 5a6468',
  shop='4a4440 6a5a48', stone='8c8880 7a746a 9a8a78', fence='44484a 6a6a64 584a3c',
  metal='6a6e70 565856', housing='2a2c26 3c3a20', sign='a83028 284c88 b89830', sign_face='d0ccc0',
  leaf='4a5230 6a6434 7a5c2c 806c38', grass='7a7648 6a6c40 8a7c54', skin='c09078 8a6450',
  cloth='3a3e4a 5a3c3c 6a6a66 2c3038 8a8478', trousers='2c3038 40444c 50483c', hair='302820 585048',
  helmet='808080 303030', car='b8bab8 303234 6e7274 7a2c2c 34445c d0d0cc',
  truck='c8c8c0 5a6a78 8a4a3a', cargo='b0aca0 8c9094', bus='b89c50 8a3a34 b0aca0',
  tram='40625e 5c7c74 84908c', tram_roof='807c74', bicycle='303030 585c60 6a3830',
  motorcycle='2c2c2c 5a2424 404a58', headlamp='d8d4c0', taillamp='902820',
), variation=0.22, grain=0.08, exposure=(0.85, 1.25), gamma=(0.85, 1.25), cast=0.08,
  vignette=0.35, blur=(0.4, 1.0), noise=(0.015, 0.045), weathers=(
  Weather('b0b8c0', 'd0d2d2', '1c1c1c', 'b8bcc0', (60, 80), 0.15, (0.006, 0.018), 0.03),
  Weather('8094b0', 'e8d0a8', 'a88454', '6c727e', (12, 30), 0.45, (0.003, 0.010), 0.05),
  Weather('6e8cb4', 'c0ccd4', '686458', '8a8e98', (30, 55), 0.4, (0.002, 0.006), 0.1),
))  # fmt: skip

# The same streets and the same camera when it is hard to see: for networks that never saw either.
DUSK = CAMERA._replace(
  weathers=(
    Weather('28304c', '786470', '684830', '44485a', (4, 12), 0.3, (0.003, 0.010), 0.05),
    Weather('303848', '545c68', '282420', '484e58', (10, 25), 0.2, (0.006, 0.014), 0.04),
  ),
  exposure=(0.85, 1.2),
  noise=(0.04, 0.07),
)
FOG = CAMERA._replace(
  weathers=(Weather('c4c8ca', 'd2d4d4', '101010', 'bcc0c2', (60, 80), 0.05, (0.03, 0.06), 0.0),),
  noise=(0.01, 0.03),
)

# A scene's random numbers depend on its look's position here: new looks go to the end.
LOOKS: Mapping[str, Look] = {'game': GAME, 'camera': CAMERA, 'dusk': DUSK, 'fog': FOG}


class Light(NamedTuple):
  """A scene's light: the direction to the sun [3], and what the sun and the sky give (RGB)."""

  sun: np.ndarray
  sunlight: np.ndarray
  ambient: np.ndarray

  def __call__(self, normal: np.ndarray) -> np.ndarray:
    """The factor [3] on the colour of a surface with this normal [3]."""
    sky = 0.85 + 0.15 * normal[1]
    return (self.ambient * sky + self.sunlight * max(float(normal @ self.sun), 0)) * 1.35


def draw_light(rng: np.random.Generator, weather: Weather) -> Light:
  """Places the sun of `weather` anywhere but straight behind the street's far end."""
  elevation, azimuth = np.radians(rng.uniform(*weather.elevation)), rng.uniform(0.2, 1.8) * np.pi
  level = np.cos(elevation)
  sun = np.array([level * np.sin(azimuth), np.sin(elevation), level * np.cos(azimuth)], np.float32)
  sunlight, ambient = _colours(f'{weather.sun} {weather.ambient}')
  return Light(sun, sunlight, ambient)


def add_sky(canvas: shapes.Canvas, weather: Weather, rng: np.random.Generator) -> None:
  """Fills the canvas with the sky: a gradient up from the horizon, and clouds."""
  zenith, horizon = _colours(f'{weather.zenith} {weather.horizon}')
  rise = np.clip(canvas.y / 0.5, 0, 1)[:, None, None]
  canvas.colour[:] = horizon + (zenith - horizon) * rise
  if weather.clouds:
    distance = 1 / np.maximum(canvas.y[:, None], 0.08)
    place = rng.uniform(50, 200, 2)
    clouds = shapes.noise(canvas.x * distance + place[0], distance + place[1], 20)
    canvas.colour += weather.clouds * clouds[..., None]


def add_haze(canvas: shapes.Canvas, weather: Weather, rng: np.random.Generator) -> None:
  """Fades distant things into the horizon's colour: 1 - exp(-haze * depth)."""
  haze = np.float32(rng.uniform(*weather.haze))
  near = canvas.inverse_depth
  fade = np.where(near > 0, 1 - np.exp(-haze / np.maximum(near, 1e-4)), 0)[..., None]
  canvas.colour += fade * (_colours(weather.horizon)[0] - canvas.colour)


def photograph(colour: np.ndarray, look: Look, rng: np.random.Generator) -> np.ndarray:
  """What the look's lens and sensor make of linear `colour` [h, w, 3]: uint8 [h, w, 3]."""
  height, width, _ = colour.shape
  balance = np.exp(look.cast * rng.standard_normal(3)) * rng.uniform(*look.exposure)
  gamma, blur = rng.uniform(*look.gamma), rng.uniform(*look.blur) * height / 128
  vignette, noise = rng.uniform(0, 1) * look.vignette, rng.uniform(*look.noise)
  image = colour * np.float32(balance)
  if blur:
    image = _blur(_blur(image, blur, axis=0), blur, axis=1)
  if vignette:
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    image *= (1 - vignette * (x * x + y * y) / 2).astype(np.float32)[..., None]
  image = np.clip(image, 0, 1)
  if gamma != 1:
    image **= np.float32(gamma)
  if noise:
    shot = np.sqrt(0.2 + 0.8 * image) * np.float32(noise)  # brighter is noisier
    image += shot * rng.standard_normal(image.shape, np.float32)
  return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)


def _blur(image: np.ndarray, sigma: float, axis: int) -> np.ndarray:
  """Gaussian blur along one axis, edges repeated."""
  reach = int(np.ceil(2.5 * sigma))
  taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2).astype(np.float32)
  padding = [(0, 0)] * 3
  padding[axis] = (reach, reach)
  padded = np.pad(image, padding, 'edge')
  size = image.shape[axis]
  shifted = (padded.take(range(start, start + size), axis) for start in range(len(taps)))
  weighted = (tap * part for tap, part in zip(taps / taps.sum(), shifted, strict=True))
  return functools.reduce(np.add, weighted)
