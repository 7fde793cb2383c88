import pytest
from tensorflow_datasets.core import splits as tfds_splits

from snnvit_jax.data.sources.splits import Split, parse_split

SLICES = [
    "train",
    "train[:90%]",
    "train[90%:]",
    "train[33.3%:66.6%]",
    "train[25:50%]",
    "train[-10%:]",
    "train[:-5%]",
    "train[100%:]",
    "train[1:3]",
    "train[-3:]",
    "train[:-1]",
    "train[0:0]",
    "train[:1_0]",
    "val-2[2:]",
]
WRONG = [
    "",
    "[:5]",
    "train[5]",
    "train[:]",
    "train[%:]",
    "train[1:2:3]",
    "train[a:b]",
    "train[1:",
    "a+b",
]


def tfds_bounds(text, size):
    """What TensorFlow Datasets makes of a slice."""
    name = text.split("[")[0]
    info = tfds_splits.SplitInfo(name=name, shard_lengths=[size], num_bytes=0)
    (part,) = tfds_splits.AbstractSplit.from_spec(text).to_absolute({name: info})
    return name, part.from_ or 0, size if part.to is None else part.to


@pytest.mark.parametrize("size", [10, 15, 50, 1437, 1281167])
@pytest.mark.parametrize("text", SLICES)
def test_slices_mean_what_they_mean_in_tensorflow_datasets(text, size):
    split = parse_split(text)
    assert (split.name, *split.bounds(size)) == tfds_bounds(text, size)


@pytest.mark.parametrize("size", [1, 7, 10, 99, 1000])
@pytest.mark.parametrize("cut", ["1%", "50%", "90%", "12.5%", "-10%"])
def test_neighbouring_parts_share_nothing_and_miss_nothing(cut, size):
    (a, b), (c, d) = (parse_split(f"x[{part}]").bounds(size) for part in (f":{cut}", f"{cut}:"))
    assert (a, b, d) == (0, c, size)


def test_a_part_that_ends_before_it_starts_is_empty():
    assert parse_split("train[7:3]").bounds(10) == (7, 7)


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_slice_is_refused(text):
    with pytest.raises(ValueError, match="split .* must be a name, alone or with a slice"):
        parse_split(text)


@pytest.mark.parametrize("text", ["train[1.5:]", "train[:1.2.3%]"])
def test_what_is_no_number_is_named(text):
    with pytest.raises(ValueError, match=r"'1\.[25.3]+' in split .* is not a"):
        parse_split(text)


@pytest.mark.parametrize("text", ["train[:11]", "train[-11:]", "train[:101%]", "train[-100.5%:]"])
def test_places_outside_are_named(text):
    with pytest.raises(ValueError, match=r"place -?1\d+\S* lies outside split 'train' of 10"):
        parse_split(text).bounds(10)
    with pytest.raises(ValueError, match=r".*"):
        tfds_bounds(text, 10)


def test_only_a_name_is_the_whole_split():
    assert parse_split("train") == Split("train")
    assert parse_split("train").whole
    assert not parse_split("train[:100%]").whole
