"""The results of a run: summary.json and schedule.json, which are there once training has ended.

Those of the best checkpoint lie in a folder of their own: whoever reads the run's folder is told of
its end.
"""

import numpy as np

from snnvit_jax.checkpoints import BEST, LAST, best, is_best
from snnvit_jax.checkpoints.checkpoints import finished_checkpoints
from snnvit_jax.common import files
from snnvit_jax.runs.workdir import InUseError
from snnvit_jax.time_steps import masks


def summarise(experiment, step, result, history, measured=None):
    """Returns what summary.json holds, as plain numbers and strings.

    Args:
      experiment: an `Experiment`.
      step: training steps done.
      result: an `evaluation.Evaluation` after them.
      history: the lines of metrics.jsonl, oldest first.
      measured: of the best checkpoint, the `checkpoints.Measured` that it was chosen by; None for
        the last one.
    """
    return {
        **choice(measured),
        "accuracy": result.accuracy,
        "loss": result.loss,
        "split": result.split,
        "examples": result.examples,
        "average_time_steps": result.schedule.average,
        "time_steps": result.schedule.time_steps,
        "epochs": step / experiment.steps_per_epoch,
        "steps": step,
        "seconds": seconds(history),
        "images_per_second": _median(history, "images_per_second"),
        "data_wait_fraction": _median(history, "data_wait_fraction"),
        "damaged_images": damaged_images(history),
        "energy_uj": result.energy and result.energy.microjoule,
        "firing_rate": result.firing_rate,
        "dead_layers": result.dead_layers,
        "saturated_layers": result.saturated_layers,
        "devices": experiment.mesh.size,
    }


def choice(measured):
    """Returns which checkpoint results are of, and what chose it, as summary.json says it.

    Args:
      measured: see `summarise`.
    """
    if measured is None:
        return {"checkpoint": LAST}
    return {
        "checkpoint": BEST,
        "chosen_on": measured.split,
        "chosen_by_accuracy": measured.accuracy,
        "chosen_on_budget": measured.on_budget,
    }


def describe_choice(step, measured, split):
    """Returns in words which checkpoint results are of, and on which split it was chosen.

    Args:
      step: training steps done.
      measured: see `summarise`.
      split: that the results are measured on.
    """
    if measured is None:
        return f"the last checkpoint, step {step}: no accuracy chose it"
    text = (
        f"the best checkpoint, step {step}: chosen by its accuracy of {measured.accuracy:.4f} on "
        f"{measured.split!r}"
    )
    if not measured.on_budget:
        text += ", above the target of time steps as all that are kept"
    if measured.split == split:
        text += ", so that results on the same split flatter it"
    return text


def of_modules(result):
    """Returns time steps and firing rate of each module, as lines of the log hold them.

    Args:
      result: an `evaluation.Evaluation`.
    """
    rates = {}
    for name, rate in result.firing_rates.items():
        rates.setdefault(masks.module_of(name), []).append(np.mean(rate))
    return {
        **{f"eval_time_steps/{name}": steps for name, steps in result.schedule.modules.items()},
        **{f"eval_firing_rate/{name}": float(np.mean(found)) for name, found in rates.items()},
    }


def damaged_images(history):
    """Returns how many damaged images were left out so far, over all continuations of a run.

    Args:
      history: the lines of metrics.jsonl; each line's count goes on from the one before.
    """
    return int(max((line.get("damaged_images") or 0 for line in history), default=0))


def seconds(history):
    """Returns how long a run has trained so far, in seconds.

    Args:
      history: the lines of metrics.jsonl, oldest first.
    """
    return next((line["seconds"] for line in reversed(history) if line.get("seconds")), 0.0)


def write(workdir, result, summary):
    """Writes schedule.json, and then summary.json, which says that the training has ended.

    Args:
      workdir: a `Workdir`; its folder must exist.
      result: an `evaluation.Evaluation`.
      summary: of `summarise`.
    """
    result.schedule.save(workdir.schedule)
    workdir.write_summary(summary)


def write_if_finished(workdir, result, summary, total_steps):
    """Writes the results of an evaluation, unless the training has not ended.

    Args:
      workdir: a `Workdir`.
      result: an `evaluation.Evaluation`.
      summary: of `summarise`.
      total_steps: of the whole training.

    Returns:
      What to tell if nothing was written, else None.
    """
    of_best = summary["checkpoint"] == BEST
    done = _wanted_step(workdir, LAST) if of_best else summary["steps"]
    if done < total_steps:
        return (
            f"the training has done {done} of {total_steps} steps: "
            "summary.json and schedule.json are written at its end"
        )
    try:
        with workdir.lock():
            wanted = _wanted_step(workdir, summary["checkpoint"])
            if wanted != summary["steps"]:
                return f"there is a checkpoint of step {wanted} by now: summary.json is left to it"
            target = workdir.best if of_best else workdir
            files.make_folder(target.path)
            write(target, result, summary)
    except InUseError:
        return "a training is going on in this folder: summary.json is left to it"
    except OSError as error:
        return f"summary.json and schedule.json could not be written: {error}"
    return None


def _wanted_step(workdir, which):
    finished = finished_checkpoints(workdir.checkpoints)
    return best.choose(finished, workdir.checkpoints)[0] if is_best(which) else finished[-1][0]


def _median(lines, key):
    values = [line[key] for line in lines if line.get(key) is not None]
    return float(np.median(values or [0.0]))
