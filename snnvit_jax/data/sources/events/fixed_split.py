"""The split of a set that comes without one, CIFAR10-DVS above all: the last tenth of each class.

The first ceil(0.9 n) recordings of each class are for training, in one of two orders:

    number   of the numbers in the file names: 0, 1, 2, ... 999; tests on 900-999
    name     of the characters: 0, 1, 10, 100, 101, ... 999; tests on 91-99 and 909-999. So do the
             authors of the published transformers (docs/events.md), whose accuracies compare with
             no other split

`CHECKSUMS` are those of the whole CIFAR10-DVS. Anyone can compute them:

    for f in CLASS/FILE of a part; do echo "${f%.*}"; done | LC_ALL=C sort | sha256sum
"""

import hashlib
import os
import re

PARTS = ("train", "test")
CIFAR10_DVS_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
CHECKSUMS = {
    ("number", "train"): "13408bf77cfe9c8fc700a104953a9f917902f19494fac50d5481477ea9a4f64e",
    ("number", "test"): "aa66b55f6fe87e8e9738b1d06f3cd3e54982c3fc9950ee478276a673f93d08f7",
    ("name", "train"): "d31c5af89de801012f4bdf56bec2ebd2e995949d680910951117c36eefae43a3",
    ("name", "test"): "254bf8cfdc509c533d76485e2efbc807bcf72dc5e0dacaa35dadd5ab135cae77",
}


def _numbers(path):
    """Sort key in which runs of digits count as numbers; texts and numbers alternate in it."""
    parts = re.split(r"([0-9]+)", os.path.splitext(path)[0])
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], path


def _characters(path):
    return os.path.splitext(path)[0], path


# What recordings of a class are sorted by: function of a path.
ORDERS = {"number": _numbers, "name": _characters}


def fixed_part(paths, part, order):
    """Returns the recordings of one class that belong to a part, in their order.

    Args:
      paths: of all recordings of the class.
      part: "train" or "test".
      order: a key of `ORDERS`.
    """
    paths = sorted(paths, key=ORDERS[order])
    train = -(-9 * len(paths) // 10)
    return paths[:train] if part == "train" else paths[train:]


def checksum(paths):
    """Returns the SHA-256 of which recordings there are, whatever their format and order.

    Args:
      paths: CLASS/FILE of each.
    """
    names = sorted(os.path.splitext(path)[0].replace(os.sep, "/") + "\n" for path in paths)
    return hashlib.sha256(os.fsencode("".join(names))).hexdigest()
