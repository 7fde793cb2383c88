from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snnvit_jax.common import values

NAN, INF = float("nan"), float("inf")
ODD = (
    None,
    True,
    NAN,
    INF,
    -INF,
    "",
    "1",
    (),
    (1,),
    [],
    {},
    b"1",
    1j,
    10**400,
    object(),
    Fraction(1, 2),
)

RULES = {
    "number": (values.number(0, 1), (0, 0.5, 1, np.float32(0.5)), (-1e-9, 1.1)),
    "finite": (values.number(), (-5, 0, 1e30), (1e39, -1e39)),
    "open": (values.number(above=0, below=1), (0.5, 1e-9), (0, 1)),
    "whole": (values.whole(1), (1, np.int64(7)), (0, 1.0, 2.5)),
    "flag": (values.flag(), (True, False), (0, 1, "True")),
    "text": (values.text(), ("a",), ("", " ", 3)),
    "choice": (values.one_of(("a", "b")), ("a",), ("c", "ab")),
    "optional": (values.optional(values.whole(1)), (None, 2), (0,)),
    "several": (values.several(values.number(0)), ((0.5,), [1, 2]), (0.5, (-1,), (1, NAN), "12")),
    "two": (values.several(values.number(0), 2), ((1, 2),), ((1,), (1, 2, 3))),
    "one or several": (values.one_or_several(values.whole(1)), (3, (1, 2)), (0, (1, 0), (1, 2.5))),
    "interval": (values.interval(0.1, 1), ((0.1, 1), [0.5, 0.5]), ((0.5, 0.2), (0.01, 1), (1, 2))),
}


def test_numbers_of_numpy_become_plain_ones():
    given = (np.int64(5), [np.bool_(True), np.float32(0.5)], np.str_("a"), None, np.float32)
    assert values.plain(given) == (5, (True, 0.5), "a", None, np.float32)
    assert [type(value) for value in values.plain(given)[:3]] == [int, tuple, str]
    assert values.plain(7) == 7


def test_an_array_without_axes_is_its_number():
    for value in (np.float32(0.5), np.array(0.5), jnp.float32(0.5), jnp.bfloat16(0.5)):
        assert type(values.scalar(value)) is float
        assert values.scalar(value) == 0.5
    for value in (None, "a", [1], np.ones(1), Fraction(1, 2)):
        assert values.scalar(value) is value


@pytest.mark.parametrize("name", RULES)
def test_what_fits_a_rule_passes_and_the_rest_is_named(name):
    rule, good, bad = RULES[name]
    for value in good:
        rule.check("key", value)
    for value in bad:
        with pytest.raises(ValueError) as error:
            rule.check("key", value)
        hint = "; did you mean 'b'?" if value == "ab" else ""
        assert str(error.value) == f"key={value!r} must be {rule.must}{hint}"


@pytest.mark.parametrize("name", RULES)
def test_a_rule_judges_whatever_it_is_given(name):
    rule = RULES[name][0]
    fitting = {x for x in map(repr, ODD) if x in map(repr, [v for v in ODD if rule.fits(v)])}
    allowed = {"flag": {"True"}, "text": {"'1'"}, "optional": {"None"}}
    allowed |= {"several": {"(1,)"}, "one or several": {"(1,)"}}
    assert fitting == allowed.get(name, set())


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros((2, 1)), "array([[0.], [0.]])"),
        ("a" * 1000, "'" + "a" * 499 + "..."),
        (10**5000, "a number of thousands of digits"),
    ],
    ids=["array", "text", "number"],
)
def test_an_error_has_one_line_of_readable_length(value, words):
    with pytest.raises(ValueError) as error:
        values.flag().check("key", value)
    assert str(error.value) == f"key={words} must be True or False"


@given(st.floats(allow_nan=True), st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_a_number_fits_its_range(value, a, b):
    low, high = min(a, b), max(a, b)
    assert values.number(low, high).fits(value) == (low <= value <= high)
    assert values.number(above=low, below=high).fits(value) == (low < value < high)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (values.number(), "a number, finite"),
        (values.number(0), "a number, at least 0"),
        (values.number(high=2), "a number, at most 2"),
        (values.number(0, 1), "a number, at least 0 and at most 1"),
        (values.number(above=0, below=1), "a number, above 0 and below 1"),
        (values.whole(1), "a whole number, at least 1"),
    ],
)
def test_a_rule_says_in_words_what_it_is(rule, words):
    assert rule.must == words
