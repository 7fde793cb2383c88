"""The least bytes that a training step must move, counted from the shapes of its arrays.

    JAX_PLATFORMS=cpu python experiments/accelerators/least.py

A training step keeps the result of every linear map (written once, read once in the backward pass),
and reads and writes parameters and moments. All else (spikes, potentials, gradients of activations)
would have to stay on the chip.
"""

import json

import jax
from step import procedure

from snnvit_jax.training.shapes import step_shapes
from snnvit_jax.xla.traced import kept_bytes, tree_bytes

CASES = (("spikformer_4_384", 32, 256), ("spikformer_8_512_imagenet", 224, 64))


def least(model, image_size, batch_size):
    """Returns the bytes that a training step keeps, those of its state, and what follows."""
    step = procedure(model, image_size, batch_size)
    state, batch = step_shapes(step, batch_size)

    def logits(params, batch_stats, images):
        variables = {"params": params, "batch_stats": batch_stats}
        return step.model.apply(variables, images, train=True, mutable=["batch_stats"])

    kept = kept_bytes(logits, state.params, state.batch_stats, batch["image"])
    kept -= tree_bytes(state.params)
    return {
        "model": model,
        "batch_size": batch_size,
        "kept": kept,
        "state": tree_bytes(state),
        "least": 2 * kept + 2 * tree_bytes(state),
    }


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    print(json.dumps([least(*case) for case in CASES], indent=1))
