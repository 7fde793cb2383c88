"""What comes in place of a damaged image in training: another example of the same epoch.

A training batch has no gaps. A black image would be mixed into its neighbour and would enter the
batch statistics; and statistics that leave a place out would make each normalisation weigh its
examples. Another example, augmented anew, is one more real image, for which nothing has to be
written differently. Which one it is depends on the order and on what can be read alone: it is the
same for any number of processes, and after any interruption.
"""

import numpy as np

from snnvit_jax.data.decode import DamagedImage
from snnvit_jax.data.order import permutation

MOST_TRIES = 1000  # examples that are looked at for one that can be read


class WithSubstitutes:
    """A training order in which another example comes in place of a damaged one.

    It is the first that can be read from half an epoch further on, and, as long as three examples
    can be read, it is none of its neighbours, with which it may be mixed.

    Attributes:
      order: a `TrainingOrder`.
    """

    def __init__(self, order):
        self.order = order
        self._damaged = {}  # what is wrong with an example, by its index

    def __len__(self):
        """Number of places, as in the order."""
        return len(self.order)

    def __getitem__(self, position):
        """Returns the augmented example {"image", "label", "damaged"} at a position.

        Args:
          position: whole number >= 0.

        Returns:
          The example; "damaged" says what it replaces and why, "" if it is in its own place.

        Raises:
          DamagedImage: if none can be read of as many examples as are looked at.
        """
        epoch, own, repetition = self.order.place(position)
        try:
            return self.order[position] | {"damaged": ""}
        except DamagedImage as error:
            self._damaged[own] = str(error)
        index = self.index(position)
        message = f"{self._damaged[own]}; example {index} comes in its place"
        # One number more than in a place of its own: it is augmented differently there.
        key = (epoch, index, repetition, position % len(self.order.examples))
        return self.order.augmented(index, key) | {"damaged": message}

    def index(self, position):
        """Returns the index of the example that comes at a position; may raise `DamagedImage`.

        Args:
          position: whole number >= 0.
        """
        if self._can_be_read(self._own(position)):
            return self._own(position)
        self._substitute(position, neighbours=())  # ends here, and soon, if there is none
        # What comes at a damaged place depends on the place before, which may be damaged too.
        start = self._start_of_damage(position)
        index = self._own(start - 1) if start else None
        for place in range(start, position + 1):
            index = self._substitute(place, neighbours=(index, self._own(place + 1)))
        return index

    def _own(self, position):
        return self.order.place(position)[1]

    def _start_of_damage(self, position):
        """The first of the damaged places that lead up to a damaged place without a break."""
        start = position
        while start and not self._can_be_read(self._own(start - 1)):
            start -= 1
        return start

    def _substitute(self, position, neighbours):
        """The example for a damaged place; one of its neighbours only if there is no other."""
        candidates = self._candidates(position)
        others = [index for index in candidates if index not in neighbours]
        for index in others + [index for index in candidates if index in neighbours]:
            if self._can_be_read(index):
                return index
        raise DamagedImage(
            f"{self._damaged[self._own(position)]}; in its place, none of {len(candidates)} other "
            "examples can be read either"
        )

    def _candidates(self, position):
        """Indices in the order in which the epoch draws them, from half an epoch further on."""
        size = len(self.order.examples)
        epoch, place = divmod(position, size)
        places = place + size // 2 + np.arange(min(size, MOST_TRIES))
        return permutation(self.order.seed, epoch, size)[places % size].tolist()

    def _can_be_read(self, index):
        if index not in self._damaged:
            try:
                self.order.examples[index]
            except DamagedImage as error:
                self._damaged[index] = str(error)
        return index not in self._damaged
