"""The classes of a run, by name and in order: what its outputs mean.

A network knows classes by number only. Their names come from the data, where a folder may be
renamed; so they are kept with the run and compared whenever data and weights meet.
"""

import json

from snnvit_jax.common import files


def save(workdir, names):
    """Writes classes.json.

    Args:
      workdir: a `Workdir`.
      names: one for each class, in order.
    """
    files.write_text(workdir.classes, json.dumps(list(names), indent=1) + "\n")


def read(workdir):
    """Returns the names of a run's classes, in order, or None if it is older than this file.

    Args:
      workdir: a `Workdir`.

    Raises:
      ValueError: naming the file, if it holds no list of names.
    """
    if not workdir.classes.exists():
        return None
    return parse(workdir.classes.read_bytes(), workdir.classes)


def parse(text, path):
    """Returns names of classes, in order, from JSON.

    Args:
      text: a list of names, or its bytes.
      path: of the file that it comes from, for an error's message.

    Raises:
      ValueError: naming the file, if it is no list of names.
    """
    try:
        names = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} holds no list of classes: {error}") from error
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError(f"{path} holds no list of classes, but {names!r:.100}")
    return tuple(names)


def check(workdir, names):
    """Raises ValueError if the data have other classes than those that a run was trained on.

    Args:
      workdir: a `Workdir`; one without classes.json is not checked.
      names: of the data, in order.
    """
    check_names(workdir.path, read(workdir), names)


def check_names(place, old, names):
    """Raises ValueError if the data have other classes than a network was trained on.

    Args:
      place: of the network or its run, for the message.
      old: the network's classes, in order; None if they are not known, and not checked.
      names: of the data, in order.
    """
    if old is not None and tuple(old) != tuple(names):
        raise ValueError(
            f"the data have other classes than the run in {place} was trained on: "
            f"{difference(old, names)}; give it the data with its own classes, or train another "
            "run on these, with this one's folder as init_from"
        )


def difference(old, new, words=("then", "now"), most=5):
    """Returns in words how two lists of classes differ.

    Args:
      old: names, in order.
      new: others.
      words: when, or where, the old and the new ones are.
      most: how many names to list of each.
    """
    old, new, (then, now) = list(old), list(new), words
    gone = [name for name in old if name not in set(new)]
    come = [name for name in new if name not in set(old)]
    if gone or come:
        return (
            f"{len(old)} classes {then}, of which {_listed(gone, most)} missing {now}; "
            f"{len(new)} {now}, of which {_listed(come, most)} new"
        )
    if sorted(old) != sorted(new):
        return f"{len(old)} classes {then}, {len(new)} {now}, some names more than once"
    place = next(i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b)
    return (
        f"the same in another order: class {place} is {old[place]!r} {then} and {new[place]!r} "
        f"{now}"
    )


def _listed(names, most):
    shown = ", ".join(map(repr, names[:most])) + (", ..." if len(names) > most else "")
    return f"{shown or 'none'} {'is' if len(names) < 2 else 'are'}"
