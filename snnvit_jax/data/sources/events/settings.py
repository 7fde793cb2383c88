"""How recordings become frames, and which of them are for training."""

import dataclasses

from snnvit_jax.common import values
from snnvit_jax.data.sources.events import fixed_split
from snnvit_jax.data.sources.events.binning import SPLITS

MOST_PIXELS = 2**14  # of a sensor, each way

# What each setting under data.events must be that says how recordings become frames.
RULES = {
    "split_by": values.one_of(SPLITS),
    "height": values.optional(values.whole(1, MOST_PIXELS)),
    "width": values.optional(values.whole(1, MOST_PIXELS)),
    "sort": values.flag(),
    "split_order": values.one_of(fixed_split.ORDERS),
    "cache": values.optional(values.text()),
}


@dataclasses.dataclass(frozen=True)
class FrameSettings:
    """How the recordings of a set become frames.

    Attributes:
      time_steps: T, frames of each recording, >= 1.
      split_by: what the frames of a recording have in common, a key of `binning.SPLITS`.
      sensor: (height, width) in pixels; None for what the files say.
      sort: whether a recording whose time goes back is sorted, in place of being refused.
      split_order: for a set without splits, by what its recordings are sorted before the last
        tenth of each class is kept for test: see `fixed_split`.
      cache: folder in which frames are kept; None for none.

    Raises:
      ValueError: naming the key of the configuration and the value that does not fit.
    """

    time_steps: int = 10
    split_by: str = "number"
    sensor: tuple[int, int] | None = None
    sort: bool = False
    split_order: str = "number"
    cache: str | None = None

    def __post_init__(self):
        values.whole(1).check("model.time_steps", self.time_steps)
        height, width = (None, None) if self.sensor is None else self.sensor
        for key, value in (vars(self) | {"height": height, "width": width}).items():
            if key in RULES:
                RULES[key].check(f"data.events.{key}", value)


def frame_settings(time_steps, settings):
    """Returns the `FrameSettings` of a configuration.

    Args:
      time_steps: of the model.
      settings: `config.data.events`.

    Raises:
      ValueError: naming the key and the value that does not fit.
    """
    sides = settings.height, settings.width
    if (sides[0] is None) != (sides[1] is None):
        raise ValueError(
            f"data.events.height={sides[0]!r} and data.events.width={sides[1]!r}: give both or none"
        )
    return FrameSettings(
        time_steps=time_steps,
        split_by=settings.split_by,
        sensor=None if sides[0] is None else sides,
        sort=settings.sort,
        split_order=settings.split_order,
        cache=settings.cache,
    )
