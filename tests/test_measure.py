"""What experiments/accelerators/measure.py does on a GPU, shown on a CPU and the smallest forms."""

import argparse
import dataclasses
import json
import os
import pathlib
import time

import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "experiments" / "accelerators"
DEVICE = {
    **{"platform": "gpu", "kind": "NVIDIA H100 80GB HBM3", "devices": ["cuda:0"]},
    **{"jax": "0.10.2", "snnvit_jax": "0.2.0"},
}


@pytest.fixture
def scripts(monkeypatch):
    """The modules, imported as the script does."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import measure
    import measure_kinds
    import measure_rows
    import measure_table
    import measure_worker

    return argparse.Namespace(
        main=measure,
        kinds=measure_kinds,
        rows=measure_rows,
        table=measure_table,
        worker=measure_worker,
    )


class Clock:
    """Seconds that pass only when they are spent."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def tiny(scripts, **changes):
    """A row of the dry run, with still less of it."""
    row = scripts.rows.dry(scripts.rows.all_rows(["cifar"])[0])
    overrides = (("embed_dim", 16), ("num_heads", 1), ("depth", 1))
    return dataclasses.replace(row, image_size=8, time_steps=1, overrides=overrides, **changes)


def page_of(scripts, folder, budget, estimates=None, dry_run=False):
    options = argparse.Namespace(dry_run=dry_run, peak_tflops=None)
    return scripts.main.Page(folder / "out", DEVICE, budget, options, estimates or {})


def test_rows_are_written_with_a_failure_and_after_the_end_of_the_budget(scripts, tmp_path):
    rows = [
        tiny(scripts),
        tiny(scripts, kind="evaluation", model="spikformer_4_385"),
        tiny(scripts, kind="deployed"),
        scripts.rows.dry(scripts.rows.all_rows(["calibration"])[0]),
        scripts.rows.dry(scripts.rows.all_rows(["calibration"])[1]),
    ]
    clock = Clock()
    budget = scripts.main.Budget(1.0, clock)
    estimates = {rows[0].name: {"ms": 0.5, "bytes": 1e6}}
    page = page_of(scripts, tmp_path, budget, estimates, dry_run=True)

    def ask(row, seconds):
        assert seconds == min(60 + 100 - clock.now, 50)
        clock.now += 14
        return scripts.kinds.measured(row)

    scripts.main.measure(rows, ask, budget, page, row_seconds=50)
    result = json.loads((tmp_path / "out.dry_run.json").read_text())
    step, failed, deployed, product, skipped = result["rows"]
    assert result["dry_run"] and result["spent_seconds"] == 56
    assert step["seconds"] > 0 and step["compile_seconds"] > 0 and step["program_bytes"] > 0
    assert step["steps_taken_back"] == 0 and step["flops"] > 0
    assert step["measured_by_estimate"] == pytest.approx(step["seconds"] * 1e3 / 0.5)
    assert step["images_per_second"] == pytest.approx(2 / step["seconds"])
    assert "spikformer_4_385" in failed["error"] and "seconds" not in failed
    assert deployed["seconds"] > 0 and deployed["flops"] < step["flops"] / 3
    assert product["flops_per_second"] > 0
    assert "1 minutes were over" in skipped["skipped"]
    lines = (tmp_path / "out.dry_run.md").read_text().splitlines()
    assert "DRY RUN" in lines[0] and "say nothing" in lines[0]
    assert [line.startswith("| dry run: ") for line in lines[-5:]] == [True] * 5
    assert len({line.count("|") for line in lines[4:]}) == 1


def test_kernels_that_give_something_else_are_found_out(scripts, tmp_path):
    row = tiny(scripts, kind="agreement", kernels="interpret", dtype="float32")
    assert row.name.endswith('agreement, kernels="interpret", float32')
    found = scripts.kinds.measured(row)
    assert found["agrees"] and found["gradient_apart"] < 1e-4
    page = page_of(scripts, tmp_path, scripts.main.Budget(1.0))
    for gradient in (1.06, float("nan")):
        other = scripts.kinds.compared(([1.0], [1.0]), ([gradient], [1.0]), 0.05)
        assert other["logits_apart"] == 0 and other["agrees"] is False
        page.add(row, found | other)
    assert "DOES NOT AGREE: logits 0, gradient 0.06 apart" in page.text()


def test_a_distance_is_relative_and_sees_what_is_not_finite(scripts):
    assert scripts.kinds.distance({"a": [3.0], "b": [4.3]}, {"a": [3.0], "b": [4.0]}) == (
        pytest.approx(0.06)
    )
    assert not scripts.kinds.distance([float("nan")], [1.0]) <= 0.05


def test_every_group_has_rows_with_names_of_their_own(scripts):
    rows = scripts.rows.all_rows()
    assert [row.group for row in rows] == sorted(
        (row.group for row in rows), key=scripts.rows.GROUPS.index
    )
    assert {row.group for row in rows} == set(scripts.rows.GROUPS)
    assert len({row.name for row in rows}) == len(rows)
    assert {row.kind for row in rows} == {*scripts.kinds.KINDS, "peers"}
    assert not [row for row in map(scripts.rows.dry, rows) if row.kernels == "gpu"]


def test_a_learned_like_schedule_keeps_half_of_the_steps(scripts):
    schedule = scripts.kinds.learned_like("abcdef", 4)
    assert schedule.average == 2
    assert [*schedule.layers.values()] == [4, 4, 1, 1, 1, 1]


def test_a_worker_outlives_a_call_that_hangs_and_one_that_crashes(scripts):
    worker = scripts.worker.Worker()
    assert worker.ask(300, max, 2, 3) == 3
    with pytest.raises(scripts.worker.WorkerError, match="ended after 0 s without a result"):
        worker.ask(0.1, time.sleep, 60)
    with pytest.raises(scripts.worker.WorkerError, match=r"process ended \(exit code 7\)"):
        worker.ask(300, os._exit, 7)
    assert worker.ask(300, max, 2, 3) == 3
    worker.close()


def test_estimates_are_for_rows_that_there_are(scripts, tmp_path):
    committed = scripts.table.read_estimates([FOLDER / "families.json"])
    assert {row.name for row in scripts.rows.all_rows(["cifar"])} - committed.keys() == {
        "spikformer_4_384, 32x32, batch 256, deployed"
    }
    counted = {
        **{"target": "h100", "model": "spikformer_4_384", "image_size": 32, "batch_size": 256},
        **{
            "mode": "train",
            "procedure_kernels": "gpu",
            "roofline_seconds": 0.0196,
            "bytes": 59.7e9,
        },
    }
    (tmp_path / "one.counts.json").write_text(json.dumps(counted))
    found = scripts.table.read_estimates([tmp_path / "one.counts.json"])
    (name,) = found
    assert found[name]["ms"] == pytest.approx(committed[name]["ms"], rel=0.05)
    del counted["roofline_seconds"]
    (tmp_path / "one.json").write_text(json.dumps(counted))
    with pytest.raises(ValueError, match=r"one.json holds no estimates.*KeyError"):
        scripts.table.read_estimates([tmp_path / "one.json"])


def test_rates_follow_from_a_time_and_what_is_known_of_the_device(scripts):
    row = {"seconds": 0.04, "model": "any", "batch_size": 256, "flops": 4e12}
    found = scripts.table.derived(row, scripts.table.peak_of(DEVICE), {"ms": 20, "bytes": 6e10})
    assert found["images_per_second"] == pytest.approx(6400)
    assert found["mfu"] == pytest.approx(100 / 989.4)
    assert found["bytes_per_second"] == pytest.approx(1.5e12)
    assert found["measured_by_estimate"] == pytest.approx(2)
    assert scripts.table.peak_of(DEVICE | {"kind": "cpu"}) is None


def test_what_peers_measured_becomes_rows(scripts, tmp_path):
    case = {"model": "sdt_2_512", "image_size": 32, "batch_size": 4, "dtype": "bfloat16"}
    sides = {"snnvit_jax": [2.0, 2.0, 5.0], "SpikingJelly": [3.0, 4.0, 5.0]}
    result = {
        **{"case": case, "errors": {"SpikingJelly, compiled": "no compiler"}},
        **{"flops": {"training": 3e12}, "seconds": {"training": sides}},
        "megabytes": {"training": {"snnvit_jax": 1500.0, "SpikingJelly": 2000.0}},
    }
    page = page_of(scripts, tmp_path, scripts.main.Budget(1.0))
    (row,) = scripts.rows.all_rows(["spikingjelly"])
    page.add(row, {"cases": [result]})
    ours, theirs, failed = page.rows
    assert (ours["seconds"], theirs["seconds"], theirs["of_first_side"]) == (2.0, 4.0, 2.0)
    assert theirs["images_per_second"] == 1 and theirs["device_peak_bytes"] == 2e9
    assert failed["error"] == "no compiler"
    page.add(row, scripts.main.beside_peers(argparse.Namespace(peer_python=None), 60))
    assert "no --peer-python" in page.text()


FAKE = """
import json, pathlib, sys, time
options = dict(a.split("=") for a in sys.argv[1:])
if options["--peer-python"] == "slow":
    time.sleep(60)
pathlib.Path(options["--out"]).write_text(json.dumps([options["--device"]]))
sys.exit(int(options["--peer-python"]))
"""


@pytest.mark.parametrize(
    ("peer", "seconds", "error", "cases"),
    [
        ("0", 300, None, ["smoke"]),
        ("3", 300, "peers.py failed with exit code 3", ["smoke"]),
        ("slow", 0.1, "peers.py was ended after 0 s: the time was over", []),
    ],
)
def test_peers_is_run_and_ended(scripts, tmp_path, monkeypatch, peer, seconds, error, cases):
    (tmp_path / "fake.py").write_text(FAKE)
    (tmp_path / "out.peers.json").write_text("[1]")  # of a run before
    monkeypatch.setattr(scripts.main, "PEERS", tmp_path / "fake.py")
    options = argparse.Namespace(peer_python=peer, out=tmp_path / "out", dry_run=True)
    found = scripts.main.beside_peers(options, seconds)
    assert (found.get("error"), found["cases"]) == (error, cases)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing/out"], "there is no folder 'missing'"),
        (["out", "--minutes=0"], "'0' must be a number, above 0"),
        (["out", "--groups=cifar100"], "invalid choice"),
    ],
)
def test_bad_command_lines_are_refused(scripts, capsys, arguments, message):
    with pytest.raises(SystemExit):
        scripts.main.parse(arguments)
    assert message in capsys.readouterr().err


def test_without_a_gpu_the_devices_are_named(scripts):
    found = DEVICE | {"platform": "cpu", "devices": ["TFRT_CPU_0"]}
    with pytest.raises(ValueError, match="no GPU: JAX finds TFRT_CPU_0; --dry-run"):
        scripts.main.check_device(found, dry_run=False)
    scripts.main.check_device(found, dry_run=True)
    scripts.main.check_device(DEVICE, dry_run=False)
