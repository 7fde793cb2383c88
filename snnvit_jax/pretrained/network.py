"""A trained network, ready to be used: model, variables, classes, normalisation and card."""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from snnvit_jax.models import layer_names
from snnvit_jax.pretrained import card, folder
from snnvit_jax.time_steps.schedule import TimeStepSchedule
from snnvit_jax.xla import backends


@dataclasses.dataclass(frozen=True, eq=False)
class Pretrained:
    """A trained network.

    Attributes:
      model: Linen module: images [B, H, W, C], normalised -> logits [B, K].
      variables: {"params", "batch_stats"} of it, float32.
      about: what its config.json says: how it was trained, what it reaches, ..., plain values.
    """

    model: Any
    variables: dict
    about: dict

    @property
    def classes(self):
        """Names of the classes, in the order of the logits."""
        return tuple(self.about["classes"])

    @property
    def image_shape(self):
        """(H, W, C) of an image, (T, H, W, C) of a recording."""
        return folder.image_shape(self.about)

    @property
    def normalisation(self):
        """(mean, std) of pixel values in [0, 1], one for all channels or one each.

        Raises:
          ValueError: for a network of recordings, which are not normalised.
        """
        if self.about["reading"]["kind"] != "images":
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

    def normalise(self, images):
        """Returns images as the model was trained on them, float32 [B, H, W, C].

        Args:
          images: [B, H, W, C], whole numbers from 0 to 255 (uint8) or floating-point numbers from 0
            to 1.

        Raises:
          ValueError: for another type or range, or a network of recordings.
        """
        images, (mean, std) = np.asarray(images), self.normalisation
        if images.dtype == np.uint8:
            images = images.astype(np.float32) / np.float32(255)
        elif not np.issubdtype(images.dtype, np.floating):
            raise ValueError(f"images of type {images.dtype} must be uint8 or floating-point")
        elif images.size and not (images.min() >= 0 and images.max() <= 1):
            span = f"{images.min():.4g} to {images.max():.4g}"
            raise ValueError(f"floating-point images must lie between 0 and 1, these: {span}")
        mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
        return (images.astype(np.float32) - mean) / std

    def __call__(self, images):
        """Returns the logits [B, K] of images that are not normalised yet.

        Args:
          images: see `normalise`; of the size of `image_shape`.

        Raises:
          ValueError: for images of another shape, type or range.
        """
        return _logits(self.variables, self.normalise(images), model=self.model)


@functools.partial(backends.jit, static_argnames="model")
def _logits(variables, images, *, model):
    return model.apply(variables, jnp.asarray(images))
