"""Rules for single values of the user's, and the words in which they refuse one.

No rule takes NaN or an infinite number, none takes a truth value
for a number, and none raises anything but ValueError, whatever it is given.
"""

import dataclasses
import numbers
import sys
from collections.abc import Callable

import numpy as np

from snnvit_jax.common.nearest import did_you_mean

_LARGEST = 3.4e38  # what float32 can hold: in it, larger numbers are infinite
_SHOWN = 500  # characters of a value in an error


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a value must be.

    Attributes:
      must: the same in words, as they follow "must be".
      fits: function of any value that says whether it is that.
      names: that fit, where there are such; the nearest is suggested.
    """

    must: str
    fits: Callable[[object], bool]
    names: tuple[str, ...] = ()

    def check(self, name, value):
        """Raises ValueError, with name and value, if the value does not fit.

        Args:
          name: what the user calls the value.
          value: anything.
        """
        if not self.fits(value):
            hint = did_you_mean(value, self.names)
            raise ValueError(f"{name}={shown(value)} must be {self.must}{hint}")


def check_fields(record, rules, of):
    """Raises ValueError naming the first field of a record that does not fit its rule.

    Args:
      record: object with a field of each name.
      rules: {name of a field: `Rule`}.
      of: what the user calls the record; fields are named "OF.NAME".
    """
    for name, rule in rules.items():
        rule.check(f"{of}.{name}", getattr(record, name))


def shown(value):
    """Returns a value as an error names it: on one line, and not longer than one can read.

    Args:
      value: anything.
    """
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # a whole number of more digits than Python writes
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def plain(value):
    """Returns a value with NumPy's numbers, truth values and texts as Python's, lists as tuples.

    Args:
      value: anything; what stands in a list or a tuple counts too.
    """
    if type(value) in (tuple, list):  # a named tuple stays one
        return tuple(map(plain, value))
    return value.item() if isinstance(value, np.generic) else value


def scalar(value):
    """Returns the number in an array without axes, or a value of NumPy's, and all else as it is.

    Args:
      value: anything but a traced array, which holds no number yet.
    """
    return value.item() if getattr(value, "shape", None) == () else value


def number(low=-_LARGEST, high=_LARGEST, *, above=None, below=None):
    """Returns the rule of a finite number.

    Args:
      low: the least that fits.
      high: the most that fits.
      above: what it must be above, in place of `low`.
      below: what it must be below, in place of `high`.
    """

    def fits(value):
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            return False
        if isinstance(value, numbers.Rational) and not isinstance(value, numbers.Integral):
            return False  # a fraction, which JSON has no word for
        reaches = low <= value if above is None else above < value <= _LARGEST
        return bool(reaches and (value <= high if below is None else value < below))

    return Rule(f"a number{_range(low, high, above, below)}", fits)


def whole(low, high=sys.maxsize):
    """Returns the rule of a whole number.

    Args:
      low: the least that fits.
      high: the most that fits.
    """
    in_range = number(low, high)
    return Rule(
        f"a whole number{_range(low, high, None, None)}",
        lambda value: isinstance(value, numbers.Integral) and in_range.fits(value),
    )


def flag():
    """Returns the rule of a truth value."""
    return Rule("True or False", lambda value: isinstance(value, bool))


def text():
    """Returns the rule of a text that is not empty."""
    return Rule(
        "a text that is not empty", lambda value: isinstance(value, str) and bool(value.strip())
    )


def one_of(choices):
    """Returns the rule of a name out of some.

    Args:
      choices: all there are.
    """
    choices = tuple(choices)
    must = f"one of {', '.join(choices)}"
    return Rule(must, lambda value: isinstance(value, str) and value in choices, choices)


def optional(rule):
    """Returns a rule that takes None too.

    Args:
      rule: for everything else.
    """
    must = f"None or {rule.must}"
    return Rule(must, lambda value: value is None or rule.fits(value), rule.names)


def several(rule, count=None):
    """Returns the rule of a tuple or a list, not empty.

    Args:
      rule: of each of its elements.
      count: how many there must be; None for any number.
    """

    def fits(value):
        if not isinstance(value, (tuple, list)) or not value:
            return False
        return count in (None, len(value)) and all(map(rule.fits, value))

    return Rule(f"a tuple of {count or 'one or more'}, each {rule.must}", fits)


def one_or_several(rule, count=None):
    """Returns the rule of a single value or a tuple of them.

    Args:
      rule: of the value, or of each.
      count: how many a tuple must have; None for any number.
    """
    many, number_of = several(rule, count), "" if count is None else f"{count} "
    return Rule(
        f"{rule.must}, or a tuple of {number_of}such",
        lambda value: rule.fits(value) or many.fits(value),
    )


def interval(low, high):
    """Returns the rule of two numbers that rise, or are equal, in a range.

    Args:
      low: the least that fits.
      high: the most that fits.
    """
    pair = several(number(low, high), 2)
    return Rule(
        f"(a, b) with {low} <= a <= b <= {high}",
        lambda value: pair.fits(value) and value[0] <= value[1],
    )


def _range(low, high, above, below):
    """The words for a range, with one or both of its ends."""
    has_most = below is not None or high not in (_LARGEST, sys.maxsize)
    least = f"at least {low}" if above is None else f"above {above}"
    most = f"at most {high}" if below is None else f"below {below}"
    if above is None and low == -_LARGEST:
        return f", {most}" if has_most else ", finite"
    return f", {least} and {most}" if has_most else f", {least}"
