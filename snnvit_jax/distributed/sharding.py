"""Which device holds what: the placement of states and batches on a mesh.

A mesh has two axes. Batches are split over "data"; with tensor parallelism, what a model's family
says (attention heads and hidden channels, for example) is split over "model". Where a variable lies
follows from its name, and everything that belongs to it (its moments in the optimiser, its average)
has a name that ends the same way, and so lies in the same place.
"""

import contextlib
import dataclasses
import functools
import re

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from snnvit_jax.distributed.mesh import DATA, MODEL, check_processes

# Smaller arrays than this many elements are replicated: to send them costs more than to keep them.
FSDP_MIN_SIZE = 1024


_WHOLE = PartitionSpec()


def largest_axis(shape, mesh, split=_WHOLE):
    """Returns the spec that splits an array's largest divisible axis over "data".

    Args:
      shape: of the array.
      mesh: with an axis "data".
      split: spec of the axes that are split already; they are left as they are.

    Returns:
      A `PartitionSpec`; `split` for an array of fewer than `FSDP_MIN_SIZE` elements or without
      another divisible axis.
    """
    names = [*split, *[None] * (len(shape) - len(split))]
    divisible = [i for i, n in enumerate(shape) if names[i] is None and n % mesh.shape[DATA] == 0]
    if np.prod(shape) < FSDP_MIN_SIZE or not divisible:
        return split
    axis = max(divisible, key=lambda i: shape[i])
    return PartitionSpec(*names[:axis], DATA, *names[axis + 1 : max(axis + 1, len(split))])


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the variables of a training are split.

    Attributes:
      uses_model: whether it gives the axis "model" of a mesh work to do.
      over_data: whether each large array is kept split over the axis "data" besides.
      rules: ((pattern of variable names, name or None for each axis), ...) of a family; the first
        pattern found in a name decides how the variable is computed with, and what none is found in
        is computed with whole.
    """

    uses_model: bool = False
    over_data: bool = False
    rules: tuple = ()

    def computed(self, name):
        """Returns the `PartitionSpec` with which a variable is computed.

        Args:
          name: of the variable, its parts separated by "/".
        """
        found = (axes for pattern, axes in self.rules if re.search(pattern, name))
        return PartitionSpec(*next(found, ()))

    def kept(self, name, shape, mesh):
        """Returns the `PartitionSpec` with which a variable is kept.

        Args:
          name: of the variable.
          shape: of the variable.
          mesh: with an axis "data".
        """
        spec = self.computed(name)
        return largest_axis(shape, mesh, spec) if self.over_data else spec


SHARDINGS = {
    "replicate": Layout(),
    "fsdp": Layout(over_data=True),
    "tensor": Layout(uses_model=True),
    "fsdp_tensor": Layout(uses_model=True, over_data=True),
}


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where the variables of a training lie.

    Attributes:
      mesh: the devices; None leaves everything where it is.
      sharding: a key of `SHARDINGS`. "replicate": every device holds everything. "fsdp": every
        device keeps a part of each large array between steps, and gathers the weights for a step;
        the compiler may keep them whole until its end (stage 1 of Rajbhandari et al., "ZeRO",
        SC 2020, with weights that rest in parts). "tensor": weights are split over the axis "model"
        as the rules say (Shoeybi et al., "Megatron-LM", arXiv 1909.08053). "fsdp_tensor": both; a
        weight is gathered over "data" only.
      rules: `Family.tensor_rules` of the model.

    Raises:
      ValueError: for an unknown sharding, or a mesh whose axis "model" it leaves without work.
    """

    mesh: Mesh | None = None
    sharding: str = "replicate"
    rules: tuple = ()

    def __post_init__(self):
        if self.sharding not in SHARDINGS:
            known = ", ".join(SHARDINGS)
            raise ValueError(f"sharding={self.sharding!r} must be one of {known}")
        if self.mesh is not None:
            check_processes(self.mesh)
        if (
            self.mesh is not None
            and self.mesh.shape.get(MODEL, 1) > 1
            and not self.layout.uses_model
        ):
            raise ValueError(
                f"sharding={self.sharding!r} leaves the axis 'model' of mesh="
                f'{dict(self.mesh.shape)} without work; set sharding="tensor" or "fsdp_tensor", '
                "or mesh.model=1"
            )

    @property
    def layout(self):
        """The `Layout` of that name, with the rules if it has a use for them."""
        layout = SHARDINGS[self.sharding]
        return dataclasses.replace(layout, rules=self.rules if layout.uses_model else ())

    def shardings(self, tree):
        """Returns where each array of a tree is kept, as a tree of `NamedSharding`.

        Args:
          tree: of arrays or their shapes, such as a `TrainState`.
        """
        return jax.tree_util.tree_map_with_path(self._sharding, tree)

    def keep(self, tree):
        """Returns a tree of arrays where they are kept; for use inside `jax.jit`.

        Args:
          tree: of arrays.
        """
        if self.mesh is None:
            return tree
        return jax.lax.with_sharding_constraint(tree, self.shardings(tree))

    def gather(self, tree):
        """Returns a tree of arrays as they are computed with; for use inside `jax.jit`.

        That is where they are kept, except that what is split over "data" is gathered: left to
        itself, the compiler may move the activations to the weights instead.

        Args:
          tree: of arrays.
        """
        if self.mesh is None or not self.layout.over_data:
            return tree
        wanted = jax.tree_util.tree_map_with_path(self._computed, tree)
        return jax.lax.with_sharding_constraint(tree, wanted)

    def in_view(self):
        """Returns a context in which what is traced knows the axes of the mesh.

        Gradients belong inside: XLA divides some of them wrongly (see `xla.convolution`).
        """
        if self.mesh is None:
            return contextlib.nullcontext()
        return jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh)

    def _sharding(self, path, leaf):
        return NamedSharding(self.mesh, self.layout.kept(_name(path), leaf.shape, self.mesh))

    def _computed(self, path, _):
        return NamedSharding(self.mesh, self.layout.computed(_name(path)))


def _name(path):
    return jax.tree_util.keystr(path, simple=True, separator="/")


def check_model(config, placement, divided):
    """Raises ValueError if a model cannot be divided over the mesh.

    Args:
      config: a model's configuration.
      placement: a `Placement`.
      divided: names of the settings that must divide, `Family.divided`.
    """
    parts = placement.mesh.shape.get(MODEL, 1)
    if parts > 1 and placement.layout.uses_model and not placement.rules:
        raise ValueError(
            f"sharding={placement.sharding!r} with mesh.model={parts} needs the tensor_rules of "
            f"the model's family; {type(config).__name__} has none"
        )
    for name in divided:
        if getattr(config, name) % parts:
            raise ValueError(
                f"model.{name}={getattr(config, name)} must be divisible by mesh.model={parts}"
            )


def replicate(tree, mesh):
    """Returns the tree with a copy of every array on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def shard_batch(batch, mesh):
    """Returns the batch split over the mesh's axis "data".

    Args:
      batch: {name: array [B, ...]} of this process.
      mesh: with an axis "data".
    """
    sharding = NamedSharding(mesh, PartitionSpec(DATA))
    return {k: jax.make_array_from_process_local_data(sharding, v) for k, v in batch.items()}


def to_host(tree, mesh):
    """Returns a tree of arrays as NumPy arrays; all processes must call it together.

    Args:
      tree: of arrays on the mesh, split in whatever way.
      mesh: their devices.
    """
    return jax.device_get(tree if jax.process_count() == 1 else _replicated(tree, mesh))


@functools.partial(jax.jit, static_argnames="mesh")
def _replicated(tree, mesh):
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))
