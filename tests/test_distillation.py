import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import snnvit_jax as snn
from snnvit_jax import training
from snnvit_jax.evaluation import metrics
from snnvit_jax.runs import config as config_lib
from snnvit_jax.runs import teachers
from snnvit_jax.training.distillation import Distillation
from snnvit_jax.training.mixing import Mixing

RNG = np.random.default_rng(0)
LOGITS, TEACHER = RNG.normal(size=(2, 5, 7)).astype(np.float32)
LABELS = np.array([0, 1, 2])


def log_softmax(x):
    return x - np.log(np.sum(np.exp(x), axis=-1, keepdims=True))


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_loss_is_that_of_the_paper(weight, temperature):
    losses = RNG.uniform(size=5)
    targets = np.exp(log_softmax(TEACHER / temperature))
    following = -np.sum(targets * log_softmax(LOGITS / temperature), axis=1)
    expected = (1 - weight) * losses + weight * temperature**2 * following
    found = Distillation(None, weight, temperature).losses(losses, LOGITS, TEACHER / temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_teacher_is_followed_by_default_as_runs_follow_theirs():
    given, followed = config_lib.default_config().distillation, Distillation(None)
    assert followed == Distillation(None, given.weight, given.temperature)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_a_student_that_says_what_its_teacher_says_is_left_alone(temperature):
    followed = Distillation(None, 1.0, temperature)
    total = lambda x: jnp.sum(followed.losses(0, x, LOGITS / temperature))  # noqa: E731
    np.testing.assert_allclose(jax.grad(total)(LOGITS), 0, atol=1e-5)
    # High temperatures: the gradient is the difference of the logits, centred (eq. 4).
    wide = Distillation(None, 1.0, 1e3)
    gradient = jax.grad(lambda x: jnp.sum(wide.losses(0, x, TEACHER / 1e3)))(LOGITS)
    difference = LOGITS - TEACHER
    centred = difference - difference.mean(1, keepdims=True)
    np.testing.assert_allclose(gradient, centred / 7, rtol=0.02, atol=2e-3)


@pytest.mark.parametrize(
    ("values", "message"),
    [((-0.1, 1), "weight=-0.1"), ((1.1, 1), "weight=1.1"), ((0.5, 0), "temperature=0")],
)
def test_values_out_of_range_are_named(values, message):
    with pytest.raises(ValueError, match=f"distillation.{message}"):
        Distillation(None, *values)
    config = config_lib.default_config()
    config.distillation.weight, config.distillation.temperature = map(float, values)
    with pytest.raises(ValueError, match=f"distillation.{message}"):
        config_lib.validate(config)


@pytest.fixture(scope="module")
def teacher(tiny, lively):
    """A ReLU network of the same shapes, and its variables."""
    sizes = {"embed_dim": 32, "num_heads": 2, "depth": 1, "neuron": {"kind": "relu"}}
    model = snn.create_model("spikformer_2_384", 3, image_size=16, time_steps=1, **sizes)
    return model, lively(model)


def step(tiny, distilled, teacher_variables=None, **options):
    procedure = training.Procedure(tiny.model, optax.sgd(0.1), distillation=distilled, **options)
    state = training.state_from_variables(procedure, jax.tree.map(jnp.array, tiny.variables))
    images = np.concatenate([tiny.images, tiny.images[:1]])
    batch = {"image": images, "label": np.append(LABELS, 0)}
    state, seen = training.train_step(state, batch, teacher_variables, procedure=procedure)
    return state, metrics.means(jax.device_get(seen))


def difference(a, b):
    return sum(jax.tree.leaves(jax.tree.map(lambda x, y: float(jnp.sum(jnp.abs(x - y))), a, b)))


def test_a_student_follows_as_far_as_it_is_told(tiny, teacher):
    model, variables = teacher
    alone, seen_alone = step(tiny, None)
    half, seen = step(tiny, Distillation(model, 0.5), variables)
    none, _ = step(tiny, Distillation(model, 0.0), variables)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), none, alone)
    assert difference(half.params, alone.params) > 1e-3
    # The teacher is not kept with the student, and the loss reported is still that of the labels.
    assert jax.tree.structure(half) == jax.tree.structure(alone)
    assert seen["loss"] == pytest.approx(seen_alone["loss"], rel=1e-6)
    assert 0 <= seen["teacher_agreement"] <= 1
    assert "teacher_agreement" not in seen_alone


def test_a_teacher_sees_the_mixed_images(tiny, teacher, monkeypatch):
    seen = []
    spy = lambda self, variables, images: (  # noqa: E731
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), images),
        jnp.zeros((len(images), 3)),
    )[1]
    monkeypatch.setattr(Distillation, "logits", spy)
    step(tiny, Distillation(teacher[0], 0.4), teacher[1], mixing=Mixing(mixup_alpha=1.0))
    jax.effects_barrier()
    (images,) = seen
    assert images.shape == (4, 16, 16, 3)
    assert not any(np.array_equal(images[i], tiny.images[i]) for i in range(3))


def test_folders_that_hold_no_teacher_are_named(tmp_path):
    config = config_lib.default_config()
    with pytest.raises(FileNotFoundError, match="distillation.teacher='/nowhere' does not exist"):
        teachers.read_config("/nowhere", config.data)
    with pytest.raises(ValueError, match=f"distillation.teacher='{tmp_path}' holds no run"):
        teachers.read_config(str(tmp_path), config.data)
    (tmp_path / "config.json").write_text(config_lib.to_json(config))
    assert teachers.read_config(str(tmp_path), config.data) == config
    others = {"image_size": 48, "mean": (0.1, 0.2, 0.3), "std": (0.5,)}
    others |= {"events.split_by": "time", "events.sum_channel": True}
    for key, value in others.items():
        other = config_lib.default_config()
        other.data.update_from_flattened_dict({key: value})
        with pytest.raises(ValueError, match=f"sees other images .* data.{key}="):
            teachers.read_config(str(tmp_path), other.data)


def test_a_teacher_of_images_of_other_colours_is_refused(teacher):
    model, variables = teacher
    teachers.check_shapes("run", variables, snn.models.variable_shapes(model, (16, 16, 3)), None)
    grey = snn.models.variable_shapes(model, (16, 16, 1))
    message = (
        r"teacher='run' was not trained on images of \(16, 16, 1\): .*proj_conv.*\(3, 3, 3, 4\)"
    )
    with pytest.raises(ValueError, match=message):
        teachers.check_shapes("run", variables, grey, (16, 16, 1))
