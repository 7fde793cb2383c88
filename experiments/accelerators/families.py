"""Counts what an H100 would run for every family: a training step, and Spikformer's evaluation.

    JAX_PLATFORMS=cpu python experiments/accelerators/families.py

Each program is compiled and counted in processes of their own (step.py, count.py), without and with
`kernels="gpu"`; families.json gets it at once. Programs that stand there are not compiled
again: remove the file to count all anew. The tables of the README are printed. Times are
estimates.
"""

import argparse
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from tqdm import tqdm

from snnvit_jax.common import markdown

FOLDER = pathlib.Path(__file__).parent
RESULTS = FOLDER / "families.json"
TARGET = "h100"

CIFAR = ("spikformer_4_384", "spikingformer_4_384", "sdt_2_512", "qkformer_4_384")
CIFAR += ("spikingresformer_cifar",)
IMAGENET = ("spikformer_8_512", "spikingformer_8_512", "sdt_8_512", "metaspikeformer_8_512")
IMAGENET += ("qkformer_10_512", "spikingresformer_m")
FORMS = [(model, 32, 256) for model in CIFAR]
FORMS += [(f"{model}_imagenet", 224, 64) for model in IMAGENET]
SPIKFORMERS = [form for form in FORMS if form[0].startswith("spikformer")]
KERNELS = (None, "gpu")
HEAD = ["", "pixels", "batch", "`kernels`", "kernels", "GB", "least ms (estimate)"]

# At 224 pixels Triton finds no tile sizes for some products: cuBLAS computes all of them.
LARGE_FLAGS = "--xla_gpu_enable_triton_gemm=false"


def programs():
    """Yields (model, image size, batch size, mode, kernels) of everything that is counted."""
    for form, kernels in itertools.product(FORMS, KERNELS):
        yield *form, "train", kernels
    for form, kernels in itertools.product(SPIKFORMERS, KERNELS):
        yield *form, "eval", kernels


def count(model, image_size, batch_size, mode, kernels):
    """Returns what step.py and count.py say of a program; without its counts where it fails."""
    flags = LARGE_FLAGS if image_size >= 128 else ""
    asked = {"model": model, "image_size": image_size, "batch_size": batch_size, "mode": mode}
    asked |= {"procedure_kernels": kernels, "xla_flags": flags}
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out")
        step = ["step.py", TARGET, model, str(image_size), str(batch_size), out, f"--mode={mode}"]
        step += [] if kernels is None else [f"--kernels={kernels}"]
        for command in (step, ["count.py", out]):
            failure = run(command, flags)
            if failure:
                return asked | {"error": failure}
        return asked | json.loads(pathlib.Path(f"{out}.counts.json").read_text())


def run(command, flags):
    """Runs a script of this folder; returns the last line that it wrote if it failed, or None."""
    script, *arguments = command
    done = subprocess.run(
        [sys.executable, FOLDER / script, *arguments],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    if not done.returncode:
        return None
    said = done.stderr.strip().splitlines()
    return said[-1] if said else f"exit code {done.returncode}"


def key(row):
    names = ("model", "image_size", "batch_size", "mode", "procedure_kernels")
    return tuple(row[name] for name in names)


def training_table(rows):
    """Returns the table of training steps; each MFU also beside that of Spikformer."""
    head = [*HEAD, "MFU at that time (estimate)", "of Spikformer's", "temporary GB"]
    counted = [row for row in rows if row["mode"] == "train" and "error" not in row]
    spikformers = {
        (row["image_size"], row["procedure_kernels"]): row["mfu_at_roofline"]
        for row in counted
        if row["model"].startswith("spikformer")
    }
    lines = []
    for row in counted:
        mfu = row["mfu_at_roofline"]
        share = mfu / spikformers[row["image_size"], row["procedure_kernels"]]
        memory = row["temp_size_in_bytes"] / 1e9
        lines.append([*counts(row), f"{mfu:.3f}", f"{share:.2f}", f"{memory:.2f}"])
    return markdown.table(head, lines)


def evaluation_table(rows):
    """Returns the table of evaluations."""
    counted = [row for row in rows if row["mode"] == "eval" and "error" not in row]
    return markdown.table(HEAD, [counts(row) for row in counted])


def counts(row):
    """Returns the cells below `HEAD`."""
    name, kernels = row["model"].removesuffix("_imagenet"), row["procedure_kernels"] or "none"
    milliseconds = row["roofline_seconds"] * 1e3
    numbers = [f"{row['kernels']:,}", f"{row['bytes'] / 1e9:.1f}", f"{milliseconds:,.1f}"]
    return [name, row["image_size"], row["batch_size"], kernels, *numbers]


def main():
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    found = {key(row): row for row in rows}
    left = [each for each in programs() if each not in found or "error" in found[each]]
    for program in tqdm(left):
        row = count(*program)
        if "error" not in row or program not in found:  # a failure does not replace a count
            found[program] = row
        RESULTS.write_text(json.dumps([*found.values()], indent=1) + "\n")
    print(training_table(found.values()), evaluation_table(found.values()), sep="\n")
    for program, row in found.items():
        if "error" in row:
            print(f"{program} does not compile: {row['error']}")


if __name__ == "__main__":
    main()
