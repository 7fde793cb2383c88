import json

import pytest

from snnvit_jax.runs.workdir import Workdir

LINES = [{"step": step, "loss": 1 / step} for step in (2, 4, 6)]


@pytest.fixture
def workdir(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return Workdir(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        b'{"step": 8, "lo',  # killed while writing
        b'{"step": 8, "lo\xff\xfe',  # no text
        b"\x00\x00\x00\x00\n",  # a block that was never written
        b'"step"\n',
        b'{"loss": 0.1}\n',
        b'{"step": "8"}\n',
    ],
)
def test_a_damaged_line_of_metrics_is_left_out(workdir, damage):
    with workdir.metrics.open("ab") as file:
        file.write(damage)
    assert workdir.read_metrics() == LINES
    assert workdir.cut_metrics(4) == LINES[:2]
    assert workdir.metrics.read_text().count("\n") == 2


def test_lines_after_a_damaged_one_are_kept(workdir):
    damaged = workdir.metrics.read_bytes().replace(b'"step": 4', b'"step": \xb4')
    workdir.metrics.write_bytes(damaged)
    assert workdir.read_metrics() == [LINES[0], LINES[2]]


def test_a_trained_network_is_no_folder_of_a_run():
    with pytest.raises(ValueError, match="^pretrained:digits_t4 is a trained network.*--mode=pred"):
        Workdir("pretrained:digits_t4")
