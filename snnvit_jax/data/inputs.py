"""From a file to what a model reads: images and recordings that belong to no data set.

How a file is read is a record that JSON can hold too (`described`), so that it travels with a
deployed model.
"""

import dataclasses
import os
import pathlib

from snnvit_jax.data.augment import pipeline, recording_pipeline
from snnvit_jax.data.decode import decode_image
from snnvit_jax.data.sources import EVENT_SETS, FrameSettings, frame_settings
from snnvit_jax.data.sources.events.frames import sensor_of, to_frames
from snnvit_jax.data.sources.events.readers import READERS, is_recording
from snnvit_jax.data.sources.events.source import read_one
from snnvit_jax.data.sources.folder import EXTENSIONS
from snnvit_jax.data.sources.walk import files_below


@dataclasses.dataclass(frozen=True)
class ImageInput:
    """Image files, prepared as evaluation prepares images.

    Attributes:
      preprocess: size and normalisation.
      channels: 1 or 3.
    """

    preprocess: pipeline.Preprocess
    channels: int

    kind = "images"
    extensions = EXTENSIONS

    def __call__(self, path):
        """Returns an image file as the model sees it, float32 [H, W, C].

        Args:
          path: of the file.

        Raises:
          DamagedImage: if it cannot be decoded.
          OSError: if it cannot be read.
        """
        image = decode_image(pathlib.Path(path).read_bytes(), path, self.channels)
        return self.preprocess.normalization(self.preprocess.fit(image))


@dataclasses.dataclass(frozen=True)
class RecordingInput:
    """Recordings of an event camera, made frames as evaluation makes them.

    Attributes:
      preprocess: size and channels.
      frames: how events become frames.
    """

    preprocess: recording_pipeline.PreprocessRecording
    frames: FrameSettings

    kind = "recordings"
    extensions = tuple(READERS)

    def __call__(self, path):
        """Returns a recording as the model sees it, float32 [T, H, W, C].

        Args:
          path: of a file with an extension of `READERS`.

        Raises:
          DamagedRecording: if it cannot be decoded.
          OSError: if it cannot be read.
          ValueError: for another extension.
        """
        if not is_recording(path):
            raise ValueError(f"{path} is no recording ({' '.join(READERS)})")
        recording, name = read_one(path)
        sensor = sensor_of(recording, self.frames, name)
        counts = to_frames(recording, self.frames, sensor, name)
        return self.preprocess({"image": counts, "label": 0})["image"]


def input_of(data, time_steps, channels):
    """Returns how the files of a configuration are read.

    Args:
      data: `config.data`.
      time_steps: T of the model, the frames of a recording.
      channels: of the images that the model reads.

    Raises:
      ValueError: naming the key and the value that does not fit.
    """
    if data.name in EVENT_SETS:
        preprocess = recording_pipeline.create_preprocess(data)
        frames = dataclasses.replace(frame_settings(time_steps, data.events), cache=None)
        return RecordingInput(preprocess, frames)
    return ImageInput(pipeline.create_preprocess(data, channels), channels)


def described(reading):
    """Returns an input as plain values that JSON can hold.

    Args:
      reading: an `ImageInput` or a `RecordingInput`.
    """
    return {"kind": reading.kind, **dataclasses.asdict(reading)}


def from_description(about):
    """Returns the input that `described` gave.

    Args:
      about: plain values, perhaps from JSON.

    Raises:
      ValueError: if they describe none.
    """
    about = _as_tuples(about)
    try:
        if about["kind"] == ImageInput.kind:
            return ImageInput(pipeline.Preprocess(**about["preprocess"]), about["channels"])
        preprocess = recording_pipeline.PreprocessRecording(**about["preprocess"])
        return RecordingInput(preprocess, FrameSettings(**about["frames"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{about!r:.200} does not say how files are read: {error!r}") from error


def find_files(paths, extensions):
    """Returns the files to read: those named, and those in the folders named.

    Of a folder, files with one of the extensions count, at any depth, sorted; hidden ones do not.

    Args:
      paths: of files and folders, at least one.
      extensions: in lower case, with their dots.

    Returns:
      A list of paths, without repetitions, in the order given.

    Raises:
      FileNotFoundError: naming a path at which there is nothing.
      ValueError: naming a folder without any such file.
    """
    found = {}
    for path in paths:
        place = os.path.expanduser(path)
        if os.path.isdir(place):
            found |= dict.fromkeys(_in_folder(place, extensions))
        elif os.path.lexists(place):
            found[place] = None
        else:
            raise FileNotFoundError(f"there is no file or folder {str(path)!r}")
    return list(found)


def _in_folder(folder, extensions):
    names = [n for n in files_below(folder) if os.path.splitext(n)[1].lower() in extensions]
    if not names:
        raise ValueError(f"the folder {folder!r} holds no files ({' '.join(extensions)})")
    return [os.path.join(folder, name) for name in sorted(names)]


def _as_tuples(value):
    """JSON knows lists only; settings hold tuples."""
    if isinstance(value, dict):
        return {key: _as_tuples(item) for key, item in value.items()}
    return tuple(map(_as_tuples, value)) if isinstance(value, (list, tuple)) else value
