"""Random erasing on the device: the host draws a rectangle for each example, the step fills it.

(Zhong et al., "Random erasing data augmentation", AAAI 2020; `data.augment.transforms` draws.)
"""

import jax
import jax.numpy as jnp


def erase(key, images, rectangles, fill="zero"):
    """Returns normalised images with a rectangle of each overwritten.

    Args:
      key: typed PRNG key of the noise.
      images: [B, H, W, C].
      rectangles: [B, 4] whole numbers: top, left, height, width; nothing is erased where height or
        width are 0.
      fill: "zero", the mean colour, or "noise", each value drawn from the standard normal.
    """
    top, left, height, width = jnp.moveaxis(rectangles, -1, 0)[..., None]  # [B, 1] each
    rows, columns = (jnp.arange(length) for length in images.shape[1:3])
    rows = (rows >= top) & (rows < top + height)
    columns = (columns >= left) & (columns < left + width)
    inside = rows[:, :, None, None] & columns[:, None, :, None]
    noise = jax.random.normal(key, images.shape, images.dtype) if fill == "noise" else 0
    return jnp.where(inside, noise, images)
