"""Transforms of recordings: pure functions of their frames (and a random generator) on the host.

What is drawn is drawn once for a recording and is the same for all of its frames, because the
camera saw one scene. Frames are counts of events [T, H, W, C]; what comes in from outside is 0.
"""

import functools
import math

import numpy as np

BINS = 31  # magnitudes of an operation, evenly spread
SHEAR = 0.3  # pixels for each pixel of distance from the middle
TRANSLATE = 5.0  # pixels
ROTATE = 30.0  # degrees
CUTOUT_AREA = (0.001, 0.11)  # share of the frame


def resize(frames, size):
    """Returns frames at another size, each pixel the mean over what it covers, or themselves.

    Every event counts the same, however large the change. Halving gives the mean of 2x2 pixels,
    which is what bilinear interpolation from 128x128 to 64x64 gives, too, as recipes have it.

    Args:
      frames: [T, H, W, C].
      size: (height, width).

    Returns:
      float32 [T, height, width, C], or the frames as they are if they have the size.
    """
    if tuple(size) == frames.shape[1:3]:
        return frames
    return _averages(_averages(frames, 1, size[0]), 2, size[1])


def _averages(frames, axis, new):
    """Brings one axis to another length, adding up what each new pixel covers of the old ones."""
    pixels, shares = _covered(frames.shape[axis], new)
    shape = [-1 if place == axis else 1 for place in range(frames.ndim)]
    parts = zip(pixels, shares, strict=True)
    return sum(np.take(frames, pixel, axis) * share.reshape(shape) for pixel, share in parts)


@functools.lru_cache(maxsize=8)
def _covered(old, new):
    """Which of `old` pixels each of `new` covers, and their shares in it: [K, new] each."""
    ends = np.arange(new + 1) * (old / new)
    pixels = np.floor(ends[:-1]).astype(int) + np.arange(old // new + 2)[:, None]
    shares = np.minimum(ends[1:], pixels + 1) - np.maximum(ends[:-1], pixels)
    shares = (shares.clip(0) * (new / old)).astype(np.float32)
    used = shares.any(axis=1)
    return pixels[used].clip(0, old - 1), shares[used]


def random_flip(frames, rng):
    """Returns the frames or, with probability 1/2, their mirror images.

    Args:
      frames: [T, H, W, C].
      rng: `numpy.random.Generator`.
    """
    return frames if rng.random() >= 0.5 else np.ascontiguousarray(frames[:, :, ::-1])


def random_roll(frames, most, rng):
    """Returns the frames moved around their borders by up to so many pixels along both axes.

    Args:
      frames: [T, H, W, C].
      most: pixels, >= 0.
      rng: `numpy.random.Generator`.
    """
    shifts = rng.integers(-most, most + 1, size=2).tolist()
    return np.roll(frames, shifts, axis=(1, 2))


def random_shift(frames, most, rng):
    """Returns the frames moved by up to so many pixels along both axes, what leaves them lost.

    This is a crop of the frames' own size at a random place of the padded frames.

    Args:
      frames: [T, H, W, C].
      most: pixels, >= 0.
      rng: `numpy.random.Generator`.
    """
    return shift(frames, *rng.integers(-most, most + 1, size=2).tolist())


def shift(frames, down, right):
    """Returns the frames moved down and to the right.

    Args:
      frames: [T, H, W, C].
      down: pixels; negative for up.
      right: pixels; negative for left.
    """
    _, H, W, _ = frames.shape
    moved = np.zeros_like(frames)
    (to_rows, rows), (to_columns, columns) = _overlap(down, H), _overlap(right, W)
    moved[:, to_rows, to_columns] = frames[:, rows, columns]
    return moved


def _overlap(move, length):
    """Where what is moved lies afterwards, and where it lay before."""
    kept = max(0, length - abs(move))
    start = max(move, 0)
    return slice(start, start + kept), slice(start - move, start - move + kept)


def warp(frames, matrix):
    """Returns the frames after a linear map about their middle, from the nearest pixels.

    Args:
      frames: [T, H, W, C].
      matrix: [2, 2], from the place (y, x) in the result, beside the middle, to that in the frames.
    """
    _, H, W, _ = frames.shape
    middle = np.array([H / 2, W / 2])
    places = np.stack(np.mgrid[:H, :W], axis=-1) + 0.5 - middle
    rows, columns = np.moveaxis(np.floor(places @ np.transpose(matrix) + middle), -1, 0).astype(int)
    inside = (rows >= 0) & (rows < H) & (columns >= 0) & (columns < W)
    warped = frames[:, rows.clip(0, H - 1), columns.clip(0, W - 1)]
    return warped * inside[..., None].astype(frames.dtype)


def _magnitude(rng, largest):
    """One of `BINS` values, evenly spread between -largest and largest."""
    return largest * (2 * int(rng.integers(BINS)) / (BINS - 1) - 1)


def _identity(frames, rng):
    return frames


def _shear_x(frames, rng):
    return warp(frames, [[1, 0], [_magnitude(rng, SHEAR), 1]])


def _translate_x(frames, rng):
    return shift(frames, 0, int(_magnitude(rng, TRANSLATE)))


def _translate_y(frames, rng):
    return shift(frames, int(_magnitude(rng, TRANSLATE)), 0)


def _rotate(frames, rng):
    angle = math.radians(_magnitude(rng, ROTATE))
    cosine, sine = math.cos(angle), math.sin(angle)
    return warp(frames, [[cosine, -sine], [sine, cosine]])


def _cutout(frames, rng):
    """Sets a square to zero that lies within the frames."""
    _, H, W, _ = frames.shape
    side = min(round(math.sqrt(H * W * rng.uniform(*CUTOUT_AREA))), H, W)
    top, left = (int(rng.integers(length - side + 1)) for length in (H, W))
    frames = frames.copy()
    frames[:, top : top + side, left : left + side] = 0
    return frames


# Function of (frames, numpy random generator), which draws the magnitude.
OPERATIONS = {
    "Identity": _identity,
    "ShearX": _shear_x,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Rotate": _rotate,
    "Cutout": _cutout,
}

SETS = {
    "none": (),
    # What published transformers were trained with on CIFAR10-DVS and Gesture (docs/events.md).
    "published": tuple(OPERATIONS),
    "published_no_cutout": tuple(name for name in OPERATIONS if name != "Cutout"),
}


def random_operation(frames, operations, rng):
    """Returns the frames after one operation, drawn evenly, of a magnitude drawn evenly.

    Args:
      frames: [T, H, W, C].
      operations: names to draw from, of `OPERATIONS`; none for no operation.
      rng: `numpy.random.Generator`.
    """
    if not operations:
        return frames
    return OPERATIONS[operations[int(rng.integers(len(operations)))]](frames, rng)
