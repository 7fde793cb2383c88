import pathlib
import re

import snnvit_jax as snn

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_every_public_name_exists():
    assert all(hasattr(snn, name) for name in snn.__all__)


def test_the_readme_uses_only_what_exists():
    names = set(re.findall(r"snn\.(\w+)", README.read_text()))
    assert names >= {"create_model", "spikes", "energy_report", "TimeStepSchedule"}
    assert names <= set(snn.__all__)
