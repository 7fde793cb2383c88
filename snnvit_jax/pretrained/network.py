"""A trained network, ready to be used: model, variables, classes, normalisation and card."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from snnvit_jax.common.pixels import Normalization
from snnvit_jax.models import describe, layer_names
from snnvit_jax.pretrained import card, description
from snnvit_jax.time_steps.schedule import TimeStepSchedule
from snnvit_jax.xla import backends


@dataclasses.dataclass(frozen=True, eq=False)
class Pretrained:
    """A trained network; `model, variables = network` takes it apart.

    Attributes:
      model: Linen module: images [B, H, W, C], normalised, or recordings [B, T, H, W, C] -> logits
        [B, K].
      variables: {"params", "batch_stats"} of it, float32.
      about: what its config.json says: how it was trained, what it reaches, ..., plain values.
    """

    model: Any
    variables: dict
    about: dict

    def __iter__(self):
        return iter((self.model, self.variables))

    @property
    def classes(self):
        """Names of the classes, in the order of the logits."""
        return tuple(self.about["classes"])

    @property
    def image_shape(self):
        """(H, W, C) of an image, (T, H, W, C) of a recording."""
        return description.image_shape(self.about)

    @property
    def normalisation(self):
        """(mean, std) of pixel values in [0, 1], one for all channels or one each.

        Raises:
          ValueError: for a network of recordings, which are not normalised.
        """
        if self.about["reading"]["kind"] == description.RECORDINGS:
            raise ValueError("this network reads recordings, whose frames are not normalised")
        preprocess = self.about["reading"]["preprocess"]
        return tuple(preprocess["mean"]), tuple(preprocess["std"])

    @property
    def schedule(self):
        """The `TimeStepSchedule`, in forward order."""
        names = layer_names(self.model, self.image_shape[-1])
        return TimeStepSchedule.from_variables(self.variables, names)

    @property
    def card(self):
        """What is known of it, as Markdown."""
        return card.render(self.about)

    def __repr__(self):
        size = " x ".join(map(str, self.image_shape))
        return f"<Pretrained {self.about.get('name', '')}: {describe(self.model)}, reads {size}>"

    def normalise(self, images):
        """Returns images as the model was trained on them, float32; recordings as they are.

        Args:
          images: [B, *image_shape]; whole numbers from 0 to 255 (uint8) or floating-point numbers
            from 0 to 1; of recordings, counts of events of both polarities, and their sum if there
            is a third channel.

        Raises:
          ValueError: for another shape, type or range.
          TypeError: for what JAX traces.
        """
        if isinstance(images, jax.core.Tracer):
            raise TypeError(
                "the values of images are looked at, which jax.jit, grad and vmap do not allow: in "
                "there call network.model.apply(network.variables, images), images normalised "
                "before by network.normalise"
            )
        images = np.asarray(images)
        if images.shape[1:] != self.image_shape or not images.size:
            sizes = ", ".join(map(str, self.image_shape))
            raise ValueError(f"images must be [B, {sizes}] with B >= 1, got {images.shape}")
        if self.about["reading"]["kind"] == description.RECORDINGS:
            return _counts(images)
        return Normalization(*self.normalisation).of_units(_whole_numbers(images))

    def __call__(self, images):
        """Returns the logits [B, K] of images that are not normalised yet.

        Args:
          images: see `normalise`.

        Raises:
          ValueError: for images of another shape, type or range.
          TypeError: for what JAX traces.
        """
        return _logits(self.variables, self.normalise(images), model=self.model)


def _whole_numbers(images):
    """Images with values from 0 to 255: k / 255 in float32, times 255, is k again."""
    if images.dtype == np.uint8:
        return images
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images of type {images.dtype} must be uint8 or floating-point")
    images = images.astype(np.float32)
    if not (images.min() >= 0 and images.max() <= 1):
        span = f"{images.min():.4g} to {images.max():.4g}"
        raise ValueError(f"floating-point images must lie between 0 and 1, these: {span}")
    return 255 * images


def _counts(frames):
    if frames.dtype.kind not in "ui" and not jnp.issubdtype(frames.dtype, jnp.floating):
        raise ValueError(f"frames of type {frames.dtype} must be numbers")
    frames = frames.astype(np.float32)
    wrong = frames[~(np.isfinite(frames) & (frames >= 0))]
    if wrong.size:
        raise ValueError(f"frames must hold counts of events, at least 0; one is {wrong[0]:.4g}")
    return frames


@functools.partial(backends.jit, static_argnames="model")
def _logits(variables, images, *, model):
    return model.apply(variables, jnp.asarray(images))
