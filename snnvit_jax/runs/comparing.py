"""Finished runs beside each other: what each reached, what it costs, in which settings they differ.

Nothing here needs a data set: what was found is read from the runs' folders, and the deployed
programs are made from their checkpoints and timed here, in turn, on images of noise.
"""

import argparse
import functools
import json
import platform

import jax
import numpy as np

from snnvit_jax import report
from snnvit_jax.common import arguments, files
from snnvit_jax.common.paths import expanded
from snnvit_jax.evaluation import timing
from snnvit_jax.models import describe
from snnvit_jax.report.comparison import Compared
from snnvit_jax.runs import networks, validation
from snnvit_jax.runs.workdir import Workdir
from snnvit_jax.time_steps.schedule import TimeStepSchedule

BATCH_SIZE = 16
SECONDS = 2.0  # of timing, for each run


def compare(folders, output, batch_size=BATCH_SIZE, seconds=SECONDS):
    """Writes one page on several runs.

    Args:
      folders: of at least two runs that have ended.
      output: file to write.
      batch_size: images of a call that is timed.
      seconds: of timing, for each run.

    Returns:
      A list of `Compared`, in the order of the folders.

    Raises:
      ValueError: for fewer runs, the same one twice, or naming one that has not ended, a file of
        its results that is damaged, or an output that cannot be written.
    """
    folders = [expanded(folder) for folder in folders]
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise ValueError(
            f"--mode=compare needs the folders of two runs or more, each once: {folders!r}"
        )
    page_path = _writable(output)  # before what takes minutes
    results = [_results(Workdir(folder)) for folder in folders]
    deployed = [networks.open_run(folder) for folder in folders]
    times = _milliseconds(deployed, batch_size, seconds)
    found = [
        _read(folder, name, of_run, network, milliseconds / batch_size)
        for folder, name, of_run, network, milliseconds in zip(
            folders, short_names(folders), results, deployed, times, strict=True
        )
    ]
    device = f"{jax.devices()[0].device_kind}, {platform.machine()}"
    page = report.comparison_page(found, differences(found), batch_size, device)
    files.write_bytes(page_path, page.encode("utf-8", "backslashreplace"))
    return found


def short_names(folders):
    """Returns as much of the end of each path as tells them apart.

    Args:
      folders: different paths.
    """
    for length in range(1, max(len(folder.parts) for folder in folders)):
        names = ["/".join(folder.parts[-length:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def differences(runs):
    """Returns the settings in which runs differ.

    Args:
      runs: a list of `Compared`.

    Returns:
      {key: [value of each run, None where it has no such key]}, in the order of the configuration.
    """
    flat = [validation.flatten(run.config) for run in runs]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    values = {key: [_plain(settings.get(key)) for settings in flat] for key in keys}
    return {key: row for key, row in values.items() if any(x != row[0] for x in row[1:])}


def _writable(output):
    try:
        return arguments.output_file(output)
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"--output: {error}") from error


def _plain(value):
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value


def _results(workdir):
    """What the page needs of a run that has ended, of its small files."""
    _check_ended(workdir)
    energy = workdir.path / "energy.json"
    return {
        "summary": _entries(workdir.summary, ("accuracy", "examples", "split", "epochs")),
        "energy": _entries(energy, ("totals",))["totals"] if energy.exists() else None,
        "schedule": TimeStepSchedule.load(workdir.schedule),
        "lines": workdir.read_metrics(),
    }


def _entries(path, needed):
    """The object in a JSON file, with these keys."""
    try:
        found = json.loads(path.read_bytes())
        for key in needed:
            found[key]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} does not hold a run's results ({error!r}); write it again by "
            f"--workdir={path.parent} --mode=report, or leave the run out"
        ) from error
    return found


def _check_ended(workdir):
    if workdir.read_config() is None:
        raise ValueError(f"the folder {workdir.path} holds no run: there is no config.json in it")
    if not (workdir.summary.exists() and workdir.schedule.exists()):
        raise ValueError(
            f"the run {workdir.path} has not ended: there is no summary.json; train it to its end "
            "(the same command with --workdir), or leave it out"
        )


def _read(folder, name, results, network, milliseconds):
    config, classes = Workdir(folder).read_config(), network.about["config"]["num_classes"]
    return Compared(
        name=name,
        network=describe(networks.model_of(config.model, classes, config.data.image_size)),
        config=config,
        **results,
        flops=network.flops(1),
        milliseconds=milliseconds,
    )


def _milliseconds(deployed, batch_size, seconds):
    """Median milliseconds of a batch, of each program."""
    rng, calls = np.random.default_rng(0), []
    for network in deployed:
        shape = (batch_size, *network.about["image_shape"])
        calls.append(functools.partial(network, rng.normal(size=shape).astype(np.float32)))
    taken = timing.interleaved(calls, seconds * len(calls))
    return [1e3 * float(np.median(times)) for times in taken]
