"""The command line, in processes of its own: kills, signals, bad input."""

import json
import os
import signal
import subprocess
import time

import jax
import numpy as np
import pytest
from tiny_run import REPOSITORY, command, lines_of, tiny_config

from snnvit_jax.checkpoints.checkpoints import Checkpoints
from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs import loop


@pytest.fixture(scope="module")
def environment():
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(REPOSITORY / ".jax_cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }
    return {**os.environ, **cache}


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    """The tiny configuration as a file, slow enough to be interrupted."""
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    path.write_text(
        "import json\nfrom snnvit_jax import config\n"
        f"def get_config():\n    return config.from_json({config_lib.to_json(tiny_config())!r})\n"
    )
    return path


def test_a_key_without_a_configuration_file_is_explained(environment):
    done = call(environment, "--workdir=somewhere", "--config.epochs=3")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --config.epochs changes a configuration file")


def call(environment, *flags):
    return subprocess.run(
        command(*flags), cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )


def wait_for_step(process, folder, step, seconds=120):
    """Returns when a running process has logged a step."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, "the run ended before it could be stopped"
        if (folder / "metrics.jsonl").exists() and any(
            line["step"] >= step for line in lines_of(folder)
        ):
            return
        time.sleep(0.02)
    raise AssertionError(f"no step {step} after {seconds} s")


@pytest.fixture
def start(environment, config_file, tmp_path):
    """Starts a run of 12 epochs that does not evaluate in between; ends it with the test."""
    processes = []

    def start_run(folder):
        flags = (f"--config={config_file}", f"--workdir={folder}", "--config.epochs=12")
        flags += ("--config.save_every_seconds=0.0",)
        processes.append(
            subprocess.Popen(
                command(*flags, "--config.eval_every_epochs=12.0"),
                cwd=REPOSITORY,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        return processes[-1]

    yield start_run
    for process in processes:
        process.kill()


def final_state(folder):
    config = config_lib.from_json((folder / "config.json").read_text())
    return jax.device_get(loop.Run(config, folder, training=False).state)


def test_killed_runs_continue_bit_for_bit(start, tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert start(straight).wait() == 0
    for step in (18, 53):
        process = start(killed)
        wait_for_step(process, killed, step)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert start(killed).wait() == 0
    expected, found = final_state(straight), final_state(killed)
    assert int(found.step) == 96
    assert found.penalty_weight > 0
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    steps = [line["step"] for line in lines_of(killed)]
    assert steps == [line["step"] for line in lines_of(straight)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_stop_saves_the_step_it_stopped_at(start, tmp_path, number):
    folder = tmp_path / "run"
    process = start(folder)
    wait_for_step(process, folder, 20)
    process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number
    with Checkpoints(folder / "checkpoints") as checkpoints:
        newest = checkpoints.steps[-1]
    assert newest >= max(line["step"] for line in lines_of(folder))
    assert int(final_state(folder).step) == newest


def test_without_flags_the_program_says_what_to_type(environment):
    done = call(environment)
    assert done.returncode == 0
    assert "--config=configs/digits.py" in done.stdout


def test_evaluate_and_report_need_only_the_folder(environment, copy, finished):
    for name in ("summary.json", "report.html"):
        (copy / name).unlink()
    done = call(environment, f"--workdir={copy}", "--mode=evaluate")
    assert done.returncode == 0, done.stderr
    summary = json.loads((copy / "summary.json").read_text())
    assert summary["loss"] == finished[1]["loss"]
    assert not (copy / "report.html").exists()
    done = call(environment, f"--workdir={copy}", "--mode=report")
    assert done.returncode == 0, done.stderr
    assert (copy / "report.html").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--config.model.depht=3",), "depht"),
        (("surplus",), "unexpected arguments"),
        (("--config=no_such_file.py",), "no_such_file.py"),
    ],
)
def test_bad_input_ends_with_one_clear_line(environment, config_file, tmp_path, flags, message):
    done = call(environment, f"--config={config_file}", f"--workdir={tmp_path / 'run'}", *flags)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
