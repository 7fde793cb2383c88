"""What a training step costs against time steps, batch, image size and depth.

    python experiments/benchmarks/cost.py OUT [--model=spikformer_4_384] [--batch-size=4]

One thing varies at a time, the others stay at T = 4, 32x32 pixels and the model's depth. Writes
OUT/cost.json as it goes, a table and OUT/cost.png; what is in the file already is not measured
again. Times are medians of steps taken in turn; memory is what the compiled program reserves for
its own results.
"""

import argparse
import json
import statistics
import time

import jax
import numpy as np
import optax
import tqdm
from matplotlib.figure import Figure

import snnvit_jax as snn
from snnvit_jax import training
from snnvit_jax.common import markdown
from snnvit_jax.common.arguments import output_folder, whole
from snnvit_jax.report import figures

VARIED = {
    "time_steps": (1, 2, 3, 4, 6, 8),
    "batch_size": (4, 8, 16, 32),
    "image_size": (32, 48, 64),
    "depth": (1, 2, 4, 8),
}
TITLES = {
    "time_steps": "time steps T",
    "batch_size": "batch size",
    "image_size": "image side (pixels)",
    "depth": "blocks",
}
REPETITIONS = 5


class Step:
    """A compiled training step with its own state and batch.

    Attributes:
      megabytes: what the program reserves for its own results.
      seconds_compile: how long compiling took.
      times: seconds of each call of `run`.
    """

    def __init__(self, model_name, batch_size, time_steps, image_size, depth):
        model = snn.create_model(
            model_name, 10, image_size=image_size, time_steps=time_steps, depth=depth
        )
        procedure = training.Procedure(model, optax.adamw(1e-4))
        shape = (image_size, image_size, 3)
        create = jax.jit(lambda key: training.create_state(procedure, key, shape))
        self._state, rng = create(jax.random.key(0)), np.random.default_rng(0)
        self._batch = {
            "image": rng.normal(size=(batch_size, *shape)).astype(np.float32),
            "label": rng.integers(0, 10, batch_size),
        }
        lowered = training.train_step.lower(self._state, self._batch, procedure=procedure)
        start = time.perf_counter()
        self._step = lowered.compile()
        self.seconds_compile = time.perf_counter() - start
        self.megabytes = self._step.memory_analysis().temp_size_in_bytes / 1e6
        self.times = []

    def run(self):
        """Takes one step."""
        start = time.perf_counter()
        self._state, _ = jax.block_until_ready(self._step(self._state, self._batch))
        self.times.append(time.perf_counter() - start)


def compare(steps):
    """Returns {x: {"seconds", "times", "seconds_compile", "megabytes"}} of {x: `Step`}.

    In turn, because a machine's speed changes within minutes; the first round warms up.
    """
    for _ in tqdm.trange(REPETITIONS + 1, unit="round", leave=False):
        for step in steps.values():
            step.run()
    return {
        str(x): {
            "seconds": statistics.median(step.times[1:]),
            "times": step.times[1:],
            "seconds_compile": step.seconds_compile,
            "megabytes": step.megabytes,
        }
        for x, step in steps.items()
    }


def line(found, what, value):
    """Returns (slope, intercept) of the straight line through a value against what varies."""
    points = sorted(found[what].items(), key=lambda item: int(item[0]))
    return np.polyfit([int(x) for x, _ in points], [y[value] for _, y in points], 1)


def table(found):
    """Returns the result as a Markdown table."""
    rows = []
    for what, values in found.items():
        for x, y in sorted(values.items(), key=lambda item: int(item[0])):
            cost = f"{y['seconds']:.2f} s", f"{y['megabytes']:.0f} MB"
            rows.append([TITLES[what], x, *cost, f"{y['seconds_compile']:.0f} s"])
    return markdown.table(["what varies", "", "step", "memory", "compile"], rows)


def draw(found):
    """Returns a figure of time and memory against each of the four."""
    figure = Figure(figsize=(2.6 * len(found), 4.8), layout="constrained")
    axes = figure.subplots(2, len(found), squeeze=False)
    for column, (what, values) in enumerate(found.items()):
        x = sorted(map(int, values))
        for row, (key, label) in enumerate((("seconds", "step (s)"), ("megabytes", "memory (MB)"))):
            ax = axes[row, column]
            ax.plot(x, [values[str(i)][key] for i in x], "o-", color=figures.SECOND)
            if what != "image_size":
                slope, start = line(found, what, key)
                ax.plot([0, x[-1]], [start, start + slope * x[-1]], ":", color=figures.ACCENT)
            ax.set(xlabel=TITLES[what], xlim=(0, None), ylim=(0, None))
            ax.set_ylabel(label if not column else "")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=output_folder)
    parser.add_argument("--model", default="spikformer_4_384")
    parser.add_argument("--batch-size", type=whole(1), default=4)
    options = parser.parse_args()
    depth = snn.create_model(options.model).config.depth
    usual = {"batch_size": options.batch_size, "time_steps": 4, "image_size": 32, "depth": depth}
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "cost.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    for what in (what for what in VARIED if what not in found):
        compiled = tqdm.tqdm(VARIED[what], unit="program", desc=what)
        found[what] = compare({x: Step(options.model, **usual | {what: x}) for x in compiled})
        path.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found), end="")
    for value in ("seconds", "megabytes"):
        slope, _ = line(found, "time_steps", value)
        at_four = found["time_steps"]["4"][value]
        print(f"slope of {value} in T: {slope:.3g} per step, {slope / at_four:.3f} of T = 4")
    with figures.style():
        (options.out / "cost.png").write_bytes(figures.as_png(draw(found)))


if __name__ == "__main__":
    main()
