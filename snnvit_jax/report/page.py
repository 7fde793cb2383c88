"""report.html: the page of one run."""

import html

from ml_collections import config_dict

from snnvit_jax.report import layout, page_tables

# file name without .png -> (title, caption); those of a finished run, then what experiments add
FIGURES = {
    "time_steps": (
        "What each layer learned",
        "A filled cell is a time step at which the layer emits spikes; in an empty one it is "
        "silent. The number is the layer's count of active steps. Layers in forward order.",
    ),
    "firing_rates": (
        "How often neurons fire",
        "Share of a layer's neurons that emit something at a time step, in percent, over the whole "
        "held-out split and after the mask (·: none).",
    ),
    "energy": (
        "Where the energy goes",
        "Convolutions and products in forward order. A grey line is the same layer in a plain "
        "vision transformer; a hollow mark is what it costs if integer inputs multiply.",
    ),
    "curves": ("How it was learned", "Training values with label smoothing and augmentation."),
    "confusion": (
        "Which classes are confused",
        "Counts of held-out examples by label and prediction; mistakes are coloured.",
    ),
    "recordings": (
        "What the model sees",
        "Held-out recordings, one of each of the first classes, as frames: a row for each of them.",
    ),
    "early_exit": (
        "Stopping early",
        "Accuracy against the average number of time steps if each image stops as soon as the "
        "prediction is certain enough, beside the learned schedule.",
    ),
    "activation_histograms": (
        "Activations beside those of an ANN",
        "How the mean spikes of each block over the time steps are distributed, and the "
        "activations of the same architecture with ReLU.",
    ),
    "sensitivity": (
        "How much each module needs its time steps",
        "Accuracy in percent if only that module is cut to its first k time steps.",
    ),
}
ADDED = ("recordings", "early_exit", "activation_histograms", "sensitivity")


def render(result, images, narrow, config, folder, network, checkpoint):
    """Returns the report of a run as an HTML page.

    Args:
      result: an `evaluation.Evaluation`.
      images: {figure name: PNG bytes} of `time_steps`, `firing_rates`, `energy`, `curves` and
        `confusion`.
      narrow: {figure name: PNG bytes to show on a narrow screen instead}.
      config: the run's configuration.
      folder: of the run; what experiments left there is shown too. The page says so if something of
        that cannot be shown: the run itself is none the worse for it.
      network: what it is, in words.
      checkpoint: which one of the run it is, and what chose it, in words.
    """
    shown = {name: _figure(name, png, narrow.get(name)) for name, png in images.items()}
    shown |= {name: _added(name, folder / f"{name}.png") for name in ADDED}
    sections = (
        *(shown["time_steps"], page_tables.modules(result.schedule), shown["firing_rates"]),
        page_tables.silent_and_saturated(result),
        *_energy(result.energy, shown.get("energy")),
        _deployment(folder / "deployed.json"),
        *(shown[name] for name in (*ADDED, "curves", "confusion")),
    )
    facts = "".join(f"<div><dt>{html.escape(k)}<dd>{v}</div>" for k, v in _facts(result).items())
    settings = html.escape("\n".join(f"{k} = {v}" for k, v in _flat(config)))
    sections = (*sections, layout.section("Configuration", f"<pre>{settings}</pre>"))
    of = f'<p class="small">Of {html.escape(checkpoint)}.</p>'
    body = f"<dl>{facts}</dl>\n{of}\n" + "\n".join(sections)
    return layout.document(f"{network} on {config.data.name}", body)


def _energy(energy, figure):
    """The sections on energy; none if it was not counted."""
    if energy is None:
        return ()
    totals, verdict = page_tables.energy_totals(energy), page_tables.verdict(energy)
    return totals, figure, verdict, page_tables.layers(energy)


def _facts(result):
    energy, schedule = result.energy, result.schedule
    costs = {"energy of one image": "not counted"}
    if energy is not None:
        costs = {
            "energy of one image": f"{energy.microjoule:.3g} µJ",
            "as a plain transformer": f"{energy.plain_microjoule:.3g} µJ",
        }
    return {
        f"accuracy on {result.split}": f"{100 * result.accuracy:.2f} %",
        "examples": f"{result.examples:,}",
        "average time steps": f"{schedule.average:.2f} of {schedule.time_steps}",
        "firing rate": f"{100 * result.firing_rate:.1f} %",
        **costs,
    }


def _deployment(path):
    try:
        return page_tables.deployment(path)
    except (ValueError, OSError) as error:
        return _not_shown("The deployed model", error)


def _added(name, path):
    """The figure that an experiment left; "" if there is none."""
    if not path.exists():
        return ""
    try:
        return _figure(name, path.read_bytes(), None)
    except (ValueError, OSError) as error:
        return _not_shown(FIGURES[name][0], f"{path} is no figure ({error}); draw it again")


def _not_shown(title, reason):
    return layout.section(title, f"<p>Not shown: {html.escape(str(reason))}</p>")


def _figure(name, png, narrow):
    title, caption = FIGURES[name]
    body = f"<p>{caption}</p>{layout.picture(png, title, narrow)}"
    return layout.section(title, body, "figure")


def _flat(config, prefix=""):
    """Yields (key, value) of every leaf of a configuration."""
    for key, value in config.items():
        if isinstance(value, config_dict.ConfigDict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
