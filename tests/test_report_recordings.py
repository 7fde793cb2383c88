from unittest import mock

import numpy as np
import pytest
from matplotlib.figure import Figure

from snnvit_jax.report import figures, page, recordings, report
from snnvit_jax.runs.config import default_config
from snnvit_jax.runs.workdir import Workdir


def test_a_pixel_is_white_orange_green_or_both():
    frames = np.zeros((2, 2, 2))
    frames[0, 0, 0] = frames[0, 1, 1] = 3
    frames[1, 1] = 3
    colours = recordings.frame_colours(frames)
    np.testing.assert_array_equal(colours[1, 0], [1, 1, 1])
    assert colours[0, 0].argmax() == 1  # green
    assert colours[0, 1].argmax() == 0  # orange
    assert (colours[1, 1] <= np.minimum(colours[0, 0], colours[0, 1])).all()
    assert (recordings.frame_colours(np.zeros((4, 4, 2))) == 1).all()


def test_more_events_are_darker():
    shades = recordings.frame_colours(np.array([[0, 0], [0, 1], [0, 2], [0, 5]])).sum(-1)
    assert (np.diff(shades) < 0).all()


@pytest.mark.parametrize(("time_steps", "drawn"), [(1, 1), (10, 10), (16, 10)])
@pytest.mark.parametrize("channels", [2, 3])
def test_every_recording_has_a_row_of_frames(time_steps, drawn, channels):
    counts = np.random.default_rng(0).integers(5, size=(3, time_steps, 8, 12, channels))
    figure = recordings.draw_recordings(counts, "abc")
    assert len(figure.axes) == 3 * drawn
    titles = [axes.get_title() for axes in figure.axes[:drawn]]
    assert titles[0] == "1"
    assert titles[-1] == str(time_steps)
    assert figures.as_png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("shown", [True, False])
def test_the_page_shows_recordings_where_there_are_any(tmp_path, monkeypatch, shown):
    names = ("schedule", "firing_rates", "energy", "curves", "confusion")
    for name in names:  # tested elsewhere
        monkeypatch.setattr(figures, f"draw_{name}", lambda *_, **__: Figure(figsize=(1, 1)))
    monkeypatch.setattr(page, "render", lambda result, images, *_: " ".join(sorted(images)))
    some = np.ones((2, 3, 4, 4, 2)), ("$a$", "b")
    workdir, result = Workdir(tmp_path), mock.MagicMock()
    result.energy.to_json.return_value = "{}"
    report.write(workdir, result, ["a"], default_config(), "A model", "it", some if shown else None)
    assert (tmp_path / "recordings.png").exists() == shown
    assert ("recordings" in workdir.report.read_text()) == shown


def test_the_page_has_a_place_for_recordings():
    assert "recordings" in page.ADDED
    assert set(page.ADDED) <= set(page.FIGURES)
