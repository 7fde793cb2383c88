"""What experiments/benchmarks measures, and how it is told."""

import argparse
import ast
import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import pytest

import snnvit_jax as snn
from snnvit_jax.models.registry import FAMILIES, family_of

FOLDER = pathlib.Path(__file__).parents[1] / "experiments" / "benchmarks"


@pytest.fixture
def scripts(monkeypatch):
    """The modules peers, peer_cases and peer_tables, imported as the script does."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import peer_cases
    import peer_tables
    import peers

    return argparse.Namespace(peers=peers, cases=peer_cases, tables=peer_tables)


def all_cases(scripts):
    return [case for cases in scripts.cases.CASES.values() for case in cases]


def test_every_family_is_measured(scripts):
    own = {f.name for f in FAMILIES.values() if f.module.__module__.startswith("snnvit_jax.")}
    assert {family_of(case.model).name for case in scripts.cases.CASES["families"]} == own


def test_every_case_is_a_model_that_reads_its_images(scripts):
    for case in all_cases(scripts):
        size = case.image_size
        model = snn.create_model(case.model, 10, size, case.time_steps, **case.overrides)
        start = functools.partial(model.init_with_output, jax.random.key(0))
        logits, _ = jax.eval_shape(start, jnp.zeros((case.batch_size, size, size, 3)))
        assert logits.shape == (case.batch_size, 10)


def test_what_is_measured_beside_spikingjelly_is_what_it_has(scripts):
    tree = ast.parse((FOLDER / "spikingjelly_models.py").read_text())
    (table,) = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and node.targets[0].id == "PEERS"
    ]
    has = {key.value for key in table.keys}
    assert {case.model for case in all_cases(scripts) if not case.alone} == has
    assert not has & {case.model for case in all_cases(scripts) if case.alone}


def result(model, seconds, parameters, alone=False):
    """What `peers.run` returns, of made-up times {side: [seconds]}, twice as long in training."""
    training = {side: [2 * time for time in times] for side, times in seconds.items()}
    return {
        "case": {"model": model, "image_size": 32, "batch_size": 4, "alone": alone},
        "parameters": parameters,
        "flops": {"evaluation": 1e12, "training": 3e12},
        "seconds": {"evaluation": seconds, "training": training},
        "megabytes": {task: dict.fromkeys(seconds, 1500.0) for task in ("evaluation", "training")},
        "errors": {},
    }


def test_one_table_has_medians_and_ratios_of_neighbours(scripts):
    # Medians 2 and 4; neighbouring repetitions 3, 2 and 1.
    both = {"snnvit_jax": [1.0, 2.0, 5.0], "SpikingJelly": [3.0, 4.0, 5.0]}
    alone = {"snnvit_jax": [0.5, 0.25, 0.75]}
    text = scripts.tables.of_all(
        [
            result("both", both, {"snnvit_jax": 1200, "SpikingJelly": 1100}),
            result("alone", alone, {"snnvit_jax": 7}, alone=True),
        ]
    )
    lines = text.splitlines()
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == [
        *("`both`", "32", "1,200 / 1,100", "2.00 / 4.00", "2.00", "1.00 to 3.00"),
        *("4.00 / 8.00", "2.00", "1.00 to 3.00", "1.50 / 1.50"),
    ]
    assert [cell.strip() for cell in lines[3].strip("|").split("|")] == [
        *("`alone`", "32", "7", "0.50", "", "", "1.00", "", "", "1.50"),
    ]
    assert len({line.count("|") for line in lines}) == 1


def test_the_table_of_a_case_has_rates_and_errors(scripts):
    found = result("both", {"snnvit_jax": [2.0], "SpikingJelly": [3.0]}, {})
    found["errors"]["SpikingJelly, compiled"] = "no compiler"
    lines = scripts.tables.of_case(found).splitlines()
    cells = [cell.strip() for cell in lines[3].strip("|").split("|")]
    assert cells[1:] == ["SpikingJelly", "3 s", "1.333", "0.333", "1500 MB", "1.50", "1.50 to 1.50"]
    assert lines[-1] == "SpikingJelly, compiled failed: no compiler"


def test_a_worker_answers_with_times_and_errors(scripts):
    tiny = scripts.cases.TINY
    case = scripts.cases.Case(
        "sdt_2_256", 8, 2, "float32", 1, time_steps=1, overrides=tiny, alone=True
    )
    options = argparse.Namespace(device="smoke", timeout=300, peer_python=None, repetitions=1)
    found = scripts.peers.run(case, options)
    assert found["errors"] == {}
    assert set(found["seconds"]) == set(scripts.tables.TASKS)
    for task in scripts.tables.TASKS:
        assert len(found["seconds"][task]["snnvit_jax"]) == 1
        assert found["seconds"][task]["snnvit_jax"][0] > 0
        assert found["megabytes"][task]["snnvit_jax"] > 50
    model = snn.create_model(case.model, 10, 8, 1, **tiny)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    leaves = jax.tree.leaves(variables["params"])
    scores = sum(leaf.size for leaf in leaves if leaf.shape == (1,))
    assert found["parameters"]["snnvit_jax"] == sum(leaf.size for leaf in leaves) - scores
    unknown = dataclasses.replace(case, model="sdt_2_257")
    assert "sdt_2_257" in scripts.peers.run(unknown, options)["errors"]["snnvit_jax"]
