"""Predictions as text: a table to read, or a line of JSON for each file."""

import json

_NEXT = 4  # classes named after the first


def json_line(prediction, schedule):
    """Returns a prediction as one line of JSON.

    Args:
      prediction: with `path`, `classes` and `error`, see `runs.predicting.Prediction`.
      schedule: the network's `TimeStepSchedule`.
    """
    if prediction.error is not None:
        return json.dumps({"path": prediction.path, "error": prediction.error})
    content = {
        "path": prediction.path,
        "classes": [ranked._asdict() for ranked in prediction.classes],
        "average_time_steps": schedule.average,
        "time_steps": schedule.time_steps,
    }
    return json.dumps(content)


def table_head(widths):
    """Returns the first line of a table of predictions.

    Args:
      widths: characters of the columns of files and of classes.
    """
    return _row(("file", "class", "probability", "time steps", "then"), widths)


def table_line(prediction, schedule, widths):
    """Returns a prediction as one line of a table; it names the file only if that is damaged.

    Args:
      prediction: with `path`, `classes` and `error`, see `runs.predicting.Prediction`.
      schedule: the network's `TimeStepSchedule`.
      widths: characters of the columns of files and of classes.
    """
    if prediction.error is not None:
        return _row((prediction.path, "damaged", "", "", ""), widths)
    first, *others = prediction.classes
    then = ", ".join(f"{x.name} {x.probability:.4f}" for x in others[:_NEXT])
    steps = f"{schedule.average:.2f} of {schedule.time_steps}"
    return _row((prediction.path, first.name, f"{first.probability:.4f}", steps, then), widths)


def _row(cells, widths):
    file, name, probability, steps, then = cells
    line = f"{file:<{widths[0]}}  {name:<{widths[1]}}  {probability:>11}  {steps:>10}  {then}"
    return line.rstrip()
