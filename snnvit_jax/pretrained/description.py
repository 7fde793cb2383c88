"""What config.json of a trained network must say: of its model, its classes and how files are read.

How it was trained and what it reaches may be left out; only the card asks for that.
"""

import jax.numpy as jnp

from snnvit_jax.common import values

IMAGES, RECORDINGS = "images", "recordings"
_SIZE = values.several(values.whole(1), 2)
_FRACTION = values.optional(values.number(0.1, 1))
_WORDS = values.Rule("a text", lambda value: isinstance(value, str))  # may be empty
_NUMBERS = values.Rule(
    "numbers by their names",
    lambda value: isinstance(value, dict) and all(map(values.number().fits, value.values())),
)
_ENERGY = values.Rule(
    "the numbers add, multiply and plain",
    lambda value: _NUMBERS.fits(value) and {"add", "multiply", "plain"} <= value.keys(),
)

_MOST = 2**20  # of a setting: beyond, no model can be built, and some try for hours


def _is_plain(value):
    """Whether a setting is a text, a truth value, None, a number, or a list of such."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, bool)) or _NUMBER.fits(value)


def _is_type(value):
    try:
        return isinstance(value, str) and jnp.issubdtype(jnp.dtype(value), jnp.floating)
    except TypeError:
        return False


_NUMBER = values.number(-_MOST, _MOST)
_PLAIN = values.Rule(f"a text, True, False, None, {_NUMBER.must}, or a list of such", _is_plain)
# What every family, or every kind of neuron, takes; families check what is their own.
_SETTINGS = {
    "dtype": values.Rule("the name of a floating-point type, such as float32", _is_type),
    "neuron": values.Rule("an object", lambda value: isinstance(value, dict)),
}
_NEURON = {
    "kind": values.optional(values.text()),
    "tau": values.optional(_NUMBER),
    "alpha": values.optional(_NUMBER),
    "surrogate": values.optional(values.text()),
    **dict.fromkeys(("reset", "estimator"), values.text()),
    "detach_reset": values.flag(),
    "levels": values.whole(1, _MOST),
}

_RULES = {
    "model/name": values.text(),
    "model/num_classes": values.whole(1),
    "model/image_size": _SIZE,
    "model/time_steps": values.whole(1, _MOST),
    "model/settings": values.Rule("an object", lambda value: isinstance(value, dict)),
    "classes": values.several(values.text()),
    "reading/kind": values.one_of((IMAGES, RECORDINGS)),
    "reading/preprocess/size": _SIZE,
}
_RULES_OF = {
    IMAGES: {
        "reading/channels": values.Rule(
            "1 or 3", lambda value: values.whole(1).fits(value) and value in (1, 3)
        ),
        "reading/preprocess/mean": values.several(values.number()),
        "reading/preprocess/std": values.several(values.number(above=0)),
        "reading/preprocess/crop_fraction": _FRACTION,
    },
    RECORDINGS: {
        "reading/preprocess/sum_channel": values.flag(),
        "reading/frames/time_steps": values.whole(1),
    },
}
_MAY_BE_MISSING = {"reading/preprocess/crop_fraction", "reading/preprocess/sum_channel"}
# What the card shows beside that.
_OF_CARD = {
    "name": values.text(),
    "description": values.text(),
    "trained/config/data/name": values.text(),
    "trained/config/data/train_split": values.text(),
    "trained/config/data/eval_split": values.text(),
    "trained/config/data/mean": values.several(values.number()),
    "trained/config/data/std": values.several(values.number()),
    "trained/config/seed": values.whole(0),
    "trained/epochs": values.number(0),
    "trained/checkpoint": values.text(),
    "trained/hours": values.number(0),
    "trained/versions": values.Rule("texts by their names", lambda value: isinstance(value, dict)),
    **dict.fromkeys(("trained/hardware", "trained/commit"), _WORDS),
    **dict.fromkeys(("trained/command", "trained/note"), _WORDS),
    "measured/accuracy": values.number(0, 1),
    "measured/examples": values.whole(1),
    "measured/correct": values.whole(0),
    "measured/split": values.text(),
    "measured/parameters": values.whole(1),
    "measured/average_time_steps": values.number(0),
    "measured/modules": _NUMBERS,
    "measured/energy_uj": values.optional(_ENERGY),
}
_NOTHING = object()


def check(about, file):
    """Raises ValueError naming the file, the entry and its value, if a network cannot be built.

    Args:
      about: what the file holds, a dictionary; also what it says beyond these entries stays.
      file: path, for the message.
    """
    kind = at(about, "reading/kind")
    for entry, rule in (_RULES | _RULES_OF.get(kind if isinstance(kind, str) else "", {})).items():
        _check(about, entry, rule, file)
    _check_each(about, "model/settings", _SETTINGS, file)
    if "neuron" in about["model"]["settings"]:
        _check_each(about, "model/settings/neuron", _NEURON, file)
    names, count = len(about["classes"]), about["model"]["num_classes"]
    if names != count:
        raise ValueError(f"{file!r}: classes holds {names} names, model.num_classes is {count}")
    _check_equal(about, "reading/preprocess/size", "model/image_size", file)
    if kind == IMAGES:
        _check_channels(about["reading"], file)
    else:
        _check_equal(about, "reading/frames/time_steps", "model/time_steps", file)


def image_shape(about):
    """Returns (H, W, C) of the images that a network reads, (T, H, W, C) of recordings.

    Args:
      about: that `check` has nothing against.
    """
    reading = about["reading"]
    size = tuple(reading["preprocess"]["size"])
    if reading["kind"] == IMAGES:
        return (*size, reading["channels"])
    polarities = 3 if reading["preprocess"].get("sum_channel") else 2  # and perhaps their sum
    return (about["model"]["time_steps"], *size, polarities)


def at(about, entry):
    """Returns what a dictionary of dictionaries says at a path; a marker of its own for nothing.

    Args:
      about: the dictionary.
      entry: keys with "/" between them.
    """
    for key in entry.split("/"):
        about = about.get(key, _NOTHING) if isinstance(about, dict) else _NOTHING
    return about


def missing_for_card(about):
    """Returns the names of what a card needs and a description does not say, or says wrongly.

    Args:
      about: what config.json holds.
    """
    return [entry for entry, rule in _OF_CARD.items() if not rule.fits(at(about, entry))]


def _check(about, entry, rule, file):
    value = at(about, entry)
    if value is _NOTHING and entry in _MAY_BE_MISSING:
        return
    if value is _NOTHING:
        name = entry.replace("/", ".")
        raise ValueError(f"{file!r} lacks {name}, which must be {rule.must}")
    _check_value(entry, value, rule, file)


def _check_value(entry, value, rule, file):
    try:
        rule.check(entry.replace("/", "."), value)
    except ValueError as error:
        raise ValueError(f"{file!r}: {error}") from error


def _check_each(about, entry, rules, file):
    """Checks every key of an object: by its own rule, or to be a plain value."""
    for key, value in at(about, entry).items():
        _check_value(f"{entry}/{key}", value, rules.get(key, _PLAIN), file)


def _check_equal(about, entry, other, file):
    if at(about, entry) != at(about, other):
        said = (f"{name.replace('/', '.')}={at(about, name)!r}" for name in (entry, other))
        raise ValueError(f"{file!r}: {', '.join(said)} must be equal")


def _check_channels(reading, file):
    channels = reading["channels"]
    for key in ("mean", "std"):
        count = len(reading["preprocess"][key])
        if count not in (1, channels):
            raise ValueError(
                f"{file!r}: reading.preprocess.{key} holds {count} numbers for {channels} channels"
            )
