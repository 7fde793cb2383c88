"""The report page and its figures, from an evaluation put together by hand."""

import dataclasses
import html
import json
import pathlib
import re
import shutil
import sys

import by_path
import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

import snnvit_jax as snn
from snnvit_jax import evaluation
from snnvit_jax.report import figures, page, page_tables, report
from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs.workdir import Workdir

PNG = figures.as_png(Figure(figsize=(1, 1)))
EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"
ADDED = ("early_exit", "activation_histograms", "sensitivity")


@pytest.fixture(scope="module")
def result(tiny, tiny_energy):
    return evaluation.Evaluation(
        split="test",
        examples=3,
        loss=1.0,
        accuracy=2 / 3,
        confusion=np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]]),
        firing_rates={name: layer.rates for name, layer in tiny_energy.neurons.items()},
        schedule=snn.TimeStepSchedule.from_variables(tiny.variables, list(tiny_energy.neurons)),
        energy=tiny_energy,
    )


def rendered(folder, result, data="digits"):
    """The page with a one-inch image for every figure, since drawing them takes seconds."""
    config = config_lib.default_config()
    config.data.name = data
    images = dict.fromkeys(("time_steps", "firing_rates", "energy", "curves", "confusion"), PNG)
    return page.render(result, images, {"curves": PNG}, config, folder, "A <model>", "the <last>")


def titles(text):
    return re.findall("<h2>(.*?)</h2>", text)


def cells(table):
    """Rows of an HTML table, as text."""
    rows = re.findall("<tr>(.*?)(?=<tr>|</t)", table, re.DOTALL)
    return [
        [html.unescape(c.replace("<wbr>", "").strip()) for c in re.split("<t[dh][^>]*>", row)[1:]]
        for row in rows
    ]


def test_the_page_says_what_was_found_and_needs_nothing_else(tmp_path, result):
    text = rendered(tmp_path, result)
    assert "66.67 %" in text
    assert 'name="viewport"' in text
    assert "@media print" in text
    assert not re.search(r'(?:src|href)="(?!data:)', text)
    assert titles(text) == [
        *("What each layer learned", "Time steps of each module", "How often neurons fire"),
        *("Operations and energy of one image", "Where the energy goes"),
        *("Is it accumulate-only?", "Layer by layer"),
        *("How it was learned", "Which classes are confused", "Configuration"),
    ]


def test_the_page_shows_what_experiments_left(tmp_path, result):
    for name in ADDED:
        (tmp_path / f"{name}.png").write_bytes(PNG)
    programs = {
        "masked": {"flops": 4e6, "seconds": 0.5},
        "<b>": {"flops": 1e6, "seconds": 0.1},
        "other runtime": {"flops": None, "seconds": 0.2},
    }
    content = {"programs": programs, "batch_size": 2, "equality": {"images_of_the_split": 7}}
    (tmp_path / "deployed.json").write_text(json.dumps(content))
    text = rendered(tmp_path, result)
    shown = ["The deployed model", *(page.FIGURES[name][0] for name in ADDED)]
    assert titles(text)[7:11] == shown
    assert "images of the split: 7" in text
    table = page_tables.deployment(tmp_path / "deployed.json")
    assert cells(table)[1:] == [
        ["masked", "2", "100.0 %", "500", "100.0 %"],
        ["<b>", "0.5", "25.0 %", "100", "20.0 %"],
        ["other runtime", "", "", "200", "40.0 %"],
    ]


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[]", "{}", "3", "null", "[3]", '["programs"]', '{"programs": {"a": {}}}'),
        *('{"programs": {}, "batch_size": 1}', '[{"programs": {}, "batch_size": 1}]'),
        *('{"programs": [1], "batch_size": 1}', '{"programs": {"a": 1}, "batch_size": 1}'),
        '{"programs": {"a": {"flops": 0, "seconds": 1}}, "batch_size": 1}',
        '{"programs": {"a": {"flops": null, "seconds": 1}, "b": {"flops": 1, "seconds": 1}}, '
        '"batch_size": 1}',
        '{"programs": {"a": {"flops": "1", "seconds": 1}}, "batch_size": 1}',
    ],
)
def test_measurements_that_cannot_be_read_are_named(tmp_path, content):
    path = tmp_path / "deployed.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"deployed\.json does not hold measured programs"):
        page_tables.deployment(path)


def test_what_cannot_be_shown_does_not_end_a_run(tmp_path, result):
    (tmp_path / "deployed.json").write_text("[]")
    (tmp_path / "early_exit.png").write_text("<svg>")
    (tmp_path / "sensitivity.png").write_bytes(PNG[:10])
    text = rendered(tmp_path, result)
    assert titles(text)[7:10] == [
        "The deployed model",
        "Stopping early",
        page.FIGURES["sensitivity"][0],
    ]
    assert text.count("Not shown: ") == 3
    assert "deployed.json does not hold measured programs" in text
    assert (
        "early_exit.png is no figure (not a PNG file, begins with b&#x27;&lt;svg&gt;&#x27;)" in text
    )


# Folder of experiments/ -> what its script writes into a run's folder.
LEFT_BEHIND = {
    "deploy": "deployed.json",
    "early_exit": "early_exit.json",
    "energy": "energy_table.json",
    "sensitivity": "sensitivity.json",
    "activation_histograms": "activation_histograms.json",
}
RECORDED = [
    (path, name)
    for folder, name in LEFT_BEHIND.items()
    for path in sorted((EXPERIMENTS / folder).rglob("*.json"))
]


def test_everything_recorded_has_a_place():
    assert {path.relative_to(EXPERIMENTS).parts[0] for path, _ in RECORDED} == set(LEFT_BEHIND)


@pytest.mark.parametrize(
    ("path", "name"),
    [pytest.param(*both, id=str(both[0].parent.name + both[0].stem)) for both in RECORDED],
)
def test_the_page_shows_every_recorded_experiment(tmp_path, result, path, name):
    shutil.copy(path, tmp_path / name)
    png = path.with_suffix(".png")
    if png.exists():
        shutil.copy(png, (tmp_path / name).with_suffix(".png"))
    text = rendered(tmp_path, result)
    assert "Not shown" not in text
    wanted = "The deployed model" if name == "deployed.json" else None
    if png.exists():
        wanted = page.FIGURES[name.removesuffix(".json")][0]
    assert wanted is None or wanted in titles(text)


@pytest.fixture
def script():
    return by_path.module(EXPERIMENTS / "deploy/measure.py")


def test_the_page_shows_what_the_deployment_script_writes(tmp_path, monkeypatch, script):
    recorded = json.loads((EXPERIMENTS / "deploy/digits.json").read_text())
    asked = {}
    monkeypatch.setattr(script, "onnxruntime", lambda: "runtime")
    monkeypatch.setattr(script, "measure", lambda *given: asked.update(given=given) or recorded)
    sizes = [measured["batch_size"] for measured in recorded]
    monkeypatch.setattr(script.analysis, "open_run", lambda *a, **b: (a, b))
    words = ("pretrained:digits_learned", "--data_dir=D", f"--out={tmp_path / 'out'}")
    monkeypatch.setattr("sys.argv", ["measure.py", *words, "--batch_size", *map(str, sizes)])
    script.main()
    assert asked == {
        "given": ((words[0],), {"data_dir": "D"}, "runtime", sizes, 15.0),
    }
    text = page_tables.deployment(tmp_path / "out" / "deployed.json")
    assert text.count("<table>") == len(recorded) == 2
    for measured in recorded:
        assert f"batch size: {measured['batch_size']};" in text
    ratios = [row[2] for row in cells(text) if row[0] == script.LEARNED]
    programs = [list(measured["programs"].values()) for measured in recorded]
    assert ratios == [f"{100 * p[2]['flops'] / p[0]['flops']:.1f} %" for p in programs]
    assert sum(row[0] == script.ONNX for row in cells(text)) == 2


def test_the_deployment_script_says_what_to_give_and_to_install(monkeypatch, capsys, script):
    monkeypatch.setattr("sys.argv", ["measure.py", "pretrained:digits_learned"])
    with pytest.raises(SystemExit):
        script.main()
    assert "say with --out where the results go" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["measure.py", "pretrained:digits_learned", "--out=out"])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SystemExit):
        script.main()
    assert "pip install 'snnvit_jax[onnx]' onnxruntime" in capsys.readouterr().err


def test_names_are_broken_between_their_parts_and_numbers_never():
    text = page_tables.table(("a",), [("block_0/attn",), ("model.depth",), ("4.25 of 5",)])
    assert re.findall("<td[^>]*>(.*)", text)[:3] == [
        *("block_0/<wbr>attn", "model.<wbr>depth", "4.25 of 5"),
    ]


def test_names_cannot_break_the_page(tmp_path, result):
    text = rendered(tmp_path, result, data="<script>x</script>")
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_totals_stand_under_each_convention_beside_a_plain_transformer(tiny_energy):
    rows = cells(page_tables.energy_totals(tiny_energy))
    by_name = {row[0]: row[1:] for row in rows[1:]}
    multiply = tiny_energy.under(integers="multiply")
    for name, energy in (("integers accumulate", tiny_energy), ("integers multiply", multiply)):
        np.testing.assert_allclose(float(by_name[name][2]), energy.microjoule, rtol=5e-3)
        share = 100 * energy.microjoule / tiny_energy.plain_microjoule
        np.testing.assert_allclose(float(by_name[name][3].rstrip(" %")), share, atol=0.05)
    np.testing.assert_allclose(
        float(by_name["plain transformer"][2]), tiny_energy.plain_microjoule, rtol=5e-3
    )


def test_the_verdict_lists_every_operand_that_is_not_spikes(tiny_energy):
    text = page_tables.verdict(tiny_energy)
    assert [row[:2] for row in cells(text)[1:]] == [
        [name, operand.kind] for name, operand in tiny_energy.not_binary.items()
    ]
    assert (
        "7 saw nothing but 0 and 1 in 3 images, 4 also small integers, and 2 real numbers." in text
    )


def test_the_table_of_layers_has_their_energies(tiny_energy):
    rows = cells(page_tables.layers(tiny_energy))[1:]
    assert [row[0] for row in rows] == list(tiny_energy.layers)
    multiply = tiny_energy.under(integers="multiply").layers
    for name, _, operations, nanojoule, multiplied in rows:
        layer = tiny_energy.layers[name]
        assert operations.endswith("MAC" if layer.macs else "AC")
        for shown, picojoule in ((nanojoule, layer), (multiplied, multiply[name])):
            shown = float(shown.replace(",", ""))
            np.testing.assert_allclose(shown, picojoule.picojoule * 1e-3, rtol=5e-3)


def test_the_figure_of_energies_marks_every_layer(tiny_energy):
    axes = figures.draw_energy(tiny_energy).axes[0]
    marks = {c.get_label(): np.ma.filled(c.get_offsets(), np.nan) for c in axes.collections}
    nanojoule = [layer.picojoule * 1e-3 for layer in tiny_energy.layers.values()]
    both = np.nansum([marks["accumulates"][:, 0], marks["multiply-accumulates"][:, 0]], axis=0)
    np.testing.assert_allclose(both, nanojoule)
    integers = [i for i, x in enumerate(tiny_energy.layers.values()) if x.kind == "integers"]
    assert np.flatnonzero(~np.isnan(marks["if integers multiply"][:, 0])).tolist() == integers


def test_layers_that_never_or_always_fire_are_named(tmp_path, result):
    assert "Layers that carry no information" not in rendered(tmp_path, result)
    first, second, third = list(result.firing_rates)[:3]
    rates = result.firing_rates | {
        first: np.zeros(4),
        second: np.array([0.2, 1.0, 0.0, 0.0]),
        third: np.zeros(4),
    }
    masks = {n: np.full(4, n != third) for n in rates}  # the third is switched off: no surprise
    changed = dataclasses.replace(result, firing_rates=rates, schedule=snn.TimeStepSchedule(masks))
    assert (changed.dead_layers, changed.saturated_layers) == ([first], [second])
    assert cells(page_tables.silent_and_saturated(changed)) == [
        ["layer", "fires"],
        [first, "never"],
        [second, "always, at some step"],
    ]
    assert "Layers that carry no information" in rendered(tmp_path, changed)


ODD_NAMES = [
    *("$x$", "$", "a$b$c$", "$\\frac{$", "x_1^2", "\\alpha", "%", "{}", ""),
    *("\udcff\udce9", "bell\x07", "two\nlines", "nul\0", "caf\xe9", "cafe\u0301", "x" * 300),
]


@pytest.mark.parametrize("names", [ODD_NAMES, ODD_NAMES[:3], ["\udcff"], [""]])
def test_any_name_of_a_class_can_be_drawn(names):
    with figures.style():
        figure = figures.draw_confusion(np.eye(len(names), dtype=int), names)
        assert figures.as_png(figure).startswith(b"\x89PNG")
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert shown == [figures.as_label(name) for name in names]


def test_a_label_is_the_name_as_far_as_it_can_be_shown():
    assert [figures.as_label(name) for name in ("$x$", "caf\xe9", "\u732b", "a b")] == [
        *("$x$", "caf\xe9", "\u732b", "a b"),
    ]
    assert figures.as_label("\udcff\n\0") == r"\udcff\n\x00"
    assert figures.as_label("x" * 33) == "x" * 31 + "\u2026"


def test_a_user_who_prefers_tex_gets_a_report_all_the_same():
    with matplotlib.rc_context({"text.usetex": True}), figures.style():
        figures.as_png(figures.draw_confusion(np.eye(2, dtype=int), ["a_b", "$"]))


def test_odd_names_of_classes_and_paths_do_not_end_a_run(tmp_path, result, monkeypatch):
    for name in ("schedule", "firing_rates", "energy", "curves"):  # drawn elsewhere; takes seconds
        monkeypatch.setattr(figures, f"draw_{name}", lambda *_, **__: Figure(figsize=(1, 1)))
    config = config_lib.default_config()
    config.data.dir = "/images/\udcff"
    workdir = Workdir(tmp_path)
    report.write(workdir, result, ["$a$", "\udcff", "c\n"], config, "A model", "the last")
    text = workdir.report.read_text(encoding="utf-8")
    assert r"data.dir = /images/\udcff" in text
    assert "Which classes are confused" in text
