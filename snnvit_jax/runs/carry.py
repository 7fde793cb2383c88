"""Carries a run to another machine in files of limited size, to go on there as if it were here.

    python -m snnvit_jax.carry pack WORKDIR PARTS [--megabytes=16] [--newest-only]
    python -m snnvit_jax.carry unpack PARTS WORKDIR

For training in several short runs, on machines that keep nothing and take small files only. What is
packed is the run's folder with its newest checkpoint and the best one (with --newest-only, which
halves it, without that: the best is then the best of those to come). Each part has its number and
its SHA-256 in its name, so that parts may travel in any way and order:

    run.part-1-of-7.0f4c...
"""

import argparse
import hashlib
import pathlib
import re
import sys
import tarfile
import tempfile

from snnvit_jax.checkpoints import best, checksums
from snnvit_jax.checkpoints.checkpoints import finished_checkpoints
from snnvit_jax.common import files
from snnvit_jax.common.arguments import number
from snnvit_jax.common.paths import expanded
from snnvit_jax.runs.workdir import Workdir

_PART = re.compile(r"run\.part-(\d+)-of-(\d+)\.([0-9a-f]{64})")


def pack(workdir, parts, part_bytes, newest_only=False):
    """Writes a run as files of limited size.

    Args:
      workdir: path of the run's folder; no training may be going on in it.
      parts: path of the folder to write to; one that exists must be empty.
      part_bytes: most bytes of a file, >= 1.
      newest_only: whether to leave the best checkpoint behind if it is another one.

    Returns:
      The paths of the files, in order.

    Raises:
      ValueError: if the folder holds no checkpoint, one to pack is not what was written, or
        `part_bytes` is not positive.
      OSError: if `parts` is not empty, a training goes on, or a file cannot be read or written.
    """
    if part_bytes < 1:
        raise ValueError(f"{part_bytes=} must be at least 1")
    workdir, parts = Workdir(workdir), expanded(parts)
    _newest_checkpoint(workdir)  # before anything is created
    _check_empty(parts)
    files.make_folder(parts)
    with workdir.lock(), tempfile.TemporaryFile(dir=parts) as whole:
        checkpoints = {_newest_checkpoint(workdir), *([] if newest_only else _best(workdir))}
        for checkpoint in checkpoints:
            _check(checkpoint)
        with tarfile.open(fileobj=whole, mode="w") as archive:
            for path in _to_carry(workdir, checkpoints):
                archive.add(path, path.relative_to(workdir.path), recursive=False)
        return _write_parts(whole, parts, part_bytes)


def unpack(parts, workdir):
    """Puts a run together again; nothing is left behind if that fails.

    Args:
      parts: path of the folder that holds the files of `pack`, and others as it may be.
      workdir: path of the run's folder; one that exists must be empty.

    Returns:
      The step of the checkpoint that it holds.

    Raises:
      ValueError: naming a part that is missing or damaged, or a checkpoint put together from parts
        of different runs.
      OSError: if `workdir` is not empty, or a file cannot be read or written.
    """
    paths, workdir = _complete(expanded(parts)), Workdir(workdir).path
    _check_empty(workdir)
    files.make_folder(workdir.parent)
    with tempfile.TemporaryDirectory(dir=workdir.parent) as temporary:
        with tempfile.TemporaryFile(dir=temporary) as whole:
            for path in paths:
                whole.write(_read_part(path))
            whole.seek(0)
            folder = pathlib.Path(temporary) / "run"
            _extract(whole, folder, parts)
        carried = finished_checkpoints(Workdir(folder).checkpoints)
        _newest_checkpoint(Workdir(folder))
        for _, checkpoint in carried:
            _check(checkpoint)
        files.flush_tree(folder)
        files.replace(folder, workdir)
    return carried[-1][0]


def _newest_checkpoint(workdir):
    found = finished_checkpoints(workdir.checkpoints)
    if not found:
        raise ValueError(f"the workdir {workdir.path} holds no checkpoint to carry")
    return found[-1][1]


def _best(workdir):
    """The best checkpoint in a list; [] if none was evaluated."""
    finished = finished_checkpoints(workdir.checkpoints)
    if not any(best.read(folder) for _, folder in finished):
        return []
    return [best.choose(finished, workdir.checkpoints)[1]]


def _check(checkpoint):
    if not checksums.check(checkpoint):
        raise ValueError(f"checkpoint {checkpoint} has no checksums; train on, then pack again")


def _check_empty(folder):
    if folder.exists() and any(folder.iterdir()):
        raise OSError(f"the folder {folder} is not empty; choose another one")


def _to_carry(workdir, checkpoints):
    """The run's files and folders, of its checkpoints only these."""
    wanted = {*checkpoints, *map(checksums.path_for, checkpoints)}
    for path in sorted(workdir.path.rglob("*")):
        is_of_checkpoints = workdir.checkpoints in path.parents
        is_of_another = is_of_checkpoints and not wanted & {path, *path.parents}
        top = path.relative_to(workdir.path).parts[0]
        if not is_of_another and not top.startswith((".", "damaged-checkpoint-")):
            yield path


def _write_parts(whole, parts, part_bytes):
    size = whole.seek(0, 2)
    part_bytes = min(part_bytes, size)  # no more than can be read at once
    count = -(-size // part_bytes)
    whole.seek(0)
    paths = []
    for part in range(1, count + 1):
        content = whole.read(part_bytes)
        digest = hashlib.sha256(content).hexdigest()
        paths.append(parts / f"run.part-{part}-of-{count}.{digest}")
        files.write_bytes(paths[-1], content)
    return paths


def _complete(parts):
    """The paths of all parts, in order."""
    found = {}
    for path in parts.glob("*"):
        if match := _PART.fullmatch(path.name):
            found.setdefault(int(match[2]), {}).setdefault(int(match[1]), []).append(path)
    if len(found) != 1:
        raise ValueError(
            f"{parts} must hold the parts of one run, found those of {len(found)}: "
            f"{sorted(path.name for path in parts.glob('*'))[:8]}"
        )
    ((count, by_number),) = found.items()
    missing = sorted(set(range(1, count + 1)) - set(by_number))
    double = sorted(number for number, paths in by_number.items() if len(paths) > 1)
    if missing or double:
        raise ValueError(f"of the {count} parts in {parts}, {missing=}, {double=}")
    return [by_number[number][0] for number in range(1, count + 1)]


def _read_part(path):
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != path.suffix[1:]:
        raise ValueError(f"{path} is not what was written: its SHA-256 differs; carry it again")
    return content


def _extract(whole, folder, parts):
    try:
        with tarfile.open(fileobj=whole) as archive:
            archive.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise ValueError(f"the parts in {parts} are not those of one run: {error}") from error


def main(arguments=None):
    """Runs the command line and returns the exit status.

    Args:
      arguments: those of the command line by default.
    """
    parser = argparse.ArgumentParser(prog="snnvit_jax.carry", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="write a run as small files")
    packing.add_argument("workdir")
    packing.add_argument("parts")
    packing.add_argument("--megabytes", type=number(above=0), default=16, help="most of a file")
    packing.add_argument("--newest-only", action="store_true", help="without the best checkpoint")
    unpacking = commands.add_parser("unpack", help="put it together again")
    unpacking.add_argument("parts")
    unpacking.add_argument("workdir")
    options = parser.parse_args(arguments)
    try:
        if options.command == "pack":
            part_bytes = int(options.megabytes * 2**20)
            paths = pack(options.workdir, options.parts, part_bytes, options.newest_only)
            size = sum(path.stat().st_size for path in paths)
            print(f"{size / 2**20:.1f} MiB in {len(paths)} files in {options.parts}")
        else:
            step = unpack(options.parts, options.workdir)
            print(f"{options.workdir} goes on from step {step}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
