"""Mean activations of a spiking run beside an ANN's: python run.py SNN_WORKDIR ANN_WORKDIR OUT.

The ANN is the same architecture with ReLU in place of spiking neurons (model.neuron.kind=relu). For
each block: how its activations are distributed, over neurons and held-out images; those of the
spiking network are means over the time steps. Writes OUT/activation_histograms.json and .png; with
OUT=SNN_WORKDIR the run's report shows the figure.
"""

import argparse
import json

import jax
import numpy as np
from matplotlib.figure import Figure

from snnvit_jax import layer_names
from snnvit_jax.common.arguments import output_folder, whole
from snnvit_jax.neurons import describe
from snnvit_jax.report import figures
from snnvit_jax.runs import analysis

BINS = 40
RANGE_QUANTILE = 0.999  # of the positive activations of the first batch; the last bin is open


def measure(snn, ann):
    """Returns the histograms of both runs, as a dictionary.

    Args:
      snn: (experiment, variables) of a run with spikes, from `analysis.open_run`.
      ann: the same of a run of the same architecture with ReLU.

    Raises:
      ValueError: if the runs are not of such models.
    """
    check_twins(snn[0].model.config, ann[0].model.config)
    return {
        "examples": len(snn[0].eval_source),
        "split": snn[0].eval_source.split,
        "time_steps": snn[0].model.config.time_steps,
        "snn": histograms(*snn, "snn"),
        "ann": histograms(*ann, "ann"),
    }


def histograms(experiment, variables, name):
    """Returns {block: {"edges", "counts", "mean", "zero_share", "layers"}} over the held-out split.

    Args:
      experiment: an `Experiment`.
      variables: of its model.
      name: shown before the progress bar.
    """
    blocks, order = {}, layer_names(experiment.model, experiment.image_shape[-1])
    for batch, bar in analysis.batches(experiment, name):
        seen = analysis.mean_activations(variables, batch["image"], model=experiment.model)
        real = np.asarray(batch["mask"])
        layers = {n: np.asarray(x, np.float32)[real] for n, x in jax.device_get(seen).items()}
        for block, members in _by_block(layers, order).items():
            if block not in blocks:
                blocks[block] = _empty(_edges(members, experiment.model.config))
            _add(blocks[block], members)
        bar.update()
    return {block: _finish(sums) for block, sums in blocks.items()}


def draw(result):
    """Draws the histograms of `measure`, a row for each block.

    Args:
      result: from `measure`.

    Returns:
      A matplotlib figure.
    """
    blocks = list(result["ann"])
    figure = Figure(figsize=(5.6, 1.45 * len(blocks) + 0.5), layout="constrained")
    axes = figure.subplots(len(blocks), 2, squeeze=False)
    for row, block in zip(axes, blocks, strict=True):
        _draw_one(row[0], result["ann"][block], figures.ACCENT, f"{block}, ANN")
        _draw_one(row[1], result["snn"][block], figures.SECOND, f"{block}, spikes")
        row[0].set_ylabel("share")
    axes[-1][0].set_xlabel("activation")
    axes[-1][1].set_xlabel("mean spikes over time")
    return figure


def check_twins(spiking, relu):
    """Raises ValueError unless two models are the same but for their neurons.

    Args:
      spiking: configuration of the one with spikes.
      relu: configuration of the one with ReLU.
    """
    kinds = tuple(describe(config.neuron)["kind"] for config in (spiking, relu))
    if not spiking.neuron.spiking or kinds[1] != "relu":
        raise ValueError(f"the first run must spike and the second use ReLU, got {kinds=}")
    analysis.check_architectures(spiking, relu)


def _by_block(layers, order):
    """{block: {layer: activations}} in forward order."""
    blocks = {}
    for name in order:
        blocks.setdefault(name.partition("/")[0], {})[name] = layers[name]
    return blocks


def _edges(members, config):
    """Bins around the multiples of 1 / T for spikes; even ones up to nearly the largest value."""
    if config.neuron.spiking:
        return (np.arange(config.time_steps + 2) - 0.5) / config.time_steps
    positive = np.concatenate([x[x > 0] for x in members.values()] or [np.ones(1)])
    top = np.quantile(positive, RANGE_QUANTILE) if positive.size else 1.0
    return np.linspace(0, top, BINS + 1)


def _empty(edges):
    return {"edges": edges, "counts": np.zeros(len(edges) - 1, np.int64), "layers": {}}


def _add(sums, members):
    edges = sums["edges"]
    for name, x in members.items():
        sums["counts"] += np.histogram(np.clip(x, edges[0], edges[-1]), edges)[0]
        layer = sums["layers"].setdefault(name, {"values": 0, "sum": 0.0, "zeros": 0})
        layer["values"] += x.size
        layer["sum"] += float(x.sum(dtype=np.float64))
        layer["zeros"] += int((x == 0).sum())


def _finish(sums):
    layers = sums["layers"].values()
    values = sum(layer["values"] for layer in layers)
    return {
        "edges": sums["edges"].tolist(),
        "counts": sums["counts"].tolist(),
        "mean": sum(layer["sum"] for layer in layers) / values,
        "zero_share": sum(layer["zeros"] for layer in layers) / values,
        "layers": sums["layers"],
    }


def _draw_one(axes, histogram, colour, title):
    edges, counts = np.array(histogram["edges"]), np.array(histogram["counts"])
    gap = 0.8 if len(counts) < BINS else 1.0  # separate bars for separate values
    centres, width = (edges[1:] + edges[:-1]) / 2, gap * np.diff(edges)
    share = counts / counts.sum()
    axes.bar(centres, share, width=width, color=colour)
    axes.set_yscale("log")
    axes.set_ylim(10 ** np.floor(np.log10(share[share > 0].min())), 1)
    axes.set_title(f"{title}: {100 * histogram['zero_share']:.0f} % zero", loc="left", fontsize=9)
    axes.grid(axis="y", linewidth=0.6)
    axes.set_axisbelow(True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("snn_workdir", "ann_workdir"):
        parser.add_argument(name, help="or a trained network: pretrained:NAME")
    parser.add_argument("out", type=output_folder)
    parser.add_argument(
        "--examples", type=whole(1), help="look only at N held-out examples, evenly spaced"
    )
    parser.add_argument("--data_dir", help="folder of the data set, which a trained network needs")
    args = parser.parse_args()
    try:
        places, which = (args.snn_workdir, args.ann_workdir), (args.examples, args.data_dir)
        runs = [analysis.open_run(place, *which) for place in places]
        check_twins(*(experiment.model.config for experiment, _ in runs))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    result = measure(*runs)
    args.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1) + "\n"
    (args.out / "activation_histograms.json").write_text(text)
    with figures.style():
        (args.out / "activation_histograms.png").write_bytes(figures.as_png(draw(result)))
    print(f"wrote activation_histograms.json and activation_histograms.png in {args.out}")


if __name__ == "__main__":
    main()
