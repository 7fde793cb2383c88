"""Modules of the repository that no package holds: configurations and experiments."""

import importlib.util


def module(path):
    """Returns a Python file as a module, executed anew.

    Args:
      path: `pathlib.Path` of the file.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found
