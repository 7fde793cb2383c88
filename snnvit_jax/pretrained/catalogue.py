"""Networks by name: the folders that come with the package; or by path: any folder like them."""

import os
import pathlib

from snnvit_jax.common.nearest import nearest
from snnvit_jax.common.paths import expanded
from snnvit_jax.pretrained import folder
from snnvit_jax.pretrained.network import Pretrained

NETWORKS = pathlib.Path(__file__).parents[1] / "weights" / "networks"


def list_pretrained():
    """Returns the names of the trained networks that come with the package, sorted."""
    return sorted(path.name for path in NETWORKS.iterdir() if folder.is_network(path))


def find(name):
    """Returns the folder of a network.

    Args:
      name: one of `list_pretrained()`, or the path of a folder; a name comes first.

    Raises:
      ValueError: if it is neither, with the names there are and the nearest one.
    """
    names = list_pretrained()
    if str(name) in names:
        return NETWORKS / str(name)
    path = expanded(name)
    if str(name) and path.is_dir():
        return path
    near = nearest(os.path.basename(str(name)), names)
    hint = "" if near is None else f" (did you mean {near!r}?)"
    raise ValueError(
        f"no pretrained network is called {str(name)!r}{hint}, and there is no such folder; those "
        f"that come with the package: {', '.join(names)}"
    )


def load_pretrained(name):
    """Loads a trained network; nothing is downloaded.

    Args:
      name: one of `list_pretrained()`, or the path of a folder with `config.json` and
        `model.safetensors` as `experiments/pretrained/export.py` writes it, such as the clone of a
        model hub's repository.

    Returns:
      A `Pretrained`: the model, its variables, its classes, how images are normalised, and its
      card.

    Raises:
      ValueError: for an unknown name, with the nearest one; or naming the file that is damaged or
        of another format.
      FileNotFoundError: if the folder lacks one of the files.
    """
    path = find(name)
    about = folder.read_config(path)
    model = folder.create(about, path)
    return Pretrained(model, folder.read_weights(path, about, model), about)
