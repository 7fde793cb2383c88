import jax
import jax.numpy as jnp
import numpy as np
import pytest
import two_processes

from snnvit_jax.training.mixing import Mixing, cutmix_weights, mix, mixup_weights

SIZE = (8, 12)
IMAGES = np.arange(4 * 8 * 12 * 1, dtype=np.float32).reshape(4, *SIZE, 1)
TARGETS = np.eye(4, dtype=np.float32)
SWAPPED = [1, 0, 3, 2]


@pytest.fixture(scope="module")
def mixed():
    """Returns a function: (seed, mixing, step) -> what `mix` returns, compiled once for each."""
    compiled = jax.jit(
        lambda key, step, mixing: mix(key, IMAGES, TARGETS, step, mixing), static_argnums=2
    )
    return lambda seed, mixing, step=0: jax.device_get(compiled(jax.random.key(seed), step, mixing))


@pytest.mark.parametrize(
    "mixing", [Mixing(mixup_alpha=0.8), Mixing(cutmix_alpha=1.0), Mixing(0.8, 1.0, 0.5)]
)
def test_targets_are_mixed_like_the_pixels(mixed, mixing):
    for seed in range(20):
        images, targets = mixed(seed, mixing)
        np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)
        # The share of each pixel's own image, from images that differ by a constant.
        own = 1 - (images[0] - IMAGES[0]) / (IMAGES[1] - IMAGES[0])
        np.testing.assert_allclose(own.mean(), targets[0, 0], atol=1e-5)
        np.testing.assert_allclose(images[1], own * IMAGES[1] + (1 - own) * IMAGES[0], rtol=1e-4)
        np.testing.assert_allclose(targets[1], targets[0][SWAPPED], rtol=1e-6)


def test_mixup_has_one_share_and_cutmix_a_box():
    for seed in range(20):
        key = jax.random.key(seed)
        assert len(np.unique(mixup_weights(key, SIZE, 0.5))) == 1
        weights = np.asarray(cutmix_weights(key, SIZE, 1.0))
        assert set(np.unique(weights)) <= {0.0, 1.0}
        rows, columns = np.nonzero(weights == 0)
        if rows.size:
            box = weights[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert not box.any()


def test_shares_follow_the_beta_distribution():
    keys = jax.random.split(jax.random.key(0), 4000)
    shares = jax.vmap(lambda key: mixup_weights(key, (1, 1), 0.5)[0, 0])(keys)
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)).
    assert abs(shares.mean() - 0.5) < 0.02
    assert abs(shares.var() - 1 / 8) < 0.01


def test_neighbours_are_mixed_with_each_other(mixed):
    _, targets = mixed(3, Mixing(mixup_alpha=1.0))
    share = targets[0, 0]
    np.testing.assert_allclose(targets, share * TARGETS + (1 - share) * TARGETS[SWAPPED], rtol=1e-6)


def test_mixing_can_be_off(mixed):
    off = (Mixing(), Mixing(mixup_alpha=1.0, probability=0.0))
    for mixing, step in [(m, 0) for m in off] + [(Mixing(mixup_alpha=1.0, off_step=5), 5)]:
        images, targets = mixed(0, mixing, step)
        np.testing.assert_array_equal(images, IMAGES)
        np.testing.assert_array_equal(targets, TARGETS)
    images, _ = mixed(0, Mixing(mixup_alpha=1.0, off_step=5), 4)
    assert not np.array_equal(images, IMAGES)


def test_the_share_of_batches_that_are_mixed_and_of_cutmix(mixed):
    mixing = Mixing(mixup_alpha=1.0, cutmix_alpha=1.0, cutmix_share=0.25, probability=0.5)
    counts = {"none": 0, "mixup": 0, "cutmix": 0}
    for seed in range(200):
        images, targets = mixed(seed, mixing)
        own = 1 - (images[0] - IMAGES[0]) / (IMAGES[1] - IMAGES[0])
        whole = np.isin(np.round(own, 3), (0, 1)).all()
        counts["none" if targets[0, 0] == 1 else "cutmix" if whole else "mixup"] += 1
    assert 70 < counts["none"] < 140  # boxes without a pixel count as none
    assert 10 < counts["cutmix"] < counts["mixup"]


@pytest.mark.parametrize("mixing", [Mixing(mixup_alpha=0.8), Mixing(cutmix_alpha=1.0)])
def test_all_frames_of_a_recording_are_mixed_alike(mixing):
    frames = np.stack([IMAGES, IMAGES**2 / 100], axis=1)  # B T H W C
    found, _ = mix(jax.random.key(1), frames, TARGETS, 0, mixing)
    for t in range(2):
        expected, _ = mix(jax.random.key(1), frames[:, t], TARGETS, 0, mixing)
        np.testing.assert_allclose(found[:, t], expected, rtol=1e-5)


def test_images_keep_their_type():
    images, _ = mix(
        jax.random.key(0), jnp.asarray(IMAGES, jnp.bfloat16), TARGETS, 0, Mixing(mixup_alpha=1.0)
    )
    assert images.dtype == jnp.bfloat16


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("mixing", [Mixing(mixup_alpha=0.8), Mixing(cutmix_alpha=1.0)])
def test_the_last_example_of_an_odd_batch_is_mixed_with_itself(count, mixing):
    images = np.concatenate([IMAGES, IMAGES + 0.1])[:count]
    targets = np.eye(count, 7, dtype=np.float32)
    both = jax.jit(lambda key, x, y: mix(key, x, y, 0, mixing))
    even = count // 2 * 2
    for seed in range(5):
        key = jax.random.key(seed)
        found = both(key, images, targets)
        # To the last bit: nothing was done to it.
        for x, before in zip(found, (images, targets), strict=True):
            assert x.shape == before.shape
            np.testing.assert_array_equal(x[even:], before[even:])
        if even:
            expected = both(key, images[:even], targets[:even])
            for x, y in zip(found, expected, strict=True):
                np.testing.assert_allclose(x[:even], y, rtol=1e-6)


def test_the_same_images_are_mixed_on_several_devices():
    differences = two_processes.told_by("mixing_on_devices.py", devices=4)
    assert differences.keys() == {"1", "2", "3"}
    assert max(differences.values()) < 1e-6


@pytest.mark.parametrize("alpha", [1e-6, 1e-3, 1e6])
def test_shares_of_the_most_extreme_distributions_are_numbers(alpha):
    keys = jax.random.split(jax.random.key(0), 100)
    shares = jax.vmap(lambda key: mixup_weights(key, (1, 1), alpha)[0, 0])(keys)
    assert ((shares >= 0) & (shares <= 1)).all()


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((f"{kind}_alpha", x) for kind in ("mixup", "cutmix") for x in (-0.1, NAN, INF, 1e-9)),
        *((name, x) for name in ("cutmix_share", "probability") for x in (-0.1, 2, NAN)),
        *((name, x) for name in ("mixup_alpha", "probability") for x in (None, "1", True, (1,))),
        *(("off_step", x) for x in (-1, 0.5, NAN, "1")),
    ],
)
def test_bad_values_are_named(name, value):
    with pytest.raises(ValueError) as error:
        Mixing(**{name: value})
    assert str(error.value).startswith(f"mixing.{name}={value!r} must be ")


def test_the_box_of_cutmix_has_its_area_where_nothing_sticks_out():
    # lambda is 1/2: 11 pixels on both sides of the centre, of which at least one side lies inside.
    keys = jax.random.split(jax.random.key(0), 20)
    pasted = [int((cutmix_weights(key, (32, 32), 1e6) == 0).sum()) for key in keys]
    assert all(11 * 11 <= area <= 22 * 22 for area in pasted)
    assert max(pasted) > 17 * 17
