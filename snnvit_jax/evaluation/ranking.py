"""The classes that a model finds most likely."""

from typing import NamedTuple

import numpy as np


class Ranked(NamedTuple):
    """One class of a prediction.

    Attributes:
      label: its number.
      name: its name.
      probability: in [0, 1], by the softmax of the logits.
    """

    label: int
    name: str
    probability: float


def top_classes(logits, class_names, most=5):
    """Returns the most likely classes of one example, most likely first.

    Of equal ones, the lower number comes first, as with argmax.

    Args:
      logits: [K], finite.
      class_names: K of them.
      most: how many to return, at most K.

    Returns:
      A list of `Ranked`.

    Raises:
      ValueError: if there are not as many names as logits, or a logit is not finite.
    """
    logits = np.asarray(logits, np.float64)
    if len(class_names) != len(logits):
        raise ValueError(f"{len(class_names)} names of classes for {len(logits)} logits")
    if not np.isfinite(logits).all():
        raise ValueError(f"the logits {logits!r} are not finite")
    powers = np.exp(logits - logits.max())
    probabilities = powers / powers.sum()
    order = np.argsort(-logits, kind="stable")[:most].tolist()
    return [Ranked(i, class_names[i], float(probabilities[i])) for i in order]
