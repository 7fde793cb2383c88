"""Data sets prepared by TensorFlow Datasets as array_record files, read without TensorFlow."""

import os

import numpy as np
import tensorflow_datasets as tfds

from snnvit_jax.common.nearest import did_you_mean
from snnvit_jax.common.paths import expanded
from snnvit_jax.data.decode import DamagedImage, decode_image
from snnvit_jax.data.sources.records import Records, UnreadableError

# Names of `select.load` that are no sets of TensorFlow Datasets.
OTHERS = ("digits", "image_folder", "archive", "events", "digits_dvs")


class PreparedImages:
    """Images of a prepared data set by random access to {"image": uint8 [H, W, C], "label": int}.

    Attributes:
      class_names: one for each label.
      channels: of the decoded images, 1 or 3.
    """

    def __init__(self, records, features, where):
        """Keeps what is needed to read one split.

        Args:
          records: sequence of serialised examples, as bytes.
          features: {"image": of type Image, "label": of type ClassLabel}, as a `FeaturesDict`.
          where: what to call the split in an error.
        """
        self.class_names = tuple(features["label"].names)
        self.channels = 1 if features["image"].shape[-1] == 1 else 3
        self._records = records
        self._features = features
        self._where = where

    def __len__(self):
        """Number of images."""
        return len(self._records)

    def __iter__(self):
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index):
        """Returns {"image", "label"}; raises `DamagedImage` naming the record."""
        data, label = self.encoded(index)
        name = f"record {index} of {self._where}"
        return {"image": decode_image(data, name, self.channels), "label": label}

    def label(self, index):
        """Returns the label of an example without decoding its image.

        Args:
          index: in [0, N).
        """
        return self.encoded(index)[1]

    def encoded(self, index):
        """Returns (bytes of the image file, label).

        Args:
          index: in [0, N).

        Raises:
          DamagedImage: naming the record and its file, if it cannot be read.
        """
        undecoded = {"image": tfds.decode.SkipDecoding()}
        try:
            data = self._records[index]
        except UnreadableError as error:
            raise DamagedImage(f"record {index} of {self._where} is damaged: {error}") from error
        try:
            record = self._features.deserialize_example_np(data, decoders=undecoded)
            return record["image"], int(record["label"])
        except MemoryError:
            raise
        except Exception as error:  # a parser may stumble over other bytes in any way
            raise DamagedImage(
                f"record {index} of {self._where} is damaged: it holds no example ({error!r:.200})"
            ) from error

    def check_complete(self):
        """Raises FileNotFoundError naming the files of the split that are missing."""
        missing = self._records.missing
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise FileNotFoundError(
                f"of the files of {self._where}, {missing[0]}{more} is missing; prepare the data "
                'set again, or set data.on_damaged="skip" to go without those images'
            )


def open_prepared(name, split, data_dir=None):
    """Opens one split of a data set of TensorFlow Datasets.

    Args:
      name: of the data set; its features must include "image" and "label".
      split: anything TensorFlow Datasets understands, for example "train[:90%]".
      data_dir: where it was prepared; None takes $TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Returns:
      `PreparedImages`.

    Raises:
      FileNotFoundError: if the data set is unknown or not prepared, saying how to do it.
      ValueError: for an unknown split, an empty one, or a set without images and labels.
    """
    directory = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    directory = expanded(directory)
    builder = _builder(name, directory)
    where = f"split {split!r} of data set {name!r}"
    features = _features(name, builder.info.features)
    try:
        files = builder.info.splits[split].file_instructions
    except (ValueError, KeyError, AssertionError) as error:
        raise ValueError(f"{where} is empty or unknown: {error}") from error
    if any(file.take < 0 for file in files):
        raise ValueError(f"{where} is empty: a part of it ends before it starts")
    records = Records((file.filename, file.skip, file.take) for file in files)
    return PreparedImages(records, features, where)


def _builder(name, directory):
    """The builder of a prepared data set."""
    how = (
        'Prepare it once with: python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder({name!r}, data_dir={str(directory)!r}, "
        "file_format='array_record').download_and_prepare()\""
    )
    try:
        builder = tfds.builder(name, data_dir=directory, file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        known = (*OTHERS, *tfds.list_builders(with_community_datasets=False))
        raise FileNotFoundError(
            f"no data set {name!r} in {directory}, nor one of that name in TensorFlow Datasets"
            f"{did_you_mean(name, known)}; other names are {', '.join(OTHERS)}"
        ) from error
    except ValueError as error:  # above all, a directory prepared in another format
        raise ValueError(
            f"data set {name!r} in {directory} cannot be opened; it must have been prepared with "
            "file_format='array_record', if need be in another directory: "
            f"{str(error).splitlines()[0]}"
        ) from error
    if not builder.is_prepared():
        raise FileNotFoundError(f"data set {name!r} is not prepared in {directory}. {how}")
    return builder


def _features(name, features):
    """The two features that are used, checked."""
    if not {"image", "label"} <= set(features):
        raise ValueError(f"data set {name!r} has features {sorted(features)}, not image and label")
    _check_types(name, features["image"], features["label"])
    return tfds.features.FeaturesDict({key: features[key] for key in ("image", "label")})


def _check_types(name, image, label):
    encoded = isinstance(image, tfds.features.Image) and image.np_dtype != np.float32
    if not encoded or not isinstance(label, tfds.features.ClassLabel):
        raise ValueError(
            f"data set {name!r} has an image {image!r} and a label {label!r}; they must be an "
            "Image of whole numbers and a ClassLabel"
        )
