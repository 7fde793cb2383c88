"""Mixup and cutmix, on the device, inside the training step.

Neighbours in a batch, which come in random order and are different examples (`data.order`), are
mixed with each other: with the batch spread over devices, no image has to travel.
"""

import dataclasses

import jax
import jax.numpy as jnp

from snnvit_jax.common import values

# Random numbers of a Beta distribution are not numbers in float32 if alpha is close to nothing.
_ALPHA = values.Rule(
    "0 for none, or a number, at least 1e-06 and at most 1e+06",
    lambda alpha: values.number(0, 1e6).fits(alpha) and not 0 < alpha < 1e-6,
)

# What each setting must be, by its name.
RULES = {
    "mixup_alpha": _ALPHA,
    "cutmix_alpha": _ALPHA,
    "cutmix_share": values.number(0, 1),
    "probability": values.number(0, 1),
    "off_step": values.optional(values.whole(0, 2**31 - 1)),
}


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
        values.check_fields(self, RULES, "mixing")

    @property
    def is_on(self):
        """Whether anything is ever mixed."""
        return max(self.mixup_alpha, self.cutmix_alpha) > 0 and self.probability > 0


def mix(key, images, targets, step, mixing):
    """Mixes each pair of neighbours in a batch, with one ratio for the whole batch.

    The last example of an odd batch has no neighbour but itself, and so stays as it is.

    Args:
      key: typed PRNG key of this step.
      images: [B, ..., H, W, C], B >= 1.
      targets: [B, K] probabilities.
      step: training steps done.
      mixing: a `Mixing`.

    Returns:
      (images, targets), as they were with probability 1 - `mixing.probability` and from `off_step`.
    """
    if not mixing.is_on:
        return images, targets
    on_key, which_key, mixup_key, cutmix_key = jax.random.split(key, 4)
    on = jax.random.uniform(on_key) < mixing.probability
    if mixing.off_step is not None:
        on &= step < mixing.off_step
    blend = mixup_weights(mixup_key, images.shape[-3:-1], mixing.mixup_alpha)
    paste = cutmix_weights(cutmix_key, images.shape[-3:-1], mixing.cutmix_alpha)
    use_cutmix = jax.random.uniform(which_key) < _cutmix_probability(mixing)
    own = jnp.where(on, jnp.where(use_cutmix, paste, blend), 1.0)[..., None]  # H W 1
    return _mix_neighbours(images, own), _mix_neighbours(targets, jnp.mean(own))


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


def _mix_neighbours(x, own):
    """Mixes the elements 2i and 2i + 1 of the first axis, each keeping the share `own` of itself.

    An element without a neighbour is mixed with itself: it stays as it is, to the last bit.
    """
    pairs = len(x) // 2
    pair = x[: 2 * pairs].reshape(pairs, 2, *x.shape[1:])
    mixed = own * pair + (1 - own) * pair[:, ::-1]
    mixed = mixed.reshape(2 * pairs, *x.shape[1:]).astype(x.dtype)
    return jnp.concatenate([mixed, x[2 * pairs :]]) if len(x) % 2 else mixed
