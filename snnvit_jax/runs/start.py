"""Where a training starts: weights from elsewhere, with a head for its own classes, and a note.

The note (origin.json) and the first checkpoint belong to the run's folder, which needs the place
that the weights came from no more.
"""

import hashlib
import pathlib

import numpy as np
import safetensors

from snnvit_jax import pretrained
from snnvit_jax.checkpoints.checkpoints import finished_checkpoints
from snnvit_jax.common.paths import expanded
from snnvit_jax.models import family_of
from snnvit_jax.runs import classes as classes_lib
from snnvit_jax.runs import initial
from snnvit_jax.runs.workdir import Workdir
from snnvit_jax.weights.fitting import head_of

_KEPT = "kept"


def load(path, model, own, class_names):
    """Returns variables to start a training from, and where they come from.

    They are those of `initial.load`, but the head starts anew also if it is for as many classes
    with other names or in another order, as far as both are known.

    Args:
      path: see `initial.load`.
      model: see `initial.load`.
      own: {"params", "batch_stats"}, the model's initial variables.
      class_names: of the training, in order.

    Returns:
      (variables, origin): the second as JSON can hold it: "init_from", "step" of a run's checkpoint
      or "sha256" of a file, "classes" if they are known, and "head", which is "kept" or why not.

    Raises:
      FileNotFoundError: see `initial.load`.
      ValueError: see `initial.load`.
    """
    variables = initial.load(path, model, own)
    known = classes_of(path)
    name = family_of(model).head
    head, new_head = (head_of(v["params"], name) for v in (variables, own))
    told = _KEPT
    if known is not None and known != tuple(class_names):
        told = classes_lib.difference(known, class_names, ("there", "here"))
        variables = variables | {"params": variables["params"] | {name: new_head}}
    elif all(np.array_equal(head[leaf], new_head[leaf]) for leaf in new_head):
        told = f"there is none for {len(class_names)} classes"
    names = {} if known is None else {"classes": list(known)}
    return variables, {"init_from": str(path), **_version(path), **names, "head": told}


def describe(origin):
    """Returns in words what is to be told of a start.

    Args:
      origin: from `load`.
    """
    place = f"checkpoint {origin['step']} of " if "step" in origin else ""
    text = f"starting from {place}{origin['init_from']}"
    if origin["head"] != _KEPT:
        return f"{text}; the head starts anew: {origin['head']}"
    if "classes" not in origin:
        return f"{text}; the head is kept: which classes it is for is not known, only how many"
    return text


def classes_of(path):
    """Returns the names of the classes that weights are for, in order, or None if not known.

    A run's folder and a trained network tell them, and a safetensors file of `initial.save`.

    Args:
      path: see `initial.load`.

    Raises:
      ValueError: if what it tells is no list of names.
    """
    network = initial.network_at(path)
    if network is not None:
        return tuple(pretrained.read_config(network)["classes"])
    path = expanded(path)
    if path.is_dir():
        return classes_lib.read(Workdir(path))
    if path.suffix != ".safetensors":
        return None
    with safetensors.safe_open(path, "numpy") as file:
        text = (file.metadata() or {}).get("classes")
    return None if text is None else classes_lib.parse(text, path)


def _version(path):
    """Which weights lay at a path when they were read."""
    network = initial.network_at(path)
    if network is not None:
        return {"sha256": pretrained.read_config(network)["sha256"]}
    path = expanded(path)
    if path.is_dir():
        return {"step": finished_checkpoints(Workdir(path).checkpoints)[-1][0]}
    path = path if path.exists() else pathlib.Path(str(path).rpartition("#")[0])  # PATH#KEY
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}
