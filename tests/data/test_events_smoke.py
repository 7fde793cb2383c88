"""The short forms of the recipes for event cameras, on recordings made here: they give steps up."""

import itertools

import event_files
import numpy as np
import pytest

from snnvit_jax import recipes
from snnvit_jax.data.sources.events.recording import Events
from snnvit_jax.runs import loop

SIDE = 128
FORMS = [
    pytest.param(
        data, name, marks=[] if (data, name) == ("dvs_gesture", "sdt") else pytest.mark.slow
    )
    for data in ("dvs_gesture", "cifar10_dvs")
    for name in recipes.event_variants(data)
]


def recording(quarter, seed):
    """Events in one quarter of the sensor, which is what a class is here."""
    rng = np.random.default_rng(seed)
    y, x = (half * SIDE // 2 + rng.integers(SIDE // 2, size=2000) for half in divmod(quarter, 2))
    t = np.sort(rng.integers(200_000, size=2000))
    return Events(t, x, y, rng.integers(2, size=2000))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Eight recordings of each of four classes in each split: as many as a smoke form takes."""
    root = tmp_path_factory.mktemp("recordings")
    places = itertools.product(("train", "test"), range(4), range(8))
    for seed, (split, quarter, index) in enumerate(places):
        path = root / split / f"class_{quarter}" / f"{index}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(event_files.events_npz(recording(quarter, seed)))
    return root


@pytest.mark.parametrize(("data", "name"), FORMS)
def test_a_smoke_form_trains_to_its_end_and_gives_steps_up(data, name, root, tmp_path):
    config = recipes.published_events(data, f"{name}:smoke", default=name)
    config.data.dir = str(root)
    run = loop.Run(config, tmp_path / "work")
    summary = run.train()
    assert np.isfinite(summary["loss"])
    assert summary["average_time_steps"] < config.model.time_steps
    assert (tmp_path / "work" / "report.html").exists()
