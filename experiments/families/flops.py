"""Operations of every family's masked and deployed programs: python flops.py OUT.

A published size of each family, T = 4, with all time steps and with two of four in every layer: the
floating-point operations of one image as XLA counts them in the compiled program. Nothing is
trained: they do not depend on the weights. Writes OUT/flops.json and prints a table.
"""

import argparse
import json

import jax
import numpy as np
from tqdm import tqdm

import snnvit_jax as snn
from snnvit_jax.common import markdown as tables
from snnvit_jax.common.arguments import output_folder
from snnvit_jax.models.flops import model_flops

# Of each family: (model, classes, side of the images); the CIFAR form where there is one.
FORMS = {
    "spikformer": ("spikformer_4_384", 10, 32),
    "spikingformer": ("spikingformer_4_384", 10, 32),
    "sdt": ("sdt_2_512", 10, 32),
    "qkformer": ("qkformer_4_384", 10, 32),
    "spikingresformer": ("spikingresformer_cifar", 10, 32),
    "metaspikeformer": ("metaspikeformer_8_384_imagenet", 1000, 224),
}
T = 4
STEPS = {"all": (1, 1, 1, 1), "half": (1, 1, 0, 0)}


def measure(name, classes, side):
    """Returns what one model's programs compute.

    Args:
      name: of the model.
      classes: of its head.
      side: of its images, in pixels.
    """
    model = snn.create_model(name, classes, side, time_steps=T)
    shape = (side, side, 3)
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, *shape), np.float32))
    names = snn.layer_names(model, shape[-1])
    schedules = {
        key: snn.TimeStepSchedule(dict.fromkeys(names, steps)) for key, steps in STEPS.items()
    }
    flops = {key: snn.deploy(model, variables, s).flops(1) for key, s in schedules.items()}
    return {
        "model": name,
        "parameters": sum(x.size for x in jax.tree.leaves(variables["params"])),
        "masked": model_flops(model, variables, 1, shape),
        **{f"deployed_{key}": count for key, count in flops.items()},
    }


def markdown(rows):
    """Returns the rows as a table in Markdown.

    Args:
      rows: from `measure`.
    """
    head = ["model", "parameters", "GFLOPs, masked", "deployed, all steps", "deployed, 2 of 4"]
    lines = []
    for row in rows:
        shares = [f"{row[f'deployed_{key}'] / row['masked']:.3f}" for key in STEPS]
        counts = f"{row['parameters']:,}", f"{row['masked'] / 1e9:.3g}"
        lines.append([f"`{row['model']}`", *counts, *shares])
    return tables.table(head, lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=output_folder)
    out, rows = parser.parse_args().out, []
    out.mkdir(parents=True, exist_ok=True)
    for form in tqdm(FORMS.values()):
        rows.append(measure(*form))
        (out / "flops.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(markdown(rows), end="")


if __name__ == "__main__":
    main()
