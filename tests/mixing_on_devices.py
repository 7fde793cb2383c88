"""Run by test_mixing.py in a process of its own, which it starts with four devices.

Mixes batches that are spread over the devices, and prints how far the results lie from those of a
single device.
"""

import json

import jax
import numpy as np

from snnvit_jax.distributed.mesh import create_mesh
from snnvit_jax.distributed.sharding import shard_batch
from snnvit_jax.training.mixing import Mixing, mix


def main(images_per_device=(1, 2, 3)):
    """Prints {examples on each device: largest difference}."""
    mesh, mixing = create_mesh({"data": 4}), Mixing(0.8, 1.0)
    mixed = jax.jit(lambda key, x, y: mix(key, x, y, 0, mixing))
    found = {}
    for count in images_per_device:
        rng = np.random.default_rng(count)
        images = rng.normal(size=(4 * count, 8, 8, 3)).astype(np.float32)
        batch = {"image": images, "target": np.eye(4 * count, dtype=np.float32)}
        spread = shard_batch(batch, mesh)
        differences = [
            np.abs(np.asarray(a) - np.asarray(b)).max()
            for seed in range(3)
            for a, b in zip(
                mixed(jax.random.key(seed), spread["image"], spread["target"]),
                mixed(jax.random.key(seed), batch["image"], batch["target"]),
                strict=True,
            )
        ]
        found[count] = float(max(differences))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
