"""Where a folder of recordings keeps those of a split: every layout that people have.

    root/SPLIT/CLASS/*           split folders, such as those of N-MNIST
    root/CLASS/*                 no splits, such as CIFAR10-DVS: see `fixed_split`
    root/trials_to_SPLIT.txt     DVS128 Gesture as published: see `trials`

For root, SpikingJelly's folder of a data set will do: its frames_number_T_split_by_RULE is taken if
there is one that fits, else its events_np.
"""

import dataclasses
import os
import pathlib

import numpy as np
from absl import logging

from snnvit_jax.common.paths import expanded
from snnvit_jax.data.sources.classes import class_files, class_folders, folder_names
from snnvit_jax.data.sources.events import fixed_split, trials
from snnvit_jax.data.sources.events.readers import READERS, is_recording
from snnvit_jax.data.sources.splits import mixed_part, parse_split
from snnvit_jax.data.sources.walk import list_folder


@dataclasses.dataclass(frozen=True, eq=False)
class Listing:
    """The recordings of a split.

    Attributes:
      folder: that the paths start from.
      class_names: one for each label.
      paths: of each recording's file.
      labels: [N] int32.
      windows: [(start, end)] of each recording in its file, in microseconds; None where a file is
        a recording.
    """

    folder: pathlib.Path
    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray
    windows: tuple[tuple[int, int], ...] | None = None

    def part(self, chosen):
        """Returns some of the recordings.

        Args:
          chosen: indices.
        """
        return dataclasses.replace(
            self,
            paths=tuple(self.paths[index] for index in chosen),
            labels=self.labels[list(chosen)],
            windows=self.windows and tuple(self.windows[index] for index in chosen),
        )

    def names(self):
        """Returns what to call each recording, unlike all others, as bytes."""
        windows = self.windows or [""] * len(self.paths)
        return [os.fsencode(f"{path}{w}") for path, w in zip(self.paths, windows, strict=True)]


def list_recordings(root, split, settings):
    """Lists the recordings of a split.

    Args:
      root: folder in one of the layouts above.
      split: its name, perhaps sliced: see `splits.parse_split`. A slice is taken from a fixed
        pseudo-random order, so that each part has its share of every class.
      settings: `FrameSettings`.

    Returns:
      A `Listing`.

    Raises:
      FileNotFoundError: if there is no such folder or split, naming those there are.
      ValueError: if there are no class folders, or one without recordings.
    """
    part = parse_split(split)
    root = expanded(root)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}; give the one that holds the recordings")
    listing = _whole_split(_prepared(root, settings), part.name, settings)
    if part.whole:
        return listing
    return listing.part(mixed_part(listing.names(), *part.bounds(len(listing.paths))))


def _prepared(root, settings):
    """The folder of SpikingJelly's to take, or the root itself."""
    frames = f"frames_number_{settings.time_steps}_split_by_{settings.split_by}"
    for name in (frames, "events_np", "DvsGesture"):
        if (root / name).is_dir():
            return root / name
    return root


def _whole_split(root, name, settings):
    if trials.holds_trials(root):
        return _trials(root, name)
    if (root / name).is_dir() and not _has_recordings(root / name):
        return _classes(root / name, lambda paths: paths)
    names = folder_names(root)
    if not any(_has_recordings(root / folder) for folder in names):
        found = ", ".join(names[:10]) or "no folders"
        raise FileNotFoundError(f"no folder {root / name} for split {name!r}; {root} holds {found}")
    if name not in fixed_split.PARTS:
        raise FileNotFoundError(
            f"no folder {root / name} for split {name!r}; {root} holds class folders, of which "
            f"{' and '.join(fixed_split.PARTS)} are fixed parts"
        )
    return _fixed_part(root, name, settings.split_order)


def _trials(root, name):
    listed = trials.list_trials(root, name)
    files, labels, starts, ends = zip(*listed, strict=True) if listed else ((),) * 4
    windows = tuple(zip(starts, ends, strict=True))
    return Listing(root, trials.GESTURES, files, np.array(labels, np.int32), windows)


def _fixed_part(root, name, order):
    listing = _classes(root, lambda paths: fixed_split.fixed_part(paths, name, order))
    published = fixed_split.CHECKSUMS[order, name]
    if set(listing.class_names) == set(fixed_split.CIFAR10_DVS_CLASSES):
        found = fixed_split.checksum(listing.paths)
        if found != published:
            logging.warning(
                "%s is not the whole CIFAR10-DVS, or its files have other names: the checksum of "
                "its %d %s recordings is %s, not %s; accuracies do not compare with published ones",
                *(root, len(listing.paths), name, found, published),
            )
    return listing


def _classes(folder, chosen):
    """Lists class folders; chosen(paths of a class) gives those of the split."""
    classes = class_folders(folder, is_recording)
    if not classes:
        raise ValueError(f"{folder} holds no class folders; expected is {folder}/CLASS/RECORDING")
    paths = [
        chosen([os.fsdecode(path) for path in class_files(folder, names, is_recording)])
        for names in classes.values()
    ]
    for names, found in zip(classes.values(), paths, strict=True):
        if not found:
            raise ValueError(
                f"class folder {folder / names[0]} holds no recordings ({' '.join(READERS)}), or "
                "too few for this split; fill it or remove it"
            )
    labels = np.repeat(np.arange(len(paths), dtype=np.int32), [len(found) for found in paths])
    return Listing(folder, tuple(classes), tuple(p for found in paths for p in found), labels)


def _has_recordings(folder):
    return any(kind == "file" and is_recording(name) for name, kind in list_folder(folder))
