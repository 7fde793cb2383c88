import os
import re
import signal
import subprocess
import sys
import time
import types

import jax
import pytest
import two_processes
from tiny_run import REPOSITORY, command, lines_of, tiny_config

from snnvit_jax.data.decode import DamagedImage
from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs import leaving, restart, workdir

# What happens to one process after the other, in the words of a plan; a number is saved first.
SCRIPT = """\
import os, pathlib, signal, sys, time
folder, *plan = sys.argv[1:]
folder = pathlib.Path(folder)
starts = folder / "starts"
number = len(starts.read_text()) if starts.exists() else 0
starts.write_text("x" * (number + 1))
what, _, step = plan[number].partition("@")
if step:
    (folder / "checkpoints" / step).mkdir(parents=True)
if what in ("SIGTERM", "SIGINT"):
    def save(number, _):
        (folder / "saved").write_text(str(number))
        sys.exit(128 + number)
    signal.signal(getattr(signal, what), save)
    os.kill(os.getppid(), getattr(signal, what))
    time.sleep(60)
if what == "SIGKILL":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "crash":
    raise RuntimeError("as planned")
sys.exit(int(what))
"""


@pytest.fixture
def planned(tmp_path, capfd):
    """Returns a function that runs processes by a plan and says what came of it."""

    def run(*plan, restarts, seconds=lambda tries: 0):
        script = [sys.executable, "-S", "-c", SCRIPT, str(tmp_path), *plan]
        status = restart.run(script, tmp_path / "checkpoints", restarts, seconds)
        said = capfd.readouterr().err.splitlines()
        return types.SimpleNamespace(
            status=status,
            starts=len((tmp_path / "starts").read_text()),
            said=[line for line in said if line.startswith("restart: ")],
        )

    return run


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (0, None),
        (2, None),  # bad input
        (128 + signal.SIGTERM, None),  # asked to stop, and saved
        (128 + signal.SIGINT, None),
        (-signal.SIGTERM, None),  # asked to stop before it could save
        (-signal.SIGINT, None),
        (1, "it crashed with exit status 1"),
        (75, "another process was lost"),
        (-signal.SIGKILL, "it was killed by SIGKILL"),
        (-signal.SIGSEGV, "it was killed by SIGSEGV"),
        (-signal.SIGABRT, "it was killed by SIGABRT"),
        (128 + signal.SIGKILL, "it crashed with exit status 137"),
    ],
)
def test_what_is_worth_a_restart(status, cause):
    assert restart.cause_of_death(status) == cause


def test_exit_statuses_are_those_of_a_shell():
    assert [restart.exit_status(status) for status in (0, 2, 75, -9)] == [0, 2, 75, 137]


def test_each_restart_waits_longer():
    waits = [restart.seconds_before(tries) for tries in (1, 2, 3, 6, 7, 8, 10**6)]
    assert waits == [1, 2, 4, 32, 60, 60, 60]


def test_the_newest_step_is_that_of_a_finished_checkpoint(tmp_path):
    assert restart.newest_step(tmp_path / "none") == 0
    for name in ("8", "16", "16.sha256", "24.orbax-checkpoint-tmp"):
        (tmp_path / name).mkdir()
    assert restart.newest_step(tmp_path) == 16


def test_a_run_is_started_again_until_it_ends(planned):
    done = planned("SIGKILL@8", "crash", "75", "0", restarts=3)
    assert (done.status, done.starts) == (0, 4)
    assert done.said == [
        "restart: it was killed by SIGKILL; restart 1 of 3 from step 8 in 0 s",
        "restart: it crashed with exit status 1; restart 2 of 3 from step 8 in 0 s",
        "restart: another process was lost; restart 3 of 3 from step 8 in 0 s",
    ]


def test_only_restarts_without_progress_are_counted(planned):
    tries = []
    done = planned(
        *("75", "75@4", "75", "75", "75"), restarts=2, seconds=lambda n: tries.append(n) or 0
    )
    # The second one saved: its end is the first of a new row, of which the third is too many.
    assert (done.status, done.starts, tries) == (75, 4, [1, 1, 2])
    assert done.said[-1] == (
        "restart: another process was lost; 2 restarts brought no newer checkpoint than step 4"
    )


def test_checkpoints_from_before_are_no_progress(planned, tmp_path):
    (tmp_path / "checkpoints" / "12").mkdir(parents=True)
    done = planned("crash@4", "crash@8", restarts=1)  # as after a damaged checkpoint 12
    assert (done.status, done.starts) == (1, 2)


def test_bad_input_is_not_tried_again(planned):
    assert planned("2", restarts=5).starts == 1


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_is_passed_on_and_ends_both(planned, tmp_path, name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    done = planned(name, restarts=5)
    assert (done.status, done.starts, done.said) == (128 + number, 1, [])
    assert (tmp_path / "saved").read_text() == str(int(number))
    assert signal.getsignal(number) == before


def test_a_signal_between_two_processes_ends_the_waiting(planned):
    def asked_while_waiting(_):
        os.kill(os.getpid(), signal.SIGTERM)
        return 1000

    done = planned("crash", restarts=5, seconds=asked_while_waiting)
    assert (done.status, done.starts) == (128 + signal.SIGTERM, 1)


def test_restarts_that_make_no_sense_are_explained():
    restart.check(several=True, workdir="runs/one")
    restart.check(several=False, workdir=None)
    with pytest.raises(ValueError, match="needs the same --workdir for all"):
        restart.check(several=True, workdir=None)


# The trainer itself.


def test_whoever_starts_the_trainer_again_holds_no_device(tmp_path):
    environment = {**os.environ, "JAX_PLATFORMS": "none_such"}  # fails as soon as one is looked for
    flags = (f"--workdir={tmp_path / 'none'}", "--restart=3")
    done = subprocess.run(
        command(*flags), cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("none holds no run; give a --config too\n")


@pytest.fixture
def tiny_run(tmp_path):
    """A run that is not told its folder, with one restart; ended with the test."""
    config_file = tmp_path / "tiny.py"
    config_file.write_text(
        "from snnvit_jax import config\n\n\n"
        f"def get_config():\n    return config.from_json({config_lib.to_json(tiny_config())!r})\n"
    )
    flags = (f"--config={config_file}", "--config.epochs=12", "--config.eval_every_epochs=12.0")
    environment = two_processes.environment(devices=1) | {"PYTHONPATH": str(REPOSITORY)}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command(*flags, "--config.save_every_seconds=0.0", "--restart=1"),
            cwd=tmp_path,
            env=environment,
            stderr=log,
        )
    yield process
    process.terminate()
    process.wait()


def test_a_killed_run_goes_on_by_itself_in_the_same_folder(tiny_run, tmp_path):
    while not (folders := list(tmp_path.glob("runs/tiny/*"))):
        assert tiny_run.poll() is None
        time.sleep(0.02)
    while not restart.newest_step(folders[0] / "checkpoints"):  # written in the background
        assert tiny_run.poll() is None
        time.sleep(0.02)
    (child,) = two_processes.children(tiny_run.pid)
    os.kill(child, signal.SIGKILL)
    assert tiny_run.wait() == 0
    assert list(tmp_path.glob("runs/tiny/*")) == folders
    said = [line for line in (tmp_path / "log").read_text().splitlines() if "restart" in line]
    (line,) = said
    assert re.search("restart: it was killed by SIGKILL; restart 1 of 1 from step [1-9]", line)
    steps = [line["step"] for line in lines_of(folders[0])]
    assert steps == [*range(2, 97, 2), 96]  # the evaluation at the end is a line of its own


def passed_on():
    try:
        try:
            raise jax.errors.JaxRuntimeError("UNKNOWN: Gloo all-reduce failed")
        except RuntimeError as error:
            raise ValueError("the checkpoint cannot be written") from error
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (passed_on(), True),
        (ValueError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer"), True),
        (ValueError("unknown model name='UNKNOWN: '"), False),
        (OSError("No space left on device"), False),
    ],
)
def test_a_lost_process_is_not_taken_for_bad_input(error, expected):
    assert leaving.comes_from_devices(error) == expected


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("batch_size=0"), 2),
        (FileNotFoundError(2, "No such file", "images"), 2),
        (FloatingPointError("not finite"), 2),
        (workdir.InUseError("another process"), 2),
        (DamagedImage("a.png is damaged"), 1),
        (restart.WorkerDiedError("died"), 1),
        (restart.PassingError("disk"), 1),
    ],
)
def test_what_may_be_gone_the_next_time_is_no_bad_input(error, status):
    assert restart.status_of(error) == status
    assert (restart.cause_of_death(status) is None) == (status == 2)
