"""Paths as users write them. Imports nothing of this package."""

import pathlib


def expanded(path):
    """Returns a path in which a "~" at its start is the user's home, as in a shell.

    Args:
      path: as a user gives it.

    Raises:
      ValueError: if it begins with "~" and a user that this machine does not know.
    """
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{str(path)!r}: this machine knows no user {pathlib.Path(path).parts[0][1:]!r}; a "
            f"file or folder of that name is ./{path}"
        ) from error
