"""The name that somebody may have meant."""

import difflib


def did_you_mean(given, known):
    """Returns "; did you mean 'x'?" for the known name nearest to one that is unknown, or "".

    Capital letters count for nothing.

    Args:
      given: anything; what is no text is like nothing.
      known: names.
    """
    if not isinstance(given, str):
        return ""
    by_small = {name.lower(): name for name in known}
    found = difflib.get_close_matches(given.lower(), by_small, n=1)
    return f"; did you mean {by_small[found[0]]!r}?" if found else ""
