"""DVS128 Gesture as it is published (Amir et al., CVPR 2017): long recordings of many trials.

A folder with trials_to_train.txt and trials_to_test.txt, each a list of files such as
user01_led.aedat, and beside each of them user01_led_labels.csv with the lines

    class,startTime_usec,endTime_usec

A trial is the events with start <= t < end, as SpikingJelly cuts them: 1,176 for training and 288
for test. Classes count from 1.
"""

import csv
import pathlib

GESTURES = (
    *("hand_clapping", "right_hand_wave", "left_hand_wave", "right_arm_clockwise"),
    *("right_arm_counter_clockwise", "left_arm_clockwise", "left_arm_counter_clockwise"),
    *("arm_roll", "air_drums", "air_guitar", "other_gestures"),
)


def holds_trials(folder):
    """Returns whether a folder is one of long recordings with lists of trials.

    Args:
      folder: a pathlib path.
    """
    return any(folder.glob("trials_to_*.txt"))


def list_trials(folder, split):
    """Returns [(file name, label, start, end)] of the trials of a split, times in microseconds.

    Args:
      folder: a pathlib path.
      split: "train" or "test".

    Raises:
      FileNotFoundError: for an unknown split, or a file that is missing.
      ValueError: naming file and line of a trial that does not make sense.
    """
    listed = folder / f"trials_to_{split}.txt"
    if not listed.is_file():
        found = sorted(path.stem.removeprefix("trials_to_") for path in folder.glob("trials_to_*"))
        raise FileNotFoundError(f"no file {listed} for split {split!r}; there are {found}")
    names = [line.strip() for line in _text(listed).splitlines() if line.strip()]
    return [trial for name in names for trial in _trials_of(folder, name)]


def _trials_of(folder, name):
    if not (folder / name).is_file():
        raise FileNotFoundError(f"no file {folder / name}, which the list of trials names")
    labels = folder / f"{pathlib.PurePath(name).stem}_labels.csv"
    rows = list(csv.reader(_text(labels).splitlines()))[1:]
    return [(name, *_trial(row, labels, line)) for line, row in enumerate(rows, 2) if row]


def _text(path):
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged or no text: {error}") from error


def _trial(row, labels, line):
    try:
        number, start, end = map(int, row)
    except ValueError as error:
        raise ValueError(
            f"{labels}, line {line} is {','.join(row)!r}; expected are class, start and end"
        ) from error
    if not 1 <= number <= len(GESTURES) or not 0 <= start < end:
        raise ValueError(
            f"{labels}, line {line} is {','.join(row)!r}; expected are a class from 1 to "
            f"{len(GESTURES)} and start < end"
        )
    return number - 1, start, end
