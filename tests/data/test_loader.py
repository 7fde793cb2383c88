import itertools

import numpy as np
import pytest

from snnvit_jax.data import loader, sources


def make_source(count=10, classes=10):
    examples = [
        {"image": np.full((2, 2, 1), i, np.uint8), "label": i % classes} for i in range(count)
    ]
    return sources.Source(examples, tuple(map(str, range(classes))), "train")


def augment(example, rng):
    noise = np.float32(rng.random())
    return {"image": example["image"] + noise, "label": np.int32(example["label"])}


def preprocess(example):
    return {"image": example["image"].astype(np.float32), "label": np.int32(example["label"])}


def take(count, **options):
    options = {"batch_size": 3, "seed": 0} | options
    with loader.train_batches(make_source(), augment, **options) as batches:
        return list(itertools.islice(batches, count))


def assert_same(a, b):
    for left, right in zip(a, b, strict=True):
        np.testing.assert_array_equal(left["label"], right["label"])
        np.testing.assert_array_equal(left["image"], right["image"])


def test_an_epoch_sees_no_example_twice():
    for epoch in range(3):
        labels = np.concatenate([b["label"] for b in take(3, start_step=3 * epoch)])
        assert len(set(labels)) == 9


def test_epochs_differ_in_order_and_augmentation():
    first, second = take(6)[:3], take(6)[3:]
    labels = [np.concatenate([b["label"] for b in part]) for part in (first, second)]
    assert not np.array_equal(*labels)
    noise = [
        {float(x % 1) for b in part for x in b["image"][:, 0, 0, 0]} for part in (first, second)
    ]
    assert not noise[0] & noise[1]


def test_the_same_seed_gives_the_same_batches_and_another_one_others():
    assert_same(take(7), take(7))
    assert not np.array_equal(take(1)[0]["image"], take(1, seed=1)[0]["image"])


@pytest.mark.parametrize("start", [0, 1, 3, 8])
def test_resuming_continues_where_it_stopped(start):
    assert_same(take(12)[start:], take(12 - start, start_step=start))


def test_worker_processes_give_the_same_batches():
    assert_same(take(5), take(5, workers=2))


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 16])
def test_evaluation_sees_every_example_once(batch_size):
    with loader.eval_batches(make_source(), preprocess, batch_size=batch_size) as batches:
        batches = list(batches)
    assert all(len(batch["label"]) == batch_size for batch in batches)
    seen = np.concatenate([batch["image"][batch["mask"], 0, 0, 0] for batch in batches])
    np.testing.assert_array_equal(seen, np.arange(10))


def test_a_batch_larger_than_the_source_is_refused():
    with pytest.raises(ValueError, match="batch_size=11 is larger than the 10 examples of split"):
        take(1, batch_size=11)


def test_a_label_outside_the_classes_is_named():
    source = make_source(classes=10)
    source = sources.Source(source.examples, source.class_names[:5], "train")
    with (
        pytest.raises(ValueError, match=r"label \d lies outside the 5 classes"),
        loader.train_batches(source, augment, batch_size=10, seed=0) as batches,
    ):
        next(batches)
