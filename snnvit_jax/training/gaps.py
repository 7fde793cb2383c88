"""Places of a batch that stand for no example: gaps, at which a batch's "mask" is False.

Batches of `loader.train_batches` have none; those of a program of your own may be filled up with
them. A gap takes part in nothing: a copy of a real example comes in its place before anything is
computed, so that neither mixing nor batch statistics see what was there, and the copy has no
weight in the loss. (The statistics see that example twice, and its spikes pay their price twice.)
"""

import jax
import jax.numpy as jnp


def fill(batch):
    """Returns a batch with a copy of a real example at every gap.

    It is the nearest real one before the gap; before the first real example, the last one.

    Args:
      batch: {name: array [B, ...]} with "mask" [B], bool, which stays as it is.
    """
    mask = batch["mask"]
    before = jax.lax.cummax(jnp.where(mask, jnp.arange(len(mask)), -1))
    real = jnp.where(before < 0, before[-1], before)
    return jax.tree.map(lambda x: x[real], batch) | {"mask": mask}


def weights(mask):
    """Returns the weight of each example in a mean over the batch, [B]: 0 for gaps, 1 on average.

    Without any real example they are not numbers, and so the step is taken back.

    Args:
      mask: [B], False for gaps.
    """
    mask = mask.astype(jnp.float32)
    share = jnp.mean(mask)
    return jnp.where(share > 0, mask / share, jnp.nan)
