"""This project's side of peers.py."""

import jax
import numpy as np
import optax
from flax import traverse_util
from serve import Side, peak_process_bytes, serve

import snnvit_jax as snn
from snnvit_jax import training
from snnvit_jax.time_steps import masks
from snnvit_jax.xla import backends, compilation_cache
from snnvit_jax.xla.traced import traced_flops


def prepare(arguments):
    """See `serve.serve`."""
    compilation_cache.use()  # as the command line does
    B, side, classes = arguments["batch_size"], arguments["image_size"], 10
    T, dtype = arguments["time_steps"], np.dtype(arguments["dtype"])
    sizes = arguments["overrides"] | {"dtype": dtype}
    model = snn.create_model(arguments["model"], classes, side, T, **sizes)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(B, side, side, 3)).astype(np.float32)
    batch = jax.device_put({"image": images, "label": rng.integers(0, classes, B)})
    procedure = training.Procedure(model, optax.adamw(1e-4))
    create = jax.jit(lambda key: training.create_state(procedure, key, images.shape[1:]))
    state, logits = create(jax.random.key(0)), None
    forward = backends.jit(model.apply)

    def evaluation():
        nonlocal logits
        logits = forward(state.variables, batch["image"])

    def train():
        nonlocal state
        state, _ = training.train_step(state, batch, procedure=procedure)

    shapes = jax.eval_shape(lambda: state)
    flops = {
        "evaluation": traced_flops(jax.jit(model.apply).trace(shapes.variables, batch["image"])),
        "training": traced_flops(
            jax.jit(training.train_step.__wrapped__, static_argnames="procedure").trace(
                shapes, batch, procedure=procedure
            )
        ),
    }
    return Side(
        about=f"jax {jax.__version__}, {jax.devices()[0].device_kind}",
        parameters=_weights(shapes.params),
        tasks={"evaluation": evaluation, "training": train},
        wait=lambda: jax.block_until_ready((state, logits)),
        peak_bytes=_peak_bytes,
        flops=flops,
    )


def _weights(params):
    leaves = traverse_util.flatten_dict(params).items()
    return sum(leaf.size for path, leaf in leaves if path[-1] != masks.SCORE)


def _peak_bytes():
    statistics = jax.devices()[0].memory_stats()
    return statistics["peak_bytes_in_use"] if statistics else peak_process_bytes()


if __name__ == "__main__":
    serve(prepare)
