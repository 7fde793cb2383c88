"""Run by test_families_on_devices.py with eight devices: families, divided in both ways.

Prints, as JSON on the last line, the losses of a few steps, what is divided, what a step gathers.
"""

import json
import pathlib
import sys

import jax
import parallel_run
from eight_devices import gathered

from snnvit_jax.config import use_model
from snnvit_jax.xla.collectives import collectives

STEPS = 3
DIVIDED = {"sharding": "fsdp_tensor", "mesh.data": 4, "mesh.model": 2}
# Family -> (model, a form of it that two devices divide, side of the images).
SMALL = {
    "qkformer": (
        "qkformer_4_384",
        {"embed_dim": 64, "num_heads": 2, "depth": 3, "mlp_ratio": 2.0},
        8,
    ),
    "metaspikeformer": (
        "metaspikeformer_8_384_imagenet",
        {"embed_dim": (8, 16, 32, 32), "num_heads": 2, "depth": (1, 1), "mlp_ratio": 2.0},
        16,
    ),
}


def config_of(family, weights, **changes):
    """A few steps of digits, from weights that make every layer fire."""
    name, sizes, side = SMALL[family]
    config = parallel_run.small_config(weights)
    use_model(config, name)
    config.model.update(sizes)
    config.batch_size = 16
    config.data.image_size = side
    config.update_from_flattened_dict(changes)
    return config


def seen(experiment, state, losses, step):
    """What the tests look at."""
    placement = experiment.procedure.placement
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    return {
        "losses": losses,
        "divided": [name for name in names if "model" in placement.layout.computed(name)],
        "gathered": gathered(placement, state.params),
        "collectives": [(c.kind, c.shape) for c in collectives(step.as_text())],
    }


def main(folder):
    """Trains every family."""
    found = {}
    for family in SMALL:
        weights = pathlib.Path(folder) / f"{family}.safetensors"
        found[family] = seen(*parallel_run.train(config_of(family, weights, **DIVIDED), STEPS))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
