"""TimeStepSchedule: reading, writing and imposing the masks of a model."""

import dataclasses
import json

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis.extra import numpy as hnp

import snnvit_jax as snn
from snnvit_jax.time_steps.schedule import check_time_steps_of

MASKS = {
    "patch_embed/proj_lif": [1, 1, 1, 1],
    "block_0/attn/q_lif": [1, 0, 1, 0],
    "block_0/attn/k_lif": [0, 0, 0, 1],
    "block_0/mlp/fc1_lif": [0, 0, 0, 0],
    "alone": [0, 1, 1, 1],
}


@pytest.fixture
def schedule():
    return snn.TimeStepSchedule(MASKS)


@pytest.fixture(scope="module")
def names(tiny):
    return snn.layer_names(tiny.model)


@pytest.fixture(scope="module")
def record(tiny):
    """Runs the small model: (logits, spikes of every layer)."""
    apply = jax.jit(lambda v: tiny.model.apply(v, tiny.images, mutable=["spikes"]))

    def run(variables):
        logits, seen = apply(variables)
        return np.asarray(logits), {n: np.asarray(s) for n, s in snn.spikes(seen).items()}

    return run


# ---------------------------------------------------------------- the value


def test_counts_are_those_of_the_masks(schedule):
    assert schedule.time_steps == 4
    assert schedule.layers == dict(zip(MASKS, (4, 2, 1, 0, 3), strict=True))
    assert schedule.modules == {
        "patch_embed": 4.0,
        "block_0/attn": 1.5,
        "block_0/mlp": 0.0,
        "alone": 3.0,
    }
    assert schedule.average == pytest.approx(2.0)


def test_masks_are_boolean_copies_in_the_order_given():
    mask = np.array([1, 0])
    schedule = snn.TimeStepSchedule({"b": mask, "a": [True, True]})
    mask[:] = 0
    assert list(schedule.masks) == ["b", "a"]
    assert schedule.masks["b"].dtype == bool
    assert schedule.masks["b"].tolist() == [True, False]


def test_equality_is_that_of_masks_and_names(schedule):
    assert schedule == snn.TimeStepSchedule(dict(reversed(MASKS.items())))
    assert schedule != snn.TimeStepSchedule(MASKS | {"alone": [1, 1, 1, 1]})
    assert schedule != snn.TimeStepSchedule(MASKS | {"other": [1, 1, 1, 1]})
    assert schedule != MASKS


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({}, "at least one layer"),
        ({"a": []}, r"'a'.*\[\]"),
        ({"a": 1}, "'a'.*1"),
        ({"a": [[1, 0]]}, "'a'"),
        ({"a": [1, 2]}, r"'a'.*\[1, 2\]"),
        ({"a": [0.5, 1]}, r"'a'.*0\.5"),
        ({"a": ["on", "off"]}, "'a'.*on"),
        ({"a": [1, 0], "b": [1, 0, 1]}, "'a': 2, 'b': 3"),
        ({"a": [[1], [1, 0]]}, r"'a'.*got \[\[1\], \[1, 0\]\]"),
        ({"a": [10**5000, 0]}, "'a'.*thousands of digits"),
        ({"a": None}, "'a'.*None"),
        ({"a": np.array([1, 2])}, r"'a'.*got \[1, 2\]"),
        ([[1, 0]], r"masks=\[\[1, 0\]\] must be \{layer name"),
        (None, "masks=None must be"),
    ],
)
def test_bad_masks_are_named(masks, message):
    with pytest.raises(ValueError, match=message):
        snn.TimeStepSchedule(masks)


# ---------------------------------------------------------------- JSON


@hypothesis.given(
    masks=st.dictionaries(
        st.text(min_size=1, max_size=20), hnp.arrays(bool, 3), min_size=1, max_size=5
    )
)
@hypothesis.settings(max_examples=30)
def test_json_round_trip(masks, tmp_path_factory):
    path = tmp_path_factory.mktemp("schedules") / "schedule.json"
    schedule = snn.TimeStepSchedule(masks)
    schedule.save(path)
    loaded = snn.TimeStepSchedule.load(str(path))
    assert loaded == schedule
    assert list(loaded.masks) == list(masks)


def test_file_can_be_read_by_people(schedule, tmp_path):
    schedule.save(tmp_path / "schedule.json")
    content = json.loads((tmp_path / "schedule.json").read_text())
    assert content["time_steps"] == 4
    assert content["average"] == 2.0
    assert content["modules"]["block_0/attn"] == 1.5
    assert content["masks"] == MASKS


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "1", "{}", '{"masks": [1, 0]}', '{"masks": {}}', '{"masks": {"a": 2}}']
)
def test_a_file_that_is_no_schedule_is_rejected(text, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"schedule|mask"):
        snn.TimeStepSchedule.load(path)


@pytest.mark.parametrize("content", [b"\xff\xfe{}", b"[" * 100_000, b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_text_is_named(content, tmp_path):
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.json' is not a time-step schedule"):
        snn.TimeStepSchedule.load(path)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ('{"a": [[1], [1, 0]]}', r"'a'.*\[\[1\], \[1, 0\]\]"),
        ("null", "masks=None"),
        ("{}", "at least one layer"),
        ('{"a": [2, 0]}', r"'a'.*\[2, 0\]"),
        ('{"a": [1, 0], "b": [1]}', "'a': 2, 'b': 1"),
        (f'{{"a": [{"9" * 5000}, 0]}}', "digits"),
        (f'{{"a": [{"9" * 400}, 0]}}', "'a'.*999"),
        ('{"a": [NaN, 0]}', "'a'.*nan"),
    ],
)
def test_a_file_of_bad_masks_is_named_with_layer_and_value(masks, message, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(f'{{"masks": {masks}}}')
    with pytest.raises(ValueError, match=rf"other\.json' is not a time-step schedule: .*{message}"):
        snn.TimeStepSchedule.load(path)


def test_a_file_that_is_no_schedule_is_named(tmp_path):
    path = tmp_path / "other.json"
    path.write_text('{"accuracy": 0.5}')
    with pytest.raises(ValueError, match=r"other\.json.*masks"):
        snn.TimeStepSchedule.load(path)


# ---------------------------------------------------------------- on a model


def test_model_with_positive_scores_uses_every_time_step(tiny, names):
    schedule = snn.TimeStepSchedule.from_variables(tiny.variables, names)
    assert list(schedule.layers) == names
    assert set(schedule.layers.values()) == {4}
    assert schedule.average == 4
    assert schedule == snn.TimeStepSchedule.from_variables(tiny.variables)


@pytest.mark.parametrize(
    ("names", "message"),
    [(["nowhere"], "no layer 'nowhere' with scores; there are .*block_0/"), ([], "at least one")],
)
def test_masks_are_read_of_layers_that_exist(tiny, names, message):
    with pytest.raises(ValueError, match=message):
        snn.TimeStepSchedule.from_variables(tiny.variables, names)


@hypothesis.given(masks=hnp.arrays(bool, (12, 4)))
@hypothesis.settings(max_examples=30)
@hypothesis.example(masks=np.zeros((12, 4), bool))
def test_imposed_masks_are_exactly_those_asked_for(tiny, names, masks):
    asked = snn.TimeStepSchedule(dict(zip(names, masks, strict=True)))
    variables = snn.with_schedule(tiny.variables, asked)
    got = snn.TimeStepSchedule.from_variables(variables, names)
    assert got == asked
    assert got.average == pytest.approx(masks.sum() / 12)


def test_imposing_a_schedule_changes_scores_only(tiny, names):
    asked = snn.TimeStepSchedule(dict.fromkeys(names, (0, 1, 0, 1)))
    variables = snn.with_schedule(tiny.variables, asked)
    assert jax.tree.structure(variables) == jax.tree.structure(tiny.variables)
    differing = jax.tree_util.tree_map_with_path(
        lambda path, a, b: path[-1].key if not np.array_equal(a, b) else None,
        variables,
        tiny.variables,
    )
    assert set(jax.tree.leaves(differing)) == {"time_step_score"}
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(variables)}
    assert dtypes == {np.dtype("float32")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda masks: masks.pop("block_0/mlp/fc2_lif"), r"missing \['block_0/mlp/fc2_lif'\]"),
        (
            lambda masks: masks.update({"block_1/mlp/fc2_lif": [1, 1, 1, 1]}),
            r"unexpected \['block_1/mlp/fc2_lif'\]",
        ),
        (
            lambda masks: masks.update(dict.fromkeys(masks, (1, 0, 1))),
            r"3 time steps, the model 4; schedule.resized\(4\) fits",
        ),
    ],
)
def test_a_schedule_of_another_model_is_rejected(tiny, names, change, message):
    masks = dict.fromkeys(names, (1, 0, 1, 1))
    change(masks)
    with pytest.raises(ValueError, match=message):
        snn.with_schedule(tiny.variables, snn.TimeStepSchedule(masks))


@pytest.mark.parametrize(
    "layer",
    ["patch_embed/proj_lif", "patch_embed/rpe_lif", "block_0/attn/attn_lif", "block_0/mlp/fc2_lif"],
)
def test_masked_layer_records_zeros_and_all_before_it_is_unchanged(tiny, names, record, layer):
    _, before = record(tiny.variables)
    masks = dict.fromkeys(names, (1, 1, 1, 1)) | {layer: [1, 0, 1, 0]}
    _, after = record(snn.with_schedule(tiny.variables, snn.TimeStepSchedule(masks)))
    assert before[layer][1].any()
    assert before[layer][3].any()
    assert not after[layer][[1, 3]].any()
    np.testing.assert_array_equal(after[layer][[0, 2]], before[layer][[0, 2]])
    for name in names[: names.index(layer)]:
        np.testing.assert_array_equal(after[name], before[name])


def test_a_model_without_any_active_step_is_its_output_bias(tiny, names, record):
    silent = snn.with_schedule(
        tiny.variables, snn.TimeStepSchedule(dict.fromkeys(names, (0, 0, 0, 0)))
    )
    silent["params"]["head"]["bias"] = np.float32([1, 2, 3])
    logits, spikes = record(silent)
    assert not any(emitted.any() for emitted in spikes.values())
    np.testing.assert_array_equal(logits, np.tile(np.float32([1, 2, 3]), (3, 1)))


# ---------------------------------------------------------------- another number of time steps


def at(model, time_steps):
    return type(model)(dataclasses.replace(model.config, time_steps=time_steps))


@hypothesis.given(masks=hnp.arrays(bool, (3, 4)), time_steps=st.integers(1, 9))
@pytest.mark.filterwarnings("ignore:.*become silent")
def test_a_resized_schedule_keeps_its_first_steps_and_adds_active_ones(masks, time_steps):
    schedule = snn.TimeStepSchedule(dict(zip("abc", masks, strict=True)))
    resized = schedule.resized(time_steps)
    assert list(resized.masks) == ["a", "b", "c"]
    for name, mask in resized.masks.items():
        assert mask.tolist() == [*schedule.masks[name], *[True] * 5][:time_steps]
    assert schedule.resized(4) == schedule


@pytest.mark.parametrize("time_steps", [1, 2, 3, 5, 8])
@pytest.mark.filterwarnings("ignore:.*become silent")
def test_variables_and_their_schedule_are_resized_alike(tiny, names, time_steps):
    rng = np.random.default_rng(0)
    asked = snn.TimeStepSchedule({name: rng.random(4) < 0.6 for name in names})
    variables = snn.with_schedule(tiny.variables, asked)
    resized = snn.with_time_steps(variables, time_steps)
    assert snn.TimeStepSchedule.from_variables(resized) == asked.resized(time_steps)
    model = at(tiny.model, time_steps)
    expected = jax.eval_shape(model.init, jax.random.key(0), tiny.images)
    described = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (resized, expected))
    assert described[0] == described[1]
    kept = snn.with_time_steps(snn.with_time_steps(variables, time_steps + 4), 4)
    jax.tree.map(np.testing.assert_array_equal, kept, variables)


@pytest.mark.parametrize("time_steps", [2, 6])
def test_every_layer_does_at_the_steps_kept_what_it_did(tiny, names, record, time_steps):
    asked = snn.TimeStepSchedule({n: (1, i % 2, 1, 1) for i, n in enumerate(names)})
    variables = snn.with_schedule(tiny.variables, asked)
    _, before = record(variables)
    resized = snn.with_time_steps(variables, time_steps)
    _, seen = at(tiny.model, time_steps).apply(resized, tiny.images, mutable=["spikes"])
    both = min(4, time_steps)
    for name, spikes in snn.spikes(seen).items():
        assert len(spikes) == time_steps
        np.testing.assert_array_equal(spikes[:both], before[name][:both], err_msg=name)


def test_a_layer_that_becomes_silent_is_named(tiny, names):
    masks = dict.fromkeys(names, (1, 1, 0, 0)) | {names[3]: (0, 0, 1, 1), names[5]: (0, 0, 0, 0)}
    schedule = snn.TimeStepSchedule(masks)
    message = f"1 layers have no active step among the first 2, and become silent: {names[3]}$"
    with pytest.warns(UserWarning, match=message):
        schedule.resized(2)
    with pytest.warns(UserWarning, match=message):
        snn.with_time_steps(snn.with_schedule(tiny.variables, schedule), 2)


def test_parallel_neurons_stay_with_their_time_steps():
    sizes = {"depth": 1, "embed_dim": 32, "num_heads": 1, "neuron": {"kind": "psn"}}
    model = snn.create_model("spikformer_4_256", 3, 16, 4, **sizes)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    with pytest.raises(ValueError, match=r"cannot make 2 of 4 time steps: .*time_\w+ is \[4"):
        snn.with_time_steps(variables, 2)
    jax.tree.map(np.testing.assert_array_equal, snn.with_time_steps(variables, 4), variables)


@pytest.mark.parametrize("time_steps", [0, -1, 2.0, "3", None])
def test_another_number_of_steps_must_be_one(tiny, schedule, time_steps):
    with pytest.raises(ValueError, match="must be a whole number, at least 1"):
        schedule.resized(time_steps)
    with pytest.raises(ValueError, match="must be a whole number, at least 1"):
        snn.with_time_steps(tiny.variables, time_steps)


@pytest.mark.parametrize("given", [{"a/lif": [1, 0]}, "schedule.json", None])
def test_what_is_no_schedule_is_told(tiny, given):
    with pytest.raises(ValueError, match=f"be a TimeStepSchedule, got {type(given).__name__}: Ti"):
        snn.with_schedule(tiny.variables, given)


def test_variables_of_another_number_of_steps_are_named_with_both(tiny):
    check_time_steps_of(tiny.variables, 4)
    check_time_steps_of({"params": {"layer": {"kernel": np.zeros(3)}}}, 4)
    with pytest.raises(ValueError, match="have 4 time steps, the model 6: resize.*variables, 6"):
        check_time_steps_of(tiny.variables, 6)


def test_the_type_of_scores_stays(tiny, x64):
    half = jax.tree.map(lambda leaf: leaf.astype(np.float16), tiny.variables)
    assert {leaf.dtype for leaf in jax.tree.leaves(snn.with_time_steps(half, 6))} == {
        np.dtype("float16")
    }
