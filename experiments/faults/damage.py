"""What is done to files, folders and processes."""

import contextlib
import errno
import os
import pathlib
import subprocess

import config as faults_config
import jax
import numpy as np
from absl import logging
from PIL import Image

from snnvit_jax.checkpoints.checkpoints import restore
from snnvit_jax.data import sources
from snnvit_jax.runs import experiment

FLIPS = 3  # of every file


def flip(path, generator):
    """Flips one bit of a file.

    Args:
      path: of the file, not empty.
      generator: a `random.Random`.
    """
    data = bytearray(path.read_bytes())
    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    path.write_bytes(data)


def largest(folder):
    """Returns the largest file in a folder and its subfolders."""
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def try_every_file(checkpoints, generator):
    """Damages each file of the newest checkpoint in turn and restores from the folder.

    Args:
      checkpoints: folder with at least two; left as it was.
      generator: a `random.Random`.

    Returns:
      {"tried", "found": the checkpoint before was used, "harmless": all numbers were right all the
      same, "wrong numbers"} as counts.
    """
    template = experiment.build(faults_config.get_config()).create_state()
    (step, true), _ = restore(checkpoints, template)
    counts = dict.fromkeys(("tried", "found", "harmless", "wrong numbers"), 0)
    files = [p for p in (checkpoints / str(step)).rglob("*") if p.is_file()]
    changes = [_halve, _empty, pathlib.Path.unlink] + [lambda path: flip(path, generator)] * FLIPS
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)  # every damage is told otherwise
    for file in [*files, checkpoints / f"{step}.sha256"]:
        original = file.read_bytes()
        for change in changes:
            change(file)
            (found, state), _ = restore(checkpoints, template)
            counts["tried"] += 1
            counts["found" if found != step else _verdict(state, true)] += 1
            file.write_bytes(original)
    logging.set_verbosity(verbosity)
    return counts


def _halve(path):
    os.truncate(path, path.stat().st_size // 2)


def _empty(path):
    os.truncate(path, 0)


def _verdict(state, true):
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(true), strict=True)
    same = all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)
    return "harmless" if same else "wrong numbers"


def workers(pid):
    """Returns the ids of a process's children that prepare batches."""
    threads = pathlib.Path(f"/proc/{pid}/task").glob("*/children")
    children = [child for path in threads for child in path.read_text().split()]
    found = [
        int(child)
        for child in children
        if "spawn_main" in pathlib.Path(f"/proc/{child}/cmdline").read_text()
    ]
    if not found:
        raise RuntimeError(f"process {pid} has no worker among its children {children}")
    return found


@contextlib.contextmanager
def mounted(folder, size="48m"):
    """Mounts a small file system in memory on a folder, for the `with` block."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "faults", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def remount(folder, how):
    """Makes a mounted file system read-only ("ro") or writable ("rw")."""
    subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)


def fill(path):
    """Writes a file until its file system is full."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            try:
                file.write(bytes(1 << 16))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise RuntimeError(f"{path} could not be filled: {error}") from error
                break


def write_damaged_images(folder, generator):
    """Writes the digits as PNG files, one of them cut short and one with a flipped bit.

    Args:
      folder: to write to.
      generator: a `random.Random`.

    Returns:
      The folder.
    """
    files = []
    for split in ("train", "test"):
        for number, example in enumerate(sources.load("digits", split).examples):
            path = folder / split / str(example["label"]) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(example["image"][..., 0]).save(path)
            files.append(path)
    _halve(files[100])
    flip(files[200], generator)
    return folder
