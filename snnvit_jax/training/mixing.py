"""Mixup and cutmix, on the device, inside the training step.

Neighbours in a batch, which come in random order, are mixed with each other: with the batch spread
over devices, no image has to travel.
"""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Mixing:
    """How the examples of a batch are mixed.

    Attributes:
      mixup_alpha: of mixup's Beta(alpha, alpha), >= 0; 0 for none.
      cutmix_alpha: of cutmix's, likewise.
      cutmix_share: how often it is cutmix if both are on, in [0, 1].
      probability: that a batch is mixed at all, in [0, 1].
      off_step: training step from which nothing is mixed; None for never.

    Raises:
      ValueError: naming a value that does not fit.
    """

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    cutmix_share: float = 0.5
    probability: float = 1.0
    off_step: int | None = None

    def __post_init__(self):
        for name in ("mixup_alpha", "cutmix_alpha"):
            if getattr(self, name) < 0:
                raise ValueError(f"mixing.{name}={getattr(self, name)} must not be negative")
        for name in ("cutmix_share", "probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"mixing.{name}={getattr(self, name)} must lie between 0 and 1")

    @property
    def is_on(self):
        """Whether anything is ever mixed."""
        return max(self.mixup_alpha, self.cutmix_alpha) > 0 and self.probability > 0


def mix(key, images, targets, step, mixing):
    """Mixes each pair of neighbours in a batch, with one ratio for the whole batch.

    Args:
      key: typed PRNG key of this step.
      images: [B, H, W, C], B even.
      targets: [B, K] probabilities.
      step: training steps done.
      mixing: a `Mixing`.

    Returns:
      (images, targets), as they were with probability 1 - `mixing.probability` and from `off_step`.

    Raises:
      ValueError: for an odd batch.
    """
    if not mixing.is_on:
        return images, targets
    if len(images) % 2:
        raise ValueError(f"mixup and cutmix need an even batch, not {len(images)}")
    on_key, which_key, mixup_key, cutmix_key = jax.random.split(key, 4)
    on = jax.random.uniform(on_key) < mixing.probability
    if mixing.off_step is not None:
        on &= step < mixing.off_step
    blend = mixup_weights(mixup_key, images.shape[1:3], mixing.mixup_alpha)
    paste = cutmix_weights(cutmix_key, images.shape[1:3], mixing.cutmix_alpha)
    use_cutmix = jax.random.uniform(which_key) < _cutmix_probability(mixing)
    own = jnp.where(on, jnp.where(use_cutmix, paste, blend), 1.0)[..., None]  # H W 1
    share = jnp.mean(own)
    images = (own * images + (1 - own) * _neighbours(images)).astype(images.dtype)
    return images, share * targets + (1 - share) * _neighbours(targets)


def mixup_weights(key, image_size, alpha):
    """Returns each pixel's share in the mixture, [H, W], everywhere the same lambda.

    lambda ~ Beta(alpha, alpha) (Zhang et al., "mixup", ICLR 2018); 1 for alpha = 0.

    Args:
      key: typed PRNG key.
      image_size: (H, W).
      alpha: >= 0.
    """
    return jnp.full(image_size, jax.random.beta(key, alpha, alpha) if alpha else 1.0)


def cutmix_weights(key, image_size, alpha):
    """Returns each pixel's share in the mixture, [H, W]: 0 in a box, 1 elsewhere.

    The box has the image's proportions, an area of 1 - lambda with lambda ~ Beta(alpha, alpha), and
    its centre anywhere; what sticks out is cut off (Yun et al., "CutMix", ICCV 2019).

    Args:
      key: typed PRNG key.
      image_size: (H, W).
      alpha: >= 0; without a box for 0.
    """
    if not alpha:
        return jnp.ones(image_size)
    ratio_key, *centre_keys = jax.random.split(key, 3)
    side = jnp.sqrt(1 - jax.random.beta(ratio_key, alpha, alpha))
    inside = [
        _in_interval(centre_key, length, side)
        for centre_key, length in zip(centre_keys, image_size, strict=True)
    ]
    return 1.0 - (inside[0][:, None] & inside[1][None, :])


def _in_interval(key, length, share):
    """Which of `length` pixels lie in an interval of `share` of them around a random centre."""
    half = jnp.floor(length * share).astype(int) // 2
    centre = jax.random.randint(key, (), 0, length)
    place = jnp.arange(length)
    return (place >= centre - half) & (place < centre + half)


def _cutmix_probability(mixing):
    if not mixing.mixup_alpha:
        return 1.0
    return mixing.cutmix_share if mixing.cutmix_alpha else 0.0


def _neighbours(x):
    """Swaps the elements 2i and 2i + 1 of the first axis."""
    return x.reshape(-1, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)
