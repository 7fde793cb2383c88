"""Image sets as random access to {"image": uint8 [H, W, C], "label": int}.

`digits` comes with scikit-learn; every other name is a data set of TensorFlow Datasets, prepared
beforehand as array_record files and read without TensorFlow.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds
from sklearn import datasets, model_selection

DIGITS_TEST_EXAMPLES = 360
_DIGITS_SPLIT_SEED = 0


@dataclasses.dataclass(frozen=True)
class Source:
    """One split of an image set.

    Attributes:
      examples: sequence of {"image": uint8 [H, W, C], "label": int}.
      class_names: one for each label.
      split: its name.
    """

    examples: Sequence
    class_names: tuple[str, ...]
    split: str

    @property
    def num_classes(self):
        """Number of classes."""
        return len(self.class_names)

    def __len__(self):
        """Number of examples."""
        return len(self.examples)


def load(name, split, data_dir=None):
    """Opens one split of an image set.

    Args:
      name: "digits", or a data set of TensorFlow Datasets with features "image" and "label".
      split: for digits "train" or "test"; otherwise anything TensorFlow Datasets understands, for
        example "train[:90%]".
      data_dir: where data sets were prepared; None takes $TFDS_DATA_DIR, else
        ~/tensorflow_datasets.

    Returns:
      A `Source`.

    Raises:
      FileNotFoundError: if the data set is unknown or not prepared, saying how to do it.
      ValueError: for an unknown split, an empty one, or a set without images and labels.
    """
    source = _digits(split) if name == "digits" else _tfds(name, split, data_dir)
    if not len(source):
        raise ValueError(f"split {split!r} of data set {name!r} is empty")
    return source


def _digits(split):
    """The 1,797 handwritten 8x8 digits of scikit-learn; a fixed stratified 360 of them for test."""
    images, labels = datasets.load_digits(return_X_y=True)
    # 17 grey levels, 0 to 16, become 8 bits wide.
    images = np.rint(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    train, test = model_selection.train_test_split(
        np.arange(len(labels)),
        test_size=DIGITS_TEST_EXAMPLES,
        stratify=labels,
        random_state=_DIGITS_SPLIT_SEED,
    )
    splits = {"train": np.sort(train), "test": np.sort(test)}
    if split not in splits:
        raise ValueError(f"unknown {split=} of digits; use one of {', '.join(splits)}")
    examples = [{"image": images[i], "label": int(labels[i])} for i in splits[split]]
    return Source(examples, tuple("0123456789"), split)


def _tfds(name, split, data_dir):
    directory = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    directory = pathlib.Path(directory).expanduser()
    features = _tfds_features(name, directory)
    try:
        examples = tfds.data_source(
            name,
            split=split,
            data_dir=directory,
            download=False,
            builder_kwargs={"file_format": "array_record"},
        )
    except (ValueError, KeyError, AssertionError) as error:
        raise ValueError(
            f"split {split!r} of data set {name!r} is empty or unknown: {error}"
        ) from error
    return Source(_ImagesAndLabels(examples), tuple(features["label"].names), split)


def _tfds_features(name, directory):
    """Features of a prepared data set, checked to be images with labels."""
    how = (
        'Prepare it once with: python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder({name!r}, data_dir={str(directory)!r}, "
        "file_format='array_record').download_and_prepare()\""
    )
    try:
        builder = tfds.builder(name, data_dir=directory, file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        raise FileNotFoundError(
            f"no data set {name!r} in {directory}, nor one of that name in TensorFlow Datasets"
        ) from error
    if not builder.is_prepared():
        raise FileNotFoundError(f"data set {name!r} is not prepared in {directory}. {how}")
    features = builder.info.features
    if not {"image", "label"} <= set(features):
        raise ValueError(f"data set {name!r} has features {sorted(features)}, not image and label")
    return features


class _ImagesAndLabels:
    """A data source reduced to the two features that are used."""

    def __init__(self, examples):
        self._examples = examples

    def __len__(self):
        return len(self._examples)

    def __iter__(self):
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index):
        example = self._examples[index]
        return {"image": example["image"], "label": int(example["label"])}
