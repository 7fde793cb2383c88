"""NumPy archives as SpikingJelly prepares them: events (t, x, y, p) or frames [T, 2, H, W]."""

import numpy as np

from snnvit_jax.data.sources.events.binning import MOST, narrow
from snnvit_jax.data.sources.events.recording import DamagedRecording, Events

_KEYS = ("t", "x", "y", "p")


def read_npz(path):
    """Returns what an archive holds: `Events`, or frames [T, H, W, 2].

    Frames are counts in the smallest unsigned type, or float32 if they are fractions.

    Args:
      path: of an .npz file with the array "frames", or with "t", "x", "y" and "p".

    Raises:
      DamagedRecording: if it is no such archive, or its arrays do not fit.
      OSError: if it cannot be read.
    """
    arrays = _load(path)
    if "frames" in arrays:
        return _frames(arrays["frames"], path)
    if not set(_KEYS) <= set(arrays):
        raise DamagedRecording(
            f'{path} holds the arrays {sorted(arrays)}; expected are "frames", or "t", "x", "y" '
            'and "p"'
        )
    columns = [_column(arrays[key], key, path) for key in _KEYS]
    if len({len(column) for column in columns}) > 1:
        lengths = ", ".join(f"{key} {len(c)}" for key, c in zip(_KEYS, columns, strict=True))
        raise DamagedRecording(f"{path} is damaged: its arrays differ in length: {lengths}")
    return Events(*columns)


def _load(path):
    with open(path, "rb") as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        except MemoryError:
            raise
        except Exception as error:  # damaged bytes may make an archive stumble in any way
            raise DamagedRecording(f"{path} is damaged or no .npz archive: {error}") from error


def _column(values, key, path):
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if values.dtype.kind not in "iu" or values.ndim != 1:
        raise DamagedRecording(
            f"{path} is damaged: {key!r} is {values.dtype} {list(values.shape)}, not whole numbers "
            "[N]"
        )
    return values.astype(np.int64) if key == "t" else values


def _frames(frames, path):
    """[T, 2, H, W] of any type of number -> [T, H, W, 2]."""
    if frames.ndim != 4 or frames.shape[1] != 2 or 0 in frames.shape:
        raise DamagedRecording(
            f"{path} is damaged: its frames are {list(frames.shape)}, not [T, 2, H, W]"
        )
    if frames.dtype.kind not in "biuf" or not np.isfinite(frames).all() or frames.min() < 0:
        raise DamagedRecording(f"{path} is damaged: its frames are not finite counts >= 0")
    if frames.max() > MOST:
        raise DamagedRecording(
            f"{path} is damaged: its frames hold a count of {frames.max():g}, above {MOST}"
        )
    frames = frames.transpose(0, 2, 3, 1)
    whole = frames.dtype.kind in "biu" or (frames == np.floor(frames)).all()
    return np.ascontiguousarray(narrow(frames) if whole else frames.astype(np.float32))


def read_counts(path):
    """Returns the frames [T, H, W, 2] that the cache keeps.

    Args:
      path: of an .npz file with the array "counts".

    Raises:
      DamagedRecording: if it is damaged.
      OSError: if it cannot be read.
    """
    arrays = _load(path)
    if "counts" not in arrays:
        raise DamagedRecording(f"{path} is damaged: it holds no counts")
    return arrays["counts"]
