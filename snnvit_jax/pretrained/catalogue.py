"""Networks by name: the folders that come with the package; or by path: any folder like them.

A text may be a name; a path object never is, so that the folder it means is never taken for a
network of the package that is called alike.
"""

import os
import pathlib

from snnvit_jax.common.nearest import nearest
from snnvit_jax.common.paths import expanded
from snnvit_jax.common.values import shown
from snnvit_jax.pretrained import folder
from snnvit_jax.pretrained.network import Pretrained

NETWORKS = pathlib.Path(__file__).parents[1] / "weights" / "networks"
PREFIX = "pretrained:"  # before a name, where a text may be a path too


def list_pretrained():
    """Returns the names of the trained networks that come with the package, sorted."""
    return sorted(path.name for path in NETWORKS.iterdir() if folder.is_network(path))


def find(name):
    """Returns the folder of a network.

    Args:
      name: one of `list_pretrained()`, or that after "pretrained:"; or the path of a folder. A path
        object is never a name.

    Returns:
      An absolute path.

    Raises:
      TypeError: if it is no text and no path.
      ValueError: if there is no such network and no such folder, with the names there are and the
        nearest one; or if there are both.
    """
    if not isinstance(name, (str, os.PathLike)):
        raise TypeError(
            f"a pretrained network is given by its name, a text, or by the path of its folder, got "
            f"{shown(name)}"
        )
    if isinstance(name, str) and name.startswith(PREFIX):
        found = _of_package(name.removeprefix(PREFIX))
    elif isinstance(name, str) and name in list_pretrained():
        found = _of_package(name)
        _check_alone(name, found)
    else:
        found = _folder(name)
    if found is None:
        raise ValueError(_unknown(name))
    return found


def load_pretrained(name):
    """Loads a trained network; nothing is downloaded.

    Args:
      name: one of `list_pretrained()`, also after "pretrained:", or the path of a folder with
        `config.json` and `model.safetensors` as `experiments/pretrained/export.py` writes it, such
        as the clone of a model hub's repository. A path object is never a name.

    Returns:
      A `Pretrained`: the model, its variables, its classes, how images are normalised, and its
      card.

    Raises:
      TypeError: for what is no text and no path.
      ValueError: for an unknown name, with the nearest one, or one that a folder in the working
        directory has too; or naming the file that is damaged or of another format.
      FileNotFoundError: if the folder lacks one of the files.
    """
    path = find(name)
    about = folder.read_config(path)
    model = folder.create(about, path)
    return Pretrained(model, folder.read_weights(path, about, model), about)


def _of_package(name):
    """The folder of a network that comes with the package, None if none is called so."""
    return NETWORKS / name if name in list_pretrained() else None


def _folder(path):
    """The folder at a path, absolute; None if there is none."""
    place = expanded(path)
    is_there = path != "" and os.path.isdir(place)  # is_dir of a long name raises
    return place.absolute() if is_there else None


def _check_alone(name, of_package):
    """Raises ValueError if a network or a run in the working directory is called like another."""
    path = pathlib.Path(name)
    is_other = any((path / file).exists() for file in (folder.CONFIG, folder.WEIGHTS))
    if is_other and not path.samefile(of_package):
        raise ValueError(
            f"{name!r} is a network of the package and a folder here: write './{name}' for the "
            f"folder, '{PREFIX}{name}' for the network of the package"
        )


def _unknown(name):
    """What is wrong with what names no network."""
    names = list_pretrained()
    there_are = f"those that come with the package: {', '.join(names)}"
    if not isinstance(name, str):
        return f"there is no folder {shown(str(name))}; by their names, as texts, {there_are}"
    given = name.removeprefix(PREFIX)
    near = nearest(pathlib.PurePath(given).name, names)
    hint = "" if near is None else f" (did you mean {near!r}?)"
    nor = "" if name.startswith(PREFIX) else ", and there is no such folder"
    return f"no pretrained network is called {shown(given)}{hint}{nor}; {there_are}"
