"""The walk of docs/own_model.md, done."""

import pathlib
import re

from snnvit_jax import models, neurons

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "own_model.md"


def test_the_code_of_the_page_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 6
    names = {"__name__": "own_model_page"}
    try:
        exec(compile("\n".join(blocks), str(PAGE), "exec"), names)
    finally:
        models.FAMILIES.pop("brook", None)
        neurons.KINDS.pop("gain", None)
    printed = capsys.readouterr().out
    assert "(2, 10)" in printed
    assert "| gate |" in printed
    assert names["model"].config.neuron == names["GainNeuron"]()
    steps = names["deployed"].steps
    assert set(steps) == set(names["names"])
    assert all(set(active) <= {0, 1} for active in steps.values())
