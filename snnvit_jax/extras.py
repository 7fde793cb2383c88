"""What `import snnvit_jax` does not need, and how to get it.

The package itself needs jax, flax and numpy; training, data and reports come as an extra.
"""

import contextlib


class MissingExtraError(ModuleNotFoundError):
    """A package is not installed that comes with an extra."""


@contextlib.contextmanager
def needed(extra="train"):
    """Imports what an extra brings, inside a `with` block; what is missing is named with a remedy.

    Args:
      extra: one of those in setup.cfg.

    Raises:
      MissingExtraError: saying what to install.
    """
    try:
        yield
    except MissingExtraError:
        raise
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name in ("", "snnvit_jax"):  # a fault of this package
            raise
        raise MissingExtraError(
            f"{name!r} is not installed; it comes with pip install 'snnvit_jax[{extra}]'", name=name
        ) from error
