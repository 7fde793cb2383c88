"""What `import snnvit_jax` does not need, and how to get it.

The package itself needs jax, flax and numpy; training, data and reports come as an extra.
"""

import contextlib


@contextlib.contextmanager
def needed(extra="train"):
    """Imports what an extra brings, inside a `with` block; what is missing is named with a remedy.

    Args:
      extra: one of those in setup.cfg.

    Raises:
      ModuleNotFoundError: saying what to install.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name in ("", "snnvit_jax") or "pip install" in str(error):
            raise
        raise ModuleNotFoundError(
            f"{name!r} is not installed; it comes with pip install 'snnvit_jax[{extra}]'", name=name
        ) from error
