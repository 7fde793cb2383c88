import itertools
import multiprocessing

import numpy as np
import pytest

from snnvit_jax.data import loader, sources
from snnvit_jax.data.decode import DamagedImage
from snnvit_jax.data.order import TrainingOrder, permutation

SHAPE = (2, 2, 1)


class Examples:
    """Ten images, each filled with its own number; some of them damaged."""

    def __init__(self, damaged=()):
        self.damaged = damaged

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if index in self.damaged:
            raise DamagedImage(f"record {index} is truncated")
        return {"image": np.full(SHAPE, index, np.uint8), "label": index}


def make_source(damaged=(), classes=10):
    return sources.Source(Examples(damaged), tuple(map(str, range(classes))), "train")


def augment(example, rng):
    noise = np.float32(rng.random())
    return {"image": example["image"] + noise, "label": np.int32(example["label"])}


def preprocess(example):
    return {"image": example["image"].astype(np.float32), "label": np.int32(example["label"])}


def take(count, source=None, *, batch_size=3, seed=0, repeats=1, start_step=0, **options):
    options = loader.LoaderOptions(batch_size, SHAPE, **options)
    with loader.train_batches(
        source or make_source(), augment, options, seed=seed, repeats=repeats, start_step=start_step
    ) as batches:
        return list(itertools.islice(batches, count))


def evaluate(source, **options):
    options = loader.LoaderOptions(**{"image_shape": SHAPE} | options)
    with loader.eval_batches(source, preprocess, options) as batches:
        return list(batches)


def assert_same(a, b):
    for left, right in zip(a, b, strict=True):
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name])


def marked(example, rng):
    rectangle = np.full(4, 1 + example["label"], np.int32)
    return {"image": example["image"], "label": np.int32(example["label"]), "erased": rectangle}


@pytest.mark.parametrize("on_damaged", ["fatal", "skip"])
def test_batches_hold_whole_numbers_and_what_is_to_be_erased(on_damaged):
    options = loader.LoaderOptions(5, SHAPE, 0, on_damaged, dtype="uint8", erasing=True)
    source = make_source(() if on_damaged == "fatal" else (2,))
    with loader.train_batches(source, marked, options, seed=0) as batches:
        for batch in itertools.islice(batches, 4):
            assert (batch["image"].dtype, batch["erased"].dtype) == (np.uint8, np.int32)
            np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["label"])
            np.testing.assert_array_equal(batch["erased"], 1 + batch["label"][:, None].repeat(4, 1))


def test_a_damaged_image_is_named_among_examples_to_be_erased():
    options = loader.LoaderOptions(5, SHAPE, dtype="uint8", erasing=True)
    with (
        pytest.raises(DamagedImage, match="record 7 is truncated"),
        loader.train_batches(make_source((7,)), marked, options, seed=0) as batches,
    ):
        list(itertools.islice(batches, 2))


def labels(batches):
    return np.concatenate([batch["label"] for batch in batches])


def test_every_epoch_sees_every_example_once():
    seen = labels(take(20))  # six epochs of ten examples, in batches of three
    for epoch in seen.reshape(6, 10):
        assert sorted(epoch) == list(range(10))
    assert not np.array_equal(seen[:10], seen[10:20])


def test_augmentation_depends_on_seed_epoch_and_example_only():
    by_epoch = take(20)
    noise = [b["image"][:, 0, 0, 0] % 1 for b in by_epoch]
    assert len(set(np.concatenate(noise).tolist())) == 60
    # The second epoch again, taken by other batches.
    images = np.concatenate([b["image"] for b in take(4, batch_size=5)])[10:20]
    np.testing.assert_array_equal(np.concatenate([b["image"] for b in by_epoch])[10:20], images)


def test_another_seed_gives_another_order():
    assert not np.array_equal(labels(take(4)), labels(take(4, seed=1)))


@pytest.mark.parametrize(
    ("start", "workers"),
    [(1, 0), (3, 0), (8, 0), (10, 0), (5, 0), (5, 2), pytest.param(5, 4, marks=pytest.mark.slow)],
)
def test_resuming_continues_where_it_stopped_with_any_number_of_workers(start, workers):
    assert_same(take(12)[start:], take(12 - start, start_step=start, workers=workers))


@pytest.mark.parametrize(("start", "workers"), [(0, 0), (3, 0), (8, 2)])
def test_substitutes_are_the_same_after_resuming_with_any_number_of_workers(start, workers):
    source = make_source(damaged=(1, 2, 7, 8, 9))
    options = {"batch_size": 4, "on_damaged": "skip"}
    whole = take(12, source, **options)
    assert any(batch["replaced"].any() for batch in whole[start:])
    rest = take(12 - start, source, start_step=start, workers=workers, **options)
    assert_same(whole[start:], rest)


@pytest.mark.parametrize("processes", [2, 3, 6])
@pytest.mark.parametrize("damaged", [(), (1, 2, 7, 8, 9)])
def test_processes_share_every_batch_without_overlap(processes, damaged):
    source, options = make_source(damaged), {"batch_size": 6, "on_damaged": "skip"}
    whole = take(10, source, **options)
    parts = [take(10, source, shard=(i, processes), **options) for i in range(processes)]
    joined = [
        {name: np.concatenate([part[name] for part in step]) for name in step[0]}
        for step in zip(*parts, strict=True)
    ]
    assert_same(whole, joined)


def test_repeated_augmentation_takes_an_example_several_times_but_never_next_to_itself():
    batches = take(10, batch_size=5, repeats=2)
    a, b, c, d = np.moveaxis(labels(batches).reshape(5, 10)[:, :8].reshape(5, 2, 4), -1, 0)
    assert (a == c).all()
    assert (b == d).all()
    assert (a != b).all()
    images = np.concatenate([b["image"] for b in batches])
    assert len(np.unique(images[:, 0, 0, 0])) == 50
    order = TrainingOrder(Examples(), augment, seed=0, repeats=3)
    assert [order.place(p)[2] for p in range(10)] == [0, 0, 1, 1, 2, 2, 0, 0, 1, 1]


def test_permutations_are_of_their_seed_and_epoch():
    assert sorted(permutation(3, 5, 7)) == list(range(7))
    assert len({tuple(permutation(seed, epoch, 7)) for seed in (0, 1) for epoch in (0, 1)}) == 4


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 16])
@pytest.mark.parametrize("processes", [1, 2])
def test_evaluation_sees_every_example_once(batch_size, processes):
    batch_size *= processes
    parts = [
        evaluate(make_source(), batch_size=batch_size, shard=(i, processes))
        for i in range(processes)
    ]
    assert len({len(batches) for batches in parts}) == 1
    batches = [batch for part in parts for batch in part]
    assert all(len(batch["label"]) == batch_size // processes for batch in batches)
    seen = np.concatenate([batch["image"][batch["mask"], 0, 0, 0] for batch in batches])
    np.testing.assert_array_equal(np.sort(seen), np.arange(10))


def test_a_damaged_image_is_fatal_and_named_by_default():
    with pytest.raises(DamagedImage, match=r"record 7 is truncated; remove it, or set data"):
        take(4, make_source(damaged=(7,)))
    with pytest.raises(DamagedImage, match="record 9 is truncated"):
        evaluate(make_source(damaged=(9,)), batch_size=4)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_damaged_image_that_is_skipped_leaves_a_gap_in_evaluation(workers, caplog):
    source = make_source(damaged=(2, 7))
    batches = evaluate(source, batch_size=4, on_damaged="skip", workers=workers)
    mask = np.concatenate([b["mask"] for b in batches])
    assert sorted(labels(batches)[mask]) == [0, 1, 3, 4, 5, 6, 8, 9]
    assert not np.concatenate([b["image"] for b in batches])[~mask].any()
    assert "skipped: record 7 is truncated" in caplog.text


@pytest.mark.parametrize("workers", [0, 2])
def test_training_batches_have_another_example_in_place_of_a_damaged_one(workers, caplog):
    options = {"batch_size": 5, "workers": workers, "on_damaged": "skip"}
    batches = take(10, make_source(damaged=(2, 7)), **options)
    whole = take(10, batch_size=5)
    for epoch in range(5):
        parts = batches[2 * epoch : 2 * epoch + 2]
        replaced = np.concatenate([b["replaced"] for b in parts])
        assert replaced.sum() == 2
        own = labels(whole[2 * epoch : 2 * epoch + 2])
        assert set(own[replaced]) == {2, 7}
        np.testing.assert_array_equal(labels(parts)[~replaced], own[~replaced])
        assert not {2, 7} & set(labels(parts))
    # No image twice, not even where an example comes twice in an epoch.
    assert len(np.unique(np.concatenate([b["image"][:, 0, 0, 0] for b in batches]))) == 50
    assert caplog.text.count("skipped: record 7 is truncated; example ") == 5


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_training_ends_if_nothing_can_be_read_in_place_of_a_damaged_image(workers):
    options = {"batch_size": 5, "workers": workers, "on_damaged": "skip"}
    message = r"record \d is truncated; in its place, none of 10 other examples can be read either"
    with pytest.raises(DamagedImage, match=message):
        take(1, make_source(damaged=range(10)), **options)


def test_a_batch_larger_than_the_source_is_refused():
    with pytest.raises(ValueError, match="batch_size=11 is larger than the 10 examples of split"):
        take(1, batch_size=11)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 3, "shard": (0, 2)}, "batch_size=3 must be divisible by the 2 processes"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 2, "on_damaged": "ignore"}, "on_damaged='ignore'"),
    ],
)
def test_options_that_do_not_fit_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        loader.LoaderOptions(image_shape=SHAPE, **options)


def test_a_label_outside_the_classes_is_named():
    with pytest.raises(ValueError, match=r"label \d lies outside the 5 classes"):
        take(1, make_source(classes=5), batch_size=10)


def test_a_worker_process_that_dies_is_told_apart_from_bad_input():
    options = loader.LoaderOptions(3, SHAPE, workers=1)
    with loader.train_batches(make_source(), augment, options, seed=0) as batches:
        next(batches)
        for child in multiprocessing.active_children():
            child.kill()
        with pytest.raises(loader.WorkerDiedError, match="a process that prepares batches died"):
            for _ in batches:
                pass
