"""Run by test_sharding.py in a process of its own, which it starts with eight devices.

Trains on eight devices in every layout, and writes what it saw as JSON on the last line.
"""

import itertools
import json
import pathlib
import sys

import jax
import numpy as np
import parallel_run
from jax.sharding import NamedSharding

from snnvit_jax.checkpoints.checkpoints import Checkpoints, restore
from snnvit_jax.xla.collectives import collectives

LAYOUTS = {
    "replicate": {"mesh.data": 8},
    "fsdp": {"sharding": "fsdp"},
    "tensor": {"sharding": "tensor", "mesh.data": 4, "mesh.model": 2},
    "fsdp_tensor": {"sharding": "fsdp_tensor", "mesh.data": 4, "mesh.model": 2},
}


def gathered(placement, params):
    """Shapes, on each device, of the weights that are computed with otherwise than kept."""
    kept = jax.tree_util.tree_leaves_with_path(placement.shardings(params))
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in kept]
    wanted = [NamedSharding(placement.mesh, placement.layout.computed(name)) for name in names]
    return [
        after.shard_shape(leaf.shape)
        for leaf, (_, before), after in zip(jax.tree.leaves(params), kept, wanted, strict=True)
        if before != after
    ]


def describe(experiment, state, losses, step):
    """What the tests look at."""
    placement, memory = experiment.procedure.placement, step.memory_analysis()
    kept, wanted = (jax.tree.leaves(x) for x in (state, placement.shardings(state)))
    return {
        "losses": losses,
        "masks": parallel_run.active_steps(experiment, state),
        "gathered": gathered(placement, state.params),
        "collectives": [(c.kind, c.shape) for c in collectives(step.as_text())],
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "as_kept": all(
            leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
            for leaf, sharding in zip(kept, wanted, strict=True)
        ),
        "share": sum(leaf.addressable_shards[0].data.size for leaf in kept)
        / sum(leaf.size for leaf in kept),
    }


def restored_alike(folder, old, new):
    """Whether a state that was saved in one layout is the same after restoring it in another."""
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(parallel_run.STEPS, old)
    (_, found), _ = restore(folder, new)
    same_place = jax.tree.map(lambda a, b: a.sharding == b.sharding, found, new)
    same = jax.tree.map(
        lambda a, b: np.array_equal(a, b), jax.device_get(found), jax.device_get(old)
    )
    return all(jax.tree.leaves((same, same_place)))


def main(weights, folder):
    """Prints what is seen in each layout, and whether checkpoints pass between them."""
    runs = {
        name: parallel_run.train(parallel_run.small_config(weights, **changes))
        for name, changes in LAYOUTS.items()
    }
    found = {name: describe(*run) for name, run in runs.items()}
    found["restored"] = {
        f"{old} to {new}": restored_alike(pathlib.Path(folder) / old, runs[old][1], runs[new][1])
        for old, new in itertools.pairwise(("fsdp", "tensor", "fsdp_tensor", "fsdp"))
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
