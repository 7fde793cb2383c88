"""A simulated event camera that looks at a moving picture. Nothing here was recorded.

CIFAR10-DVS (Li et al., Frontiers in Neuroscience 2017) was recorded by moving pictures on a
screen, again and again along a closed path of four straight strokes, before a camera that stands
still. This is that, with the usual model of such a camera (Lichtsteiner et al., JSSC 2008; Rebecq
et al., "ESIM", CoRL 2018). A pixel sees the logarithm of the light,

    L(t) = log(light(t) + floor)

at sampling times, straight lines in between. It remembers a level R, at first L(0), and when L(t)
has come to R + c or R - c, c being its own threshold, it sends an event of polarity 1 or 0 at that
moment, and R moves there. Thresholds differ from pixel to pixel, as in real cameras, and stay the
same for all recordings. Every pixel also sends events of either polarity for no reason, at random
times (a Poisson process): background activity.

Light, logarithms and thresholds are rounded to fixed steps and everything else is whole numbers, so
that the same events come out on every machine.
"""

import dataclasses
import functools
import zlib

import numpy as np

from snnvit_jax.data.sources.events.recording import Events

_WEIGHT_STEPS = 64  # of the interpolation between pixels, on each axis
_LOG_STEPS = 4096  # of a logarithm's unit
_LEVELS = 255  # of the pictures


@dataclasses.dataclass(frozen=True)
class Camera:
    """A camera that stands still, and how it sees a picture.

    Attributes:
      sensor: (height, width) in pixels.
      magnification: pixels of the sensor for each of the picture, > 0.
      threshold: mean change of the logarithm that makes an event, > 0.
      mismatch: standard deviation of the thresholds over the pixels, >= 0; none is below half of
        the mean.
      floor: light that is always there, a share of the brightest, > 0.
      sampling: microseconds between two looks at the light, >= 1.
      noise: events of background activity that each pixel sends in a second, >= 0.
      seed: of thresholds and background activity.
    """

    sensor: tuple[int, int] = (16, 16)
    magnification: float = 1.5
    threshold: float = 0.3
    mismatch: float = 0.03
    floor: float = 0.1
    sampling: int = 1000
    noise: float = 5.0
    seed: int = 0


def diamond(reach, samples, loops):
    """Returns where the picture is at each sampling time: [4 * samples * loops + 1, 2].

    Four straight strokes, again and again: from above to the right, down, to the left, and up.

    Args:
      reach: distance of each corner from the centre, in pixels of the sensor.
      samples: of each stroke, >= 1.
      loops: times that the path is gone through, >= 1.
    """
    corners = reach * np.array([(-1, 0), (0, 1), (1, 0), (0, -1), (-1, 0)], np.float64)
    places = np.arange(4 * samples) / samples
    loop = np.stack([np.interp(places, np.arange(5), side) for side in corners.T], axis=1)
    return np.concatenate([np.tile(loop, (loops, 1)), corners[:1]])


def thresholds(camera):
    """Returns the threshold of each pixel, [H, W] whole numbers in steps of 1 / 4096.

    Args:
      camera: a `Camera`.
    """
    noise = np.random.default_rng(camera.seed).normal(size=camera.sensor)
    values = np.maximum(camera.threshold + camera.mismatch * noise, camera.threshold / 2)
    return np.maximum(np.rint(_LOG_STEPS * values), 1).astype(np.int32)


def logarithms(pictures, place, camera):
    """Returns what the pixels see, [N, H, W] whole numbers in steps of 1 / 4096.

    Args:
      pictures: uint8 [N, h, w]; around them it is dark. In between it is interpolated bilinearly.
      place: (y, x) of the pictures' centre beside that of the sensor, in pixels of the sensor.
      camera: a `Camera`.
    """
    rows, columns = (
        _weights(picture, sensor, shift, camera.magnification)
        for picture, sensor, shift in zip(pictures.shape[1:], camera.sensor, place, strict=True)
    )
    # Whole numbers below 2^24: exact in whatever order they are added.
    light = rows @ pictures.astype(np.float32) @ columns.T
    return _table(camera.floor)[light.astype(np.int32)]


def simulate(pictures, path, camera):
    """Returns the recordings of pictures that move, each `Events` sorted by time.

    A recording is a function of its own picture, the path and the camera.

    Args:
      pictures: uint8 [N, h, w].
      path: [K + 1, 2] places (y, x) at the sampling times, see `logarithms`.
      camera: a `Camera`.
    """
    threshold = thresholds(camera)
    before = logarithms(pictures, path[0], camera)
    remembered = before.copy()
    found = []
    for step, place in enumerate(path[1:]):
        now = logarithms(pictures, place, camera)
        pixels = np.nonzero(np.abs(now - remembered) >= threshold)
        start, end, level = (values[pixels] for values in (before, now, remembered))
        own = threshold[pixels[1:]]
        crossed = np.abs(end - level) // own
        events, reached, way = _crossings(start, end, level, own, crossed)
        t = step * camera.sampling + camera.sampling * reached // way
        found.append((*(index[events] for index in pixels), t, (end > level)[events]))
        remembered[pixels] = level + np.sign(end - level) * crossed * own
        before = now
    found += [_background(i, x, len(path) - 1, camera) for i, x in enumerate(pictures)]
    return _recordings(found, len(pictures), camera.sensor)


def _weights(size, sensor, shift, magnification):
    """What share each pixel of a picture has in each of the sensor, along one axis, in 1 / 64."""
    seen = (np.arange(sensor) + 0.5 - sensor / 2 - shift) / magnification + size / 2 - 0.5
    share = 1 - np.abs(seen[:, None] - np.arange(size))
    return np.rint(_WEIGHT_STEPS * np.maximum(share, 0)).astype(np.float32)


@functools.lru_cache(maxsize=2)
def _table(floor):
    """The logarithm for each amount of light, which is a whole number, too."""
    brightest = _LEVELS * _WEIGHT_STEPS**2
    light = np.arange(brightest + 1) / brightest
    return np.rint(_LOG_STEPS * np.log(light + floor)).astype(np.int32)


def _crossings(start, end, level, threshold, crossed):
    """Each time that a pixel's light comes to a level at which it sends an event.

    Returns (which pixel, how far the light has come by then, all of its way): [E] each.
    """
    pixel = np.repeat(np.arange(len(crossed)), crossed)
    which = np.arange(len(pixel)) - (np.cumsum(crossed) - crossed)[pixel] + 1
    way = np.abs(end - start)[pixel]
    reached = which * threshold[pixel] - (np.sign(end - level) * (start - level))[pixel]
    return pixel, reached, way


def _background(index, picture, samples, camera):
    """Events for no reason, as they come from `simulate`: recording, y, x, t and p, [E] each."""
    rng = np.random.default_rng((camera.seed, zlib.crc32(picture.tobytes())))
    duration = samples * camera.sampling
    count = rng.poisson(camera.noise * duration * 1e-6 * camera.sensor[0] * camera.sensor[1])
    y, x = (rng.integers(side, size=count) for side in camera.sensor)
    t, p = rng.integers(duration, size=count), rng.integers(2, size=count).astype(bool)
    return np.full(count, index), y, x, t, p


def _recordings(found, count, sensor):
    n, y, x, t, p = map(np.concatenate, zip(*found, strict=True))
    order = np.argsort(n * (t.max(initial=0) + 1) + t, kind="stable")
    n, y, x, t, p = (values[order] for values in (n, y, x, t, p))
    ends = np.searchsorted(n, np.arange(count + 1))
    events = Events(t, x.astype(np.uint16), y.astype(np.uint16), p.astype(np.uint8), sensor)
    return [events.part(slice(*ends[i : i + 2])) for i in range(count)]
