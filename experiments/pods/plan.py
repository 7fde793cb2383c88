"""Memory, work and traffic of Spikformer-8-768 on pods: python plan.py OUT [--compile].

Prints a table for 8, 64 and 512 devices of each kind, from what `program.count` finds in the trace
of a training step, and writes it to OUT/plan.json. With --compile also compiles the step for TPU
v5e, which needs no TPU but libtpu (`pip install libtpu`, the version that jax asks for), of the
sizes in COMPILED and writes OUT/v5e.json, against which the counts are checked. That takes minutes
of one core for each.
"""

import argparse
import json

import jax
import program
from machines import MACHINES, all_reduce_seconds

from snnvit_jax.common import markdown as tables
from snnvit_jax.common.arguments import output_folder

TRAIN_IMAGES = 1_281_167
EPOCHS = 310

# (machine, devices): (images over all devices, parts of them computed one after the other)
BATCHES = {
    **{("v5e", 8): (192, 3), ("v5e", 64): (512, 1), ("v5e", 512): (4096, 1)},
    **{("H100", 8): (192, 1), ("H100", 64): (1024, 1), ("H100", 512): (4096, 1)},
    **{("H200", 8): (512, 1), ("H200", 64): (2048, 1), ("H200", 512): (4096, 1)},
}

# (topology, slices, images of a device, sizes): a small network on all three pods, to see that a
# device's program does not depend on how many there are; and the whole network.
SMALL = {"depth": 1, "embed_dim": 48, "num_heads": 3, "image_size": 32}
COMPILED = (
    ("v5e:2x4", 1, 8, SMALL),
    ("v5e:8x8", 1, 8, SMALL),
    ("v5e:16x16", 2, 8, SMALL),
    ("v5e:2x4", 1, 8, {}),
)


def row(name, devices, counts, compiled):
    """Returns what a training step costs on one pod.

    Args:
      name: key of `MACHINES`.
      devices: how many.
      counts: {images on a device at a time: from `program.count`}.
      compiled: from `per_image`.
    """
    machine = MACHINES[name]
    batch, parts = BATCHES[name, devices]
    local = batch // devices // parts
    counted = counts[local]
    memory = counted["state_bytes"] + local * compiled["temporary_bytes"]
    moved = least_moved(counted, parts)
    work = parts * counted["flops"]
    sent = parts * counted["collective_bytes"]
    seconds = {
        "arithmetic": work / machine.flops,
        "memory": moved / machine.memory_rate,
        "network": all_reduce_seconds(machine, devices, sent),
    }
    most_seconds = parts * local * compiled["hbm_bytes"] / machine.memory_rate
    bounds = (max(seconds.values()), seconds["arithmetic"] + most_seconds + seconds["network"])
    steps = TRAIN_IMAGES / batch
    return {
        **{"machine": name, "devices": devices, "batch_size": batch, "accumulate": parts},
        **{"images_per_device": local, "memory_bytes": memory, "memory_of": machine.memory},
        **{"flops": work, "moved_bytes": moved, "collective_bytes": sent, "seconds": seconds},
        "step_seconds": bounds,
        "hours": tuple(EPOCHS * steps * bound / 3600 for bound in bounds),
    }


def per_image(path):
    """Returns what the compiler's program for TPU v5e needs for each image on a device.

    Args:
      path: of v5e.json.

    Returns:
      {"temporary_bytes", "hbm_bytes"}: memory besides the state, and bytes that operations read
      and write, those that stay on the chip included.
    """
    found = json.loads(path.read_text()) if path.exists() else []
    whole = [one for one in found if "depth" not in one["what"]]
    if not whole:
        raise SystemExit(f"error: {path} lacks the whole network; run this with --compile first")
    images, compiled = whole[0]["what"]["images"], whole[0]["compiled"]
    return {key: compiled[key] / images for key in ("temporary_bytes", "hbm_bytes")}


def least_moved(counted, parts=1):
    """Returns the fewest bytes that a step reads from and writes to a device's memory.

    What is kept is written and read once; the update reads and writes the state, forward and
    backward pass read the parameters, and gradients are written and read.

    Args:
      counted: from `program.count`.
      parts: of the batch, computed one after the other.
    """
    passes = 2 * counted["kept_bytes"] + 4 * 4 * counted["parameters"]
    return parts * passes + 2 * counted["state_bytes"]


def markdown(rows):
    """Returns rows as a Markdown table."""
    columns = ("pod", "devices", "batch", "on a device", "memory of a device", "TFLOP")
    columns += ("moved", "sent", "arithmetic", "HBM", "network", "step", "310 epochs")
    lines = []
    for one in rows:
        parts = f"{one['accumulate']} x " if one["accumulate"] > 1 else ""
        times = [f"{seconds * 1e3:.3g} ms" for seconds in one["seconds"].values()]
        low, high = one["step_seconds"]
        lines.append(
            [
                *(one["machine"], one["devices"], f"{one['batch_size']:,}"),
                f"{parts}{one['images_per_device']}",
                f"{one['memory_bytes'] / 1e9:.1f} of {one['memory_of'] / 1e9:.0f} GB",
                f"{one['flops'] / 1e12:.3g}",
                f"{one['moved_bytes'] / 1e9:.3g} GB",
                f"{one['collective_bytes'] / 1e6:.0f} MB",
                *times,
                f"{low * 1e3:.0f} to {high * 1e3:.0f} ms",
                "{:.3g} to {:.3g} h".format(*one["hours"]),
            ]
        )
    return tables.table(columns, lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=output_folder)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_platforms", "cpu")
    if options.compile:
        compile_all(options.out / "v5e.json")
    compiled = per_image(options.out / "v5e.json")
    local = {batch // devices // parts for (_, devices), (batch, parts) in BATCHES.items()}
    counts = {images: program.count(images) for images in sorted(local)}
    rows = [row(name, devices, counts, compiled) for name, devices in BATCHES]
    remat = {images: program.count(images, remat="block")["kept_bytes"] for images in (8, 32)}
    found = {
        "counts": counts,
        "compiled_per_image": compiled,
        "kept_bytes_with_remat": remat,
        "rows": rows,
    }
    (options.out / "plan.json").write_text(json.dumps(found, indent=1) + "\n")
    print(markdown(rows))
    print("kept for the backward pass, model.remat=block:", remat)


def compile_all(path):
    """Compiles what `COMPILED` lists and is not in a file yet."""
    found = json.loads(path.read_text()) if path.exists() else []
    done = [one["what"] for one in found]
    for topology, slices, images, sizes in COMPILED:
        what = {"topology": topology, "slices": slices, "images": images, **sizes}
        if what in done:
            continue
        compiled = program.compile_for_tpu(topology, slices, images, **sizes)
        counted = program.count(images, **sizes)
        found.append({"what": what, "compiled": compiled, "counted": counted})
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(found[-1], flush=True)


if __name__ == "__main__":
    main()
