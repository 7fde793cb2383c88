"""Image sets as random access to {"image": uint8 [H, W, C], "label": int}.

`digits` comes with scikit-learn, `image_folder` and `archive` read what the user has; every other
name is a data set of TensorFlow Datasets, prepared beforehand as array_record files and read
without TensorFlow. Encoded images of whatever origin pass through `decode.decode_image`.

`events` (files that the user has) and `digits_dvs` (simulated) are recordings of event cameras:
their "image" is [T, H, W, 2], the frames of one recording.
"""

import contextlib
import dataclasses
import unicodedata
from collections.abc import Sequence

import numpy as np
from sklearn import datasets, model_selection

from snnvit_jax.data.decode import DamagedImage
from snnvit_jax.data.sources.archive import ImageArchive
from snnvit_jax.data.sources.events import FrameSettings, open_events
from snnvit_jax.data.sources.events.digits_dvs import digits_dvs
from snnvit_jax.data.sources.folder import open_folder
from snnvit_jax.data.sources.prepared import open_prepared

DIGITS_TEST_EXAMPLES = 360
_DIGITS_SPLIT_SEED = 0
EVENT_SETS = ("events", "digits_dvs")
_USERS_OWN = {"image_folder": open_folder, "archive": ImageArchive}


@dataclasses.dataclass(frozen=True)
class Source:
    """One split of an image set. It can be pickled, and whoever unpickles it opens files again.

    Attributes:
      examples: sequence of {"image": uint8 [H, W, C] or counts [T, H, W, C], "label": int};
        reading an item raises `decode.DamagedImage` if it cannot be decoded.
      class_names: one for each label, in Unicode's composed form (NFC).
      split: its name.
    """

    examples: Sequence
    class_names: tuple[str, ...]
    split: str

    @property
    def num_classes(self):
        """Number of classes."""
        return len(self.class_names)

    @property
    def channels(self):
        """Channels of its images, 1 to 3; asks for no image where the examples know it."""
        known = getattr(self.examples, "channels", None)
        return known or self.examples[0]["image"].shape[-1]

    @property
    def sensor(self):
        """(height, width) in pixels of its recordings, or of its first image."""
        return getattr(self.examples, "sensor", None) or self.examples[0]["image"].shape[-3:-1]

    def __len__(self):
        """Number of examples."""
        return len(self.examples)


def load(name, split, data_dir=None, frames=None):
    """Opens one split of an image set, or of a set of recordings.

    Args:
      name: "digits"; "image_folder", see `folder.open_folder`; "archive", see
        `archive.ImageArchive`; "events", see `events.open_events`; "digits_dvs", digits seen by a
        simulated event camera; or a data set of TensorFlow Datasets with features "image" and
        "label".
      split: for digits and digits_dvs "train" or "test"; otherwise the name of a split, perhaps
        with a slice, for example "train[:90%]".
      data_dir: for an image folder or events, the folder that holds those of the splits; for an
        archive, the .npz file; otherwise where data sets were prepared, None being $TFDS_DATA_DIR,
        else ~/tensorflow_datasets.
      frames: `events.FrameSettings`, how recordings become frames; None for its defaults.

    Returns:
      A `Source`.

    Raises:
      FileNotFoundError: if the data set is unknown or not prepared, saying how to do it, or if
        there is no such folder or file.
      ValueError: for an unknown split, an empty one, or a set without images and labels.
    """
    if name in (*_USERS_OWN, "events") and not data_dir:
        what = "recordings" if name == "events" else "images"
        raise ValueError(f"data.dir={data_dir!r} must say where the {what} of {name!r} are")
    if name == "digits":
        source = _digits(split)
    elif name == "digits_dvs":
        digits = _digits(split)
        recordings = digits_dvs(digits.examples, frames or FrameSettings())
        source = dataclasses.replace(digits, examples=recordings)
    elif name == "events":
        recordings = open_events(data_dir, split, frames or FrameSettings())
        source = Source(recordings, recordings.class_names, split)
    else:
        own = _USERS_OWN.get(name)
        images = own(data_dir, split) if own else open_prepared(name, split, data_dir)
        names = tuple(unicodedata.normalize("NFC", name) for name in images.class_names)
        source = Source(images, names, split)
    if not len(source):
        raise ValueError(f"split {split!r} of data set {name!r} is empty")
    return source


def check_same_classes(a, b):
    """Raises ValueError if the labels of two splits do not mean the same classes.

    Args:
      a: a `Source`.
      b: another one.
    """
    if a.class_names == b.class_names:
        return
    names = [set(source.class_names) for source in (a, b)]
    differing = sorted(names[0] ^ names[1])[:10]
    differing = f"[{', '.join(map(_shown, differing))}]" if differing else "only in their order"
    raise ValueError(
        f"splits {a.split!r} and {b.split!r} have {a.num_classes} and {b.num_classes} classes that "
        f"differ: {differing}"
    )


def check_same_channels(a, b):
    """Raises ValueError if the images of one split are grey and those of another have colours.

    Args:
      a: a `Source`.
      b: another one.
    """
    if a.channels != b.channels:
        kinds = {1: "grey", 3: "RGB"}
        raise ValueError(
            f"split {a.split!r} has {kinds[a.channels]} images and split {b.split!r} "
            f"{kinds[b.channels]} ones; give both the same channels"
        )


def check_complete(source):
    """Raises FileNotFoundError naming files of a split that its data set lists and that are gone.

    Args:
      source: a `Source`.
    """
    check = getattr(source.examples, "check_complete", None)
    if check:
        check()


def check_same_sensor(a, b):
    """Raises ValueError if the recordings of two splits come from sensors of different sizes.

    Args:
      a: a `Source`.
      b: another one.
    """
    sensors = [getattr(source.examples, "sensor", None) for source in (a, b)]
    if sensors[0] != sensors[1]:
        sizes = [f"{width}x{height}" for height, width in sensors]
        raise ValueError(
            f"split {a.split!r} was recorded with {sizes[0]} pixels and split {b.split!r} with "
            f"{sizes[1]}; give both the same sensor"
        )


def check_some_labels(source, most=32, *, on_damaged="fatal"):
    """Raises ValueError naming a label outside the classes, from examples all over a split.

    Reading all labels would mean reading all images; batches are checked as they come.

    Args:
      source: a `Source`.
      most: number of examples to look at.
      on_damaged: what an example that cannot be read does: "fatal" raises, "skip" leaves it out.
    """
    read = getattr(source.examples, "label", None)
    for index in np.unique(np.linspace(0, len(source) - 1, most).astype(int)).tolist():
        try:
            label = read(index) if read else source.examples[index]["label"]
        except DamagedImage as error:
            if on_damaged == "skip":
                continue
            raise DamagedImage(f'{error}; put it right, or set data.on_damaged="skip"') from error
        if not 0 <= label < source.num_classes:
            raise ValueError(
                f"label {label} of example {index} in split {source.split!r} lies outside the "
                f"{source.num_classes} classes; is it a split without labels?"
            )


def _shown(name):
    """A name as it is read and, since two that look alike may differ, by its characters."""
    return repr(name) if name.isascii() else f"{name!r} = {name!a}"


def first_of_each_class(source, most):
    """Returns the first example that can be read of each of the first classes.

    Args:
      source: a `Source`.
      most: number of classes.
    """
    read, found = getattr(source.examples, "label", None), {}
    for index in range(len(source)):
        if len(found) == min(most, source.num_classes):
            break
        label = read(index) if read else source.examples[index]["label"]
        if label < most and label not in found:
            with contextlib.suppress(DamagedImage):
                found[label] = source.examples[index]
    return [found[label] for label in sorted(found)]


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
        raise ValueError(f"unknown {split=} of the digits; use one of {', '.join(splits)}")
    examples = [{"image": images[i], "label": int(labels[i])} for i in splits[split]]
    return Source(examples, tuple("0123456789"), split)
