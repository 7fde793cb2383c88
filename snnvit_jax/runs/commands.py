"""The modes of the command line: what each does and prints."""

import sys

from snnvit_jax import distributed
from snnvit_jax.models.flops import model_flops
from snnvit_jax.report import comparison, predictions
from snnvit_jax.runs import comparing, networks, predicting, restart

TABLE, JSON = "table", "json"


def train(run, profile=0):
    """Trains a run to its end, or until it is asked to stop.

    Args:
      run: a `loop.Run` to train.
      profile: steps of which a trace is written.

    Returns:
      The exit status: 0, or 128 + the number of the signal that asked it to stop.

    Raises:
      restart.PassingError: if a file cannot be read or written meanwhile.
    """
    _say(f"workdir {run.workdir.path}")
    try:
        summary = run.train(profile=profile)
    except OSError as error:  # all was there when it began
        raise restart.PassingError(
            f"{error} (while training in {run.workdir.path}; what is saved there is kept: once the "
            "cause is gone, the same command goes on)"
        ) from error
    if summary is None:
        _say(f"run the same command with --workdir={run.workdir.path} to continue")
        return 128 + run.stop_signal
    _print_accuracy(summary)
    _say(f"summary {run.workdir.summary}\nreport  {run.workdir.report}")
    _note_missed_target(run.experiment.config.target_time_steps, summary["average_time_steps"])
    return 0


def report(run):
    """Evaluates a run and draws its report again, see `evaluate`.

    Args:
      run: a `loop.Run`.
    """
    return evaluate(run, writes_report=True)


def evaluate(run, writes_report=False):
    """Evaluates a run; prints what was found before anything is written, which may fail.

    Args:
      run: a `loop.Run`.
      writes_report: whether its report is drawn again.

    Returns:
      The exit status, 0.
    """
    result = run.evaluate()
    if run.measured:
        _say(run.describe_choice(result.split))
    _print_accuracy(run.summarise(result))
    if writes_report:
        run.write_report(result)
    unwritten = run.write_results(result)
    _say(f"note: {unwritten}" if unwritten else f"summary {run.results.summary}")
    if run.results.report.exists():
        _say(f"report  {run.results.report}")
    return 0


def export(run, form="snn"):
    """Writes a run's network as one file, and prints what it costs.

    Args:
      run: a `loop.Run`.
      form: "snn" or "onnx".

    Returns:
      The exit status, 0.
    """
    deployed, path = run.export(form)
    if run.measured:
        _say(run.describe_choice(split=None))
    model, shape = run.experiment.model, run.experiment.image_shape
    before, after = model_flops(model, run.state.eval_variables, 1, shape), deployed.flops(1)
    weights = f"\nweights  {path.with_suffix('.safetensors')}" if form == "snn" else ""
    _say(
        f"average time steps {deployed.schedule.average:.2f} of {deployed.schedule.time_steps}, "
        f"{after / 1e6:.4g} MFLOPs an image, {after / before:.3f} of the masked model's\n"
        f"deployed {path}{weights}"
    )
    return 0


def predict(place, paths, form=TABLE):
    """Prints what a network says of files.

    Args:
      place: a run's folder or an exported file, see `networks.open_network`; None if none is given.
      paths: of files and folders.
      form: "table" or "json", a line for each file.

    Returns:
      The exit status: 0, or 1 if a file was damaged; the others are predicted nonetheless.

    Raises:
      FileNotFoundError: if there is no network, or nothing at a path.
      ValueError: if there is no place or no path, or for what holds no network, or no files.
    """
    if place is None:
        raise ValueError("--mode=predict needs --model=PATH: a run's folder or an exported file")
    if not paths:
        raise ValueError("--mode=predict needs files or folders: --mode=predict PATH...")
    network = networks.open_network(place)
    found = predicting.predict(network, paths)
    if form == JSON:
        return _show(found, lambda x: predictions.json_line(x, network.schedule))
    files = predicting.files_of(network, paths)
    names = networks.class_names_of(network)
    widths = [max(map(len, column)) for column in ((*files, "file"), (*names, "damaged"))]
    print(predictions.table_head(widths))
    return _show(found, lambda x: predictions.table_line(x, network.schedule, widths))


def compare(folders, output):
    """Writes the page that compares runs, and prints its figures.

    Args:
      folders: of at least two runs that have ended.
      output: file to write.

    Returns:
      The exit status, 0.

    Raises:
      ValueError: see `comparing.compare`.
      OSError: if the page cannot be written.
    """
    print(comparison.text(comparing.compare(folders, output)))
    print(f"page {output}")
    return 0


def _show(found, line_of):
    damaged = False
    for prediction in found:
        print(line_of(prediction), flush=True)
        if prediction.error is not None:
            damaged = True
            print(f"error: {prediction.error}", file=sys.stderr)
    return int(damaged)


def _print_accuracy(summary):
    energy = summary["energy_uj"]
    _say(
        f"{summary['split']} accuracy {summary['accuracy']:.4f} on {summary['examples']} examples, "
        f"average time steps {summary['average_time_steps']:.2f} of {summary['time_steps']}, "
        + ("energy not counted" if energy is None else f"energy {energy:.3g} µJ an image")
    )


def _note_missed_target(target, average):
    if target is not None and average > target:
        _say(
            f"note: {average:.2f} time steps are above target_time_steps={target:g}: raise "
            "time_step_penalty or optimizer.score_multiplier, or give the scores more of the "
            "training, between time_step_start and time_step_freeze"
        )


def _say(text):
    if distributed.is_writer():
        print(text)
