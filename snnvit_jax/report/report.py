"""The figures of a run and its self-contained report.html.

A report also shows what experiments left in the run's folder, by these names: `deployed.json`,
`early_exit.png`, `activation_histograms.png`, `sensitivity.png`.
"""

from snnvit_jax.common import files
from snnvit_jax.report import figures, page
from snnvit_jax.report.recordings import draw_recordings


def write(workdir, result, class_names, config, network, checkpoint, recordings=None):
    """Draws every figure as PNG in the run's folder and writes report.html with all of them inside.

    Writes energy.json besides, from which every operation count and energy can be computed again;
    without counts there is neither that nor its figure and tables.

    Args:
      workdir: a `Workdir`.
      result: an `evaluation.Evaluation`.
      class_names: one for each class.
      config: the run's configuration.
      network: what it is, in words: see `models.describe`.
      checkpoint: which one of the run it is, in words.
      recordings: (frames [N, T, H, W, C], names) of some recordings to show; None for none.
    """
    lines = workdir.read_metrics()
    with figures.style():
        drawn = {
            "time_steps": figures.draw_schedule(result.schedule),
            "firing_rates": figures.draw_firing_rates(result.firing_rates),
            "curves": figures.draw_curves(lines),
            "confusion": figures.draw_confusion(result.confusion, class_names),
        }
        if result.energy is not None:
            drawn["energy"] = figures.draw_energy(result.energy)
        if recordings is not None:
            drawn["recordings"] = draw_recordings(*recordings)
        images = {name: figures.as_png(figure) for name, figure in drawn.items()}
        narrow = {"curves": figures.as_png(figures.draw_curves(lines, columns=1))}
    for name, png in images.items():
        files.write_bytes(workdir.path / f"{name}.png", png)
    if result.energy is not None:
        files.write_text(workdir.path / "energy.json", result.energy.to_json())
    text = page.render(result, images, narrow, config, workdir.path, network, checkpoint)
    # A path in the configuration may be no text (PEP 383).
    files.write_bytes(workdir.report, text.encode("utf-8", "backslashreplace"))
