"""Recordings of event cameras as pictures."""

import numpy as np
from matplotlib import colors
from matplotlib.figure import Figure

from snnvit_jax.report.figures import ACCENT, GRID, SECOND, as_label

MOST_FRAMES = 10  # side by side; of more, evenly chosen ones are drawn


def frame_colours(frames):
    """Returns the colours of frames: white without events, darker with more of them.

    Events of polarity 1 (it became brighter) are orange, those of polarity 0 green; a pixel that
    saw both has both colours over each other. Counts from the 99th percentile of those above zero
    upwards are as dark as can be.

    Args:
      frames: counts [..., C], C >= 2; the first two channels are those of polarity 0 and 1.

    Returns:
      float [..., 3] in [0, 1].
    """
    counts = np.asarray(frames[..., :2], np.float32)
    seen = counts[counts > 0]
    share = np.minimum(counts / (np.percentile(seen, 99) if seen.size else 1), 1) ** 0.5
    picture = np.ones((*counts.shape[:-1], 3))
    for channel, colour in enumerate((SECOND, ACCENT)):
        ink = 1 - np.array(colors.to_rgb(colour))
        picture *= 1 - share[..., channel, None] * ink
    return picture


def draw_recordings(recordings, names):
    """Draws the frames of some recordings, a row for each of them.

    Args:
      recordings: counts [N, T, H, W, C], C >= 2, N >= 1.
      names: what to write beside each row.

    Returns:
      A matplotlib figure.
    """
    recordings = np.asarray(recordings)
    N, T, H, W, _ = recordings.shape
    steps = np.unique(np.linspace(0, T - 1, min(T, MOST_FRAMES)).round().astype(int))
    side = 0.62
    figure = Figure(figsize=(1.0 + side * len(steps), 0.5 + side * H / W * N), layout="constrained")
    axes = figure.subplots(N, len(steps), squeeze=False)
    for row, (frames, name) in enumerate(zip(recordings, names, strict=True)):
        colours = frame_colours(frames)  # one scale for a recording: frames compare
        for place, step in zip(axes[row], steps, strict=True):
            place.imshow(colours[step], interpolation="nearest")
            place.set(xticks=[], yticks=[])
            place.spines[:].set(visible=True, color=GRID)
            if row == 0:
                place.set_title(str(step + 1), fontsize=8)
        axes[row, 0].set_ylabel(as_label(name), rotation=0, ha="right", va="center")
    figure.supxlabel("time step, above; orange: it became brighter, green: darker", fontsize=8)
    return figure
