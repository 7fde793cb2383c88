import html
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from snnvit_jax.time_steps.schedule import TimeStepSchedule

REPOSITORY = pathlib.Path(__file__).parents[1]
NOTEBOOK = REPOSITORY / "experiments" / "colab_tpu.ipynb"

# The notebook's own recipe on a network that compiles quickly.
SMALL = {
    **{"model.embed_dim": 16, "model.num_heads": 2, "model.depth": 1},
    **{"model.time_steps": 2, "target_time_steps": 1.2, "batch_size": 180},
}


def execute(cwd, **variables):
    """Executes the notebook in `cwd`, in an environment with these variables."""
    return subprocess.run(
        [sys.executable, pathlib.Path(__file__).with_name("execute_notebook.py"), NOTEBOOK],
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The run's folder and what the notebook printed."""
    workdir = tmp_path_factory.mktemp("notebook") / "run"
    done = execute(
        NOTEBOOK.parent,
        EPOCHS="2",
        OVERRIDES=json.dumps(SMALL),
        WORKDIR=str(workdir),
        JAX_PLATFORMS="cpu",
        PYTHONPATH=str(REPOSITORY),
        JAX_COMPILATION_CACHE_DIR=str(REPOSITORY / ".jax_cache"),
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
        JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="0",
    )
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


def test_the_notebook_learns_time_steps_and_says_which(executed):
    workdir, printed = executed
    schedule = TimeStepSchedule.load(workdir / "schedule.json")
    assert 1 <= schedule.average < schedule.time_steps
    assert f"average time steps {schedule.average:.2f} of {schedule.time_steps}" in printed
    for name, mask in schedule.masks.items():
        assert re.search(f"^{name} +{''.join('■' if on else '·' for on in mask)}$", printed, re.M)


def test_the_accuracy_printed_is_that_of_the_summary(executed):
    workdir, printed = executed
    accuracy = json.loads((workdir / "summary.json").read_text())["accuracy"]
    assert f"accuracy {accuracy:.4f} on 360 test images" in printed


def test_the_notebook_shows_the_heat_map_and_the_report(executed):
    workdir, printed = executed
    image, page = [s for s in json.loads(printed.splitlines()[-1]) if s[0] != "update"]
    assert image == ["image", str(workdir / "time_steps.png")]
    assert page[0] == "html"
    assert html.escape((workdir / "report.html").read_text()) in page[1]


def test_the_deployed_model_is_cheaper_and_predicts_the_same(executed):
    ratio = float(re.search(r"FLOPs ratio (\S+):", executed[1])[1])
    assert 0 < ratio < 1
    agreeing, images = map(int, re.search(r"(\d+) of (\d+) as by the masked", executed[1]).groups())
    assert images == 64
    assert agreeing >= 63  # folding rounds differently: a current may lie at the threshold


def test_curves_are_drawn_while_the_training_goes_on(executed):
    """After each evaluation anew, with a point more in each of the two panels."""
    updates = [s[1] for s in json.loads(executed[1].splitlines()[-1]) if s[0] == "update"]
    lines = (executed[0] / "metrics.jsonl").read_text().splitlines()
    evaluations = sum("eval_accuracy" in line for line in lines)
    assert updates == [2 * (n + 1) for n in range(evaluations)]
    assert evaluations > 0


def test_energy_is_shown_beside_that_of_a_plain_transformer(executed):
    found = re.search(r"image (\S+) uJ, of the plain transformer (\S+) uJ", executed[1])
    spiking, plain = map(float, found.groups())
    assert spiking > 0 and plain > 0
    assert "patch_embed" in executed[1]


def test_the_package_s_own_network_classifies_the_same_images(executed):
    right = int(re.search(r"digits_learned: (\d+) of 64 images", executed[1])[1])
    assert right >= 62  # of all 360: 99.4 %
    assert "its schedule: 2.00 of 4 time steps" in executed[1]


def test_outside_a_clone_the_notebook_asks_where_the_project_is(tmp_path):
    done = execute(tmp_path, REPOSITORY="")
    assert done.returncode != 0
    assert f"{tmp_path} is no clone of snnvit_jax: set REPOSITORY" in done.stderr


def test_the_notebook_is_stored_without_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert all(not cell.get("outputs") for cell in cells)
    assert len({cell["id"] for cell in cells}) == len(cells)
