"""How much of a recording, in real time, an answer after each time step needs."""

import numpy as np

from snnvit_jax.data.decode import DamagedImage
from snnvit_jax.data.sources.events import FrameSettings
from snnvit_jax.data.sources.events.digits_dvs import digits_step_ends
from snnvit_jax.data.sources.select import EVENT_SETS, load


def milliseconds(name, split, data_dir=None, frames=None, *, on_damaged="fatal"):
    """Returns when each time step of each recording of a split is over.

    Every recording is read: they are of different lengths, and so are the runs of events that its
    time steps see, by `binning.run_ends`.

    Args:
      name: of the data set, see `load`.
      split: see `load`.
      data_dir: see `load`.
      frames: `events.FrameSettings`, how recordings become frames; None for its defaults.
      on_damaged: what a recording that cannot be used does: "fatal" raises, "skip" leaves it out,
        as an evaluation does.

    Returns:
      [T, N] milliseconds from a recording's first event, in the order of the split; None for
      images, and where files hold prepared frames, which do not say when their events happened.

    Raises:
      DamagedImage: naming a recording that cannot be used, unless it is to be left out.
    """
    if name not in EVENT_SETS:
        return None
    frames = frames or FrameSettings()
    if name == "digits_dvs":
        ends = digits_step_ends(load("digits", split).examples, frames)
    else:
        ends = _of_files(load(name, split, data_dir, frames).examples, on_damaged)
    return None if any(end is None for end in ends) else np.stack(ends, axis=1) / 1000


def _of_files(recordings, on_damaged):
    ends = []
    for index in range(len(recordings)):
        try:
            ends.append(recordings.step_ends(index))
        except DamagedImage:
            if on_damaged != "skip":
                raise
    return ends
