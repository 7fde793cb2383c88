"""The teacher of a training: another network, of which the run keeps a copy.

It is that of another run or a trained network. The copy in WORKDIR/teacher makes the training
independent of the other folder: that may move, or be trained on, and this one still goes on to the
same numbers.
"""

import json
import operator

import jax
import jax.numpy as jnp
from flax import traverse_util

from snnvit_jax.checkpoints import checksums
from snnvit_jax.checkpoints.checkpoints import finished_checkpoints
from snnvit_jax.common import files, tensors
from snnvit_jax.common.paths import expanded
from snnvit_jax.common.variables import check_finite
from snnvit_jax.runs import classes as classes_lib
from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs import initial, opening
from snnvit_jax.runs.workdir import Workdir
from snnvit_jax.weights.fitting import head_of

# What a teacher's images must have in common with the student's.
_SAME_IMAGES = ("image_size", "mean", "std", "events.split_by", "events.sum_channel")
_WEIGHTS = "weights.safetensors"


def find(path, workdir=None):
    """Returns the folder to read a teacher from: the copy that a run keeps, or that of the teacher.

    Args:
      path: as given in the configuration: a run's folder, "pretrained:NAME", or the folder of such
        a network.
      workdir: the `Workdir` of the run that follows it; None for none.

    Raises:
      ValueError: if there is a copy that is damaged, or for an unknown name.
    """
    if workdir is not None and workdir.teacher.is_dir():
        copy = Workdir(workdir.teacher)
        if _is_whole(copy) and json.loads(copy.origin.read_text())["teacher"] == str(path):
            return copy.path
    return initial.network_at(path) or expanded(path)


def read_config(path, data, class_names=None):
    """Returns the configuration of a teacher whose images are those of the student.

    Args:
      path: a run's folder, the copy that another keeps of it, or the folder of a trained network.
      data: `config.data` of the student.
      class_names: of the student, in order; None compares none.

    Raises:
      FileNotFoundError: if there is no such folder.
      ValueError: if it holds no run, or one that is trained on images of another kind or on other
        classes.
    """
    folder = expanded(path)
    if not folder.exists():
        raise FileNotFoundError(
            f"distillation.teacher={str(path)!r} does not exist; give pretrained:NAME or a run's "
            "folder, for example --config.distillation.teacher=runs/cifar10/20260101-120000"
        )
    try:
        config, names = opening.settings_of(folder)
    except FileNotFoundError as error:
        raise ValueError(f"distillation.teacher={str(path)!r} holds no run") from error
    for key in _SAME_IMAGES:
        theirs, ours = (
            _as_tuple(operator.attrgetter(key)(settings)) for settings in (config.data, data)
        )
        if theirs != ours:
            raise ValueError(
                f"distillation.teacher={str(path)!r} sees other images than this training: "
                f"data.{key}={theirs}, here {ours}"
            )
    if names is not None and class_names is not None and names != tuple(class_names):
        raise ValueError(
            f"distillation.teacher={str(path)!r} tells apart other classes than this training: "
            f"{classes_lib.difference(names, class_names, ('there', 'here'))}"
        )
    return config


def load(path, num_classes, head="head"):
    """Returns the variables of a teacher, {"params", "batch_stats"}, from its newest checkpoint.

    Args:
      path: a run's folder, the copy that another keeps of it, or the folder of a trained network.
      num_classes: of the student.
      head: name of the teacher's head, `Family.head`.

    Raises:
      ValueError: if it holds no checkpoint, none that can be read, one for other classes, or
        weights that are not finite.
    """
    folder = expanded(path)
    if (folder / _WEIGHTS).exists():
        variables = tensors.unpack((folder / _WEIGHTS).read_bytes(), repr(str(folder / _WEIGHTS)))
        variables = traverse_util.unflatten_dict(variables, sep="/")
    else:
        variables = opening.variables_of(folder)
    classes = head_of(variables["params"], head)["kernel"].shape[-1]
    if classes != num_classes:
        raise ValueError(
            f"distillation.teacher={str(path)!r} tells {classes} classes apart, this training "
            f"{num_classes}"
        )
    check_finite(variables, f"distillation.teacher={str(path)!r}")
    return variables


def check_shapes(path, variables, wanted, image_shape):
    """Raises ValueError if a teacher's variables are not those of its model for some images.

    Args:
      path: a run's folder.
      variables: the teacher's, from `load`.
      wanted: those of its model for the student's images, as arrays or shapes.
      image_shape: (H, W, C) of these images, (T, H, W, C) of recordings.
    """
    found, wanted = (jax.tree_util.tree_leaves_with_path(tree) for tree in (variables, wanted))
    shapes = [{jax.tree_util.keystr(p): jnp.shape(x) for p, x in tree} for tree in (found, wanted)]
    differing = sorted(k for k in {*shapes[0], *shapes[1]} if shapes[0].get(k) != shapes[1].get(k))
    if differing:
        raise ValueError(
            f"distillation.teacher={str(path)!r} was not trained on images of {image_shape}: "
            f"{differing[0]} has the shape {shapes[0].get(differing[0])}, "
            f"not {shapes[1].get(differing[0])}"
        )


def keep(path, workdir, variables):
    """Copies a teacher into the folder of the run that follows it, unless it is there already.

    Args:
      path: of the teacher's run, as given in the configuration.
      workdir: the `Workdir` of the run that follows it.
      variables: {"params", "batch_stats"} of the teacher, on the host.

    Raises:
      OSError: if it cannot be written.
    """
    source, copy = Workdir(find(path, workdir)), Workdir(workdir.teacher)
    if source.path == copy.path:
        return
    files.make_folder(copy.path)
    checksums.path_for(copy.path).unlink(missing_ok=True)  # it comes last: then all is there
    initial.save(copy.path / _WEIGHTS, variables)
    config, names = opening.settings_of(source.path)
    files.write_text(copy.config, config_lib.to_json(config))
    if names is not None:
        classes_lib.save(copy, names)
    steps = [step for step, _ in finished_checkpoints(source.checkpoints)]
    origin = {"teacher": str(path), "step": steps[-1] if steps else None}
    files.write_text(copy.origin, json.dumps(origin, indent=1) + "\n")
    checksums.write(copy.path)


def _is_whole(copy):
    """Whether a copy was written to its end."""
    try:
        return checksums.check(copy.path)
    except ValueError as error:
        raise ValueError(
            f"the run's own copy of its teacher is damaged: {error}; put back what was written "
            f"there, or remove {copy.path} if the teacher is where distillation.teacher says"
        ) from error


def _as_tuple(value):
    return tuple(value) if isinstance(value, (tuple, list)) else value
