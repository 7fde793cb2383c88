"""What a training says beside its numbers."""

import pytest

from snnvit_jax.config import default_config
from snnvit_jax.runs.remarks import Remarks


def said(norms, clip_norm=None, total_steps=0):
    """Returns [(line, remark)] of a training whose lines have these gradient norms."""
    config = default_config()
    config.optimizer.clip_norm = clip_norm
    config.batch_size = 64
    remarks = Remarks(config, total_steps)
    values = [{"gradient_norm": norm, "images_per_second": 8.0} for norm in norms]
    return [(i, text) for i, line in enumerate(values) for text in remarks.on(i, line)]


def test_the_time_left_is_told_once_from_the_second_line():
    assert said([1.0] * 9, total_steps=101) == [
        (1, "about 13 min of training left, besides evaluations")
    ]


@pytest.mark.parametrize("before", [5, 30, 200])
def test_a_gradient_that_explodes_is_told_with_what_limits_it(before):
    norms = [*[1.0, 2.0, 3.0, 2.0, 2.0] * (before // 5), 60440.0, 2.0]
    (line, warning), (same, hint) = said(norms)
    assert line == same == before
    assert "a gradient norm of 6.04e+04, where 2 is usual" in warning
    assert "--config.optimizer.clip_norm=20" in hint


@pytest.mark.parametrize(
    ("norms", "clip_norm"),
    [
        ([1.0] * 4 + [1e6], None),  # nothing is usual yet
        ([1.0] * 9 + [99.0], None),
        ([1.0] * 9 + [1e6], 10.0),
        ([0.0] * 9 + [1e6], None),
        ([], None),
    ],
)
def test_nothing_is_said_otherwise(norms, clip_norm):
    assert not said(norms, clip_norm)
