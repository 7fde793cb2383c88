"""The name that somebody may have meant."""

import difflib


def nearest(given, known):
    """Returns the known name nearest to one that is unknown, None if none is near.

    Capital letters count for nothing.

    Args:
      given: anything; what is no text is like nothing.
      known: names.
    """
    if not isinstance(given, str):
        return None
    by_small = {name.lower(): name for name in known}
    found = difflib.get_close_matches(given.lower(), by_small, n=1)
    return by_small[found[0]] if found else None


def did_you_mean(given, known):
    """Returns "; did you mean 'x'?" for the name that is `nearest`, or "".

    Args:
      given: see `nearest`.
      known: see `nearest`.
    """
    name = nearest(given, known)
    return "" if name is None else f"; did you mean {name!r}?"
