"""Which example comes at which place of the training, and how it is augmented there.

The whole training is one sequence of places, epoch after epoch: place p is the p mod N-th of epoch
p // N. Order and augmentation are functions of (seed, epoch, example), so any process can work out
any batch, and resuming needs nothing but the step.
"""

import functools
import sys

import numpy as np

from snnvit_jax.data.decode import DamagedImage


@functools.lru_cache(maxsize=2)  # batches prepared ahead may lie in the next epoch already
def permutation(seed, epoch, size):
    """Returns the order in which an epoch's examples are drawn, [size] whole numbers; read only.

    Args:
      seed: whole number >= 0.
      epoch: whole number >= 0.
      size: number of examples.
    """
    drawn = np.random.default_rng((seed, epoch)).permutation(size)
    drawn.flags.writeable = False
    return drawn


@functools.lru_cache(maxsize=2)
def epoch_order(seed, epoch, size, repeats=1):
    """Returns which example comes at each place of an epoch, [size] whole numbers.

    The examples come in pairs whose copies alternate, a b a b for two `repeats`, so that no two
    neighbours are the same example: neighbours are mixed with each other. That holds between two
    epochs too, if an epoch has more places than such a pair takes: where the last place would hold
    the first example of the next epoch, that one and the one drawn before it change their places.

    Args:
      seed: whole number >= 0.
      epoch: whole number >= 0.
      size: number of examples.
      repeats: times each example is taken, >= 1.
    """
    drawn = permutation(seed, epoch, size).copy()
    pair, place = np.divmod(np.arange(size), 2 * repeats)
    order = 2 * pair + place % 2
    last = order[-1]
    if last > 1 and drawn[last] == permutation(seed, epoch + 1, size)[0]:
        drawn[[last - 1, last]] = drawn[[last, last - 1]]
    return drawn[order]


class TrainingOrder:
    """An endless sequence of augmented examples, by random access.

    With repeated augmentation (Hoffer et al., "Augment your batch", CVPR 2020), each example comes
    `repeats` times, close together and differently augmented; an epoch still has as many places as
    there are examples, so that it sees a part of them only.

    Attributes:
      examples: sequence of {"image": uint8 [H, W, C], "label": int}.
      augment: function of (example, numpy random generator) -> {"image", "label"}.
      seed: of order and augmentation.
      repeats: times each example is taken, >= 1.
    """

    def __init__(self, examples, augment, seed, repeats=1):
        self.examples = examples
        self.augment = augment
        self.seed = seed
        self.repeats = repeats

    def __len__(self):
        """Number of places: as many as an index can hold."""
        return sys.maxsize

    def place(self, position):
        """Returns (epoch, index of the example, which of its repetitions) at a position.

        Args:
          position: whole number >= 0.
        """
        size = len(self.examples)
        epoch, place = divmod(int(position), size)
        index = epoch_order(self.seed, epoch, size, self.repeats)[place]
        return epoch, int(index), place % (2 * self.repeats) // 2

    def index(self, position):
        """Returns the index of the example at a position.

        Args:
          position: whole number >= 0.
        """
        return self.place(position)[1]

    def __getitem__(self, position):
        """Returns the augmented example {"image", "label"}; may raise `DamagedImage`."""
        epoch, index, repetition = self.place(position)
        return self.augmented(index, (epoch, index, repetition))

    def augmented(self, index, key):
        """Returns an example, augmented at random; may raise `DamagedImage`.

        Args:
          index: of the example.
          key: whole numbers >= 0 that, with the seed, say which of its augmentations.
        """
        return self.augment(self.examples[index], np.random.default_rng((self.seed, *key)))


class EvaluationOrder:
    """Every example once, preprocessed, by random access.

    Attributes:
      examples: sequence of {"image": uint8 [H, W, C], "label": int}.
      preprocess: function of an example -> {"image", "label"}.
    """

    def __init__(self, examples, preprocess):
        self.examples = examples
        self.preprocess = preprocess

    def __len__(self):
        """Number of examples."""
        return len(self.examples)

    def __getitem__(self, index):
        """Returns the preprocessed example {"image", "label"}; may raise `DamagedImage`."""
        return self.preprocess(self.examples[index])


class WithGaps:
    """A sequence of examples in which a damaged image, or a place past the end, is a gap.

    Every example gets "mask" (False for a gap) and "damaged" (what is wrong with it, or with the
    one that it replaces, else ""): the message crosses the border between processes together with
    its batch.

    Attributes:
      examples: sequence of {"image", "label"}, perhaps with "damaged".
      blank: what a gap has in the place of an example's arrays, {"image": [H, W, C], ...}.
      length: number of places, at least that of the examples.
    """

    def __init__(self, examples, blank, length):
        self.examples = examples
        self.blank = blank
        self.length = length

    def __len__(self):
        """Number of places, gaps included."""
        return self.length

    def __getitem__(self, index):
        """Returns {"image", "label", "mask", "damaged", ...}; a gap has label 0."""
        if index >= len(self.examples):
            return self._gap("")
        try:
            return {"mask": np.True_, "damaged": ""} | self.examples[index]
        except DamagedImage as error:
            return self._gap(str(error))

    def _gap(self, damaged):
        return self.blank | {"label": np.int32(0), "mask": np.False_, "damaged": damaged}
