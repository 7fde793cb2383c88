"""Run by test_own_family.py with eight devices: the losses of a family of one's own, by layout."""

import json

import own_family
import parallel_run

import snnvit_jax as snn

LAYOUTS = {
    "replicate": {"mesh.data": 8},
    "fsdp": {"sharding": "fsdp"},
    "tensor": {"sharding": "tensor", "mesh.data": 4, "mesh.model": 2},
    "fsdp_tensor": {"sharding": "fsdp_tensor", "mesh.data": 4, "mesh.model": 2},
}
STEPS = 3


def config_of(**changes):
    """A few steps of digits."""
    config = parallel_run.small_config("", **changes)
    config.init_from = None
    config.model.name = "drift_16"
    config.model.width = 32
    for key in ("embed_dim", "num_heads", "depth"):
        config.model[key] = None
    return config


def main():
    """Prints losses and the share of the state that one device keeps, by layout."""
    snn.register(own_family.FAMILY)
    found = {}
    for name, changes in LAYOUTS.items():
        _, state, losses, _ = parallel_run.train(config_of(**changes), STEPS)
        kernel = state.params["attn"]["q"]["kernel"]
        spec = list(kernel.sharding.spec)
        found[name] = {"losses": losses, "q": spec}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
