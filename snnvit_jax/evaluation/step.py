"""One evaluation step, as a pure function of variables and a batch."""

import functools

import jax
import jax.numpy as jnp

from snnvit_jax import energy
from snnvit_jax.common.pixels import normalised
from snnvit_jax.training.objective import cross_entropy
from snnvit_jax.xla import backends


@functools.partial(backends.jit, static_argnames=("model", "products", "normalization"))
def eval_step(variables, batch, *, model, products=True, normalization=None):
    """Evaluates a batch in inference mode.

    Args:
      variables: {"params", "batch_stats"} of the model.
      batch: {"image": [B, H, W, C], or [B, T, H, W, C] of recordings, "label": [B] int32, "mask":
        [B] bool}; examples whose mask is False do not count.
      model: a Linen module.
      products: whether products are counted, or only what neurons emit.
      normalization: of images that come as whole numbers; None if they come normalised.

    Returns:
      A dictionary of
        metrics: loss and accuracy as (sum, count);
        confusion: [K, K] counts of examples by (label, prediction);
        operations: counts of `energy.observe`, to be read with `energy.decode`.
    """
    images = normalised(batch["image"], normalization)
    logits, operations = energy.observe(
        model, variables, images, mask=batch["mask"], products=products
    )
    mask = batch["mask"].astype(jnp.float32)
    predictions, count = jnp.argmax(logits, -1), jnp.sum(mask)
    losses = cross_entropy(logits, batch["label"])
    one_hot = functools.partial(jax.nn.one_hot, num_classes=logits.shape[-1])
    return {
        "metrics": {
            "loss": (jnp.sum(losses * mask), count),
            "accuracy": (jnp.sum((predictions == batch["label"]) * mask), count),
        },
        "confusion": one_hot(batch["label"]).T * mask @ one_hot(predictions),
        "operations": operations,
    }
