"""Parts of a split by name, such as "train[:90%]", with the meaning of TensorFlow Datasets."""

import dataclasses
import hashlib
import re

_PLACE = r"((?P<{0}>-?[\d._]+)(?P<{0}_percent>%)?)?"
_PATTERN = re.compile(
    r"(?P<name>[^\[\]:+]+)" + rf"(\[{_PLACE.format('start')}:{_PLACE.format('stop')}\])?"
)


@dataclasses.dataclass(frozen=True)
class Split:
    """A split, or the part of it between two places.

    Attributes:
      name: of the whole split.
      start: first place; None for the beginning. Negative places count from the end.
      stop: place after the last; None for the end.
      percent: whether both are percentages of the split's size, else numbers of examples.
    """

    name: str
    start: float | None = None
    stop: float | None = None
    percent: bool = False

    @property
    def whole(self):
        """Whether nothing is cut off."""
        return self.start is None and self.stop is None

    def bounds(self, size):
        """Returns (first index, index after the last) of a split with so many examples.

        Percentages are rounded to the nearest example (a half to the even one), so that
        neighbouring parts neither overlap nor leave a gap.

        Args:
          size: of the whole split, >= 0.

        Raises:
          ValueError: if a place lies outside the split.
        """
        start = 0 if self.start is None else self._place(self.start, size)
        stop = size if self.stop is None else self._place(self.stop, size)
        return start, max(start, stop)

    def _place(self, value, size):
        if abs(value) > (100 if self.percent else size):
            unit = "%" if self.percent else ""
            raise ValueError(
                f"place {value}{unit} lies outside split {self.name!r} of {size} examples"
            )
        place = round(value * size / 100) if self.percent else value
        return place + size if place < 0 else place


def parse_split(text):
    """Returns the `Split` that a text names.

    Args:
      text: a name, alone or with a slice in examples or percent: "train", "train[:90%]",
        "train[-1000:]", "train[100:200]". A percent sign on either side means both.

    Raises:
      ValueError: if it is none of these.
    """
    match = _PATTERN.fullmatch(text)
    if match is None or (text.endswith("]") and match["start"] is match["stop"] is None):
        raise ValueError(
            f'split {text!r} must be a name, alone or with a slice like "train[:90%]" or '
            '"train[100:200]"'
        )
    percent = bool(match["start_percent"] or match["stop_percent"])
    start, stop = (_number(match[side], percent, text) for side in ("start", "stop"))
    return Split(match["name"], start, stop, percent)


def mixed_part(names, start, stop):
    """Returns the sorted indices of the names at some places of a fixed pseudo-random order.

    The order is that of the names' hashes, so that each part has its share of every class.

    Args:
      names: of all examples, as bytes.
      start: first place.
      stop: place after the last.
    """
    keys = [hashlib.blake2b(name, digest_size=16).digest() for name in names]
    order = sorted(range(len(names)), key=keys.__getitem__)
    return sorted(order[start:stop])


def _number(text, percent, split):
    if text is None:
        return None
    try:
        return float(text) if percent else int(text)
    except ValueError as error:
        kind = "a percentage" if percent else "a whole number"
        raise ValueError(f"{text!r} in split {split!r} is not {kind}") from error
