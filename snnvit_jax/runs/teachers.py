"""The teacher of a training: read from the folder of a run that is finished."""

import operator
import pathlib

import jax
import jax.numpy as jnp

from snnvit_jax.checkpoints.checkpoints import load_variables
from snnvit_jax.runs.workdir import Workdir
from snnvit_jax.variables import check_finite

# What a teacher's images must have in common with the student's.
_SAME_IMAGES = ("image_size", "mean", "std", "events.split_by", "events.sum_channel")


def read_config(path, data):
    """Returns the configuration of a teacher whose images are those of the student.

    Args:
      path: a run's folder.
      data: `config.data` of the student.

    Raises:
      FileNotFoundError: if there is no such folder.
      ValueError: if it holds no run, or one that is trained on images of another kind.
    """
    folder = pathlib.Path(path).expanduser()
    if not folder.exists():
        raise FileNotFoundError(
            f"distillation.teacher={path!r} does not exist; give the folder of a run, for example "
            "--config.distillation.teacher=runs/cifar10/20260101-120000"
        )
    config = Workdir(folder).read_config()
    if config is None:
        raise ValueError(f"distillation.teacher={path!r} holds no run")
    for key in _SAME_IMAGES:
        theirs, ours = (
            _as_tuple(operator.attrgetter(key)(settings)) for settings in (config.data, data)
        )
        if theirs != ours:
            raise ValueError(
                f"distillation.teacher={path!r} sees other images than this training: "
                f"data.{key}={theirs}, here {ours}"
            )
    return config


def load(path, num_classes):
    """Returns the variables of a teacher, {"params", "batch_stats"}, from its newest checkpoint.

    Args:
      path: a run's folder.
      num_classes: of the student.

    Raises:
      ValueError: if it holds no checkpoint, none that can be read, one for other classes, or
        weights that are not finite.
    """
    variables = load_variables(Workdir(pathlib.Path(path).expanduser()).checkpoints)
    (classes,) = variables["params"]["head"]["bias"].shape
    if classes != num_classes:
        raise ValueError(
            f"distillation.teacher={path!r} tells {classes} classes apart, this training "
            f"{num_classes}"
        )
    check_finite(variables, f"distillation.teacher={path!r}")
    return variables


def check_shapes(path, variables, wanted, image_shape):
    """Raises ValueError if a teacher's variables are not those of its model for some images.

    Args:
      path: a run's folder.
      variables: the teacher's, from `load`.
      wanted: those of its model for the student's images, as arrays or shapes.
      image_shape: (H, W, C) of these images.
    """
    found, wanted = (jax.tree_util.tree_leaves_with_path(tree) for tree in (variables, wanted))
    shapes = [{jax.tree_util.keystr(p): jnp.shape(x) for p, x in tree} for tree in (found, wanted)]
    differing = sorted(k for k in {*shapes[0], *shapes[1]} if shapes[0].get(k) != shapes[1].get(k))
    if differing:
        raise ValueError(
            f"distillation.teacher={path!r} was not trained on images of {image_shape}: "
            f"{differing[0]} has the shape {shapes[0].get(differing[0])}, "
            f"not {shapes[1].get(differing[0])}"
        )


def _as_tuple(value):
    return tuple(value) if isinstance(value, (tuple, list)) else value
