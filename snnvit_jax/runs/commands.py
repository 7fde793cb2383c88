"""Modes of the command line that look at finished runs and need no data set."""

import sys

from snnvit_jax.report import comparison, predictions
from snnvit_jax.runs import comparing, networks, predicting

TABLE, JSON = "table", "json"


def predict(place, paths, form=TABLE):
    """Prints what a network says of files.

    Args:
      place: a run's folder or an exported file, see `networks.open_network`.
      paths: of files and folders.
      form: "table" or "json", a line for each file.

    Returns:
      The exit status: 0, or 1 if a file was damaged; the others are predicted nonetheless.

    Raises:
      FileNotFoundError: if there is no network, or nothing at a path.
      ValueError: if there is no path, or for what holds no network, or no files.
    """
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
