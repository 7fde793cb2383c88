"""PyTorch checkpoints: what is read, which weights are taken, and what damage does."""

import contextlib
import pathlib
import pickle
import struct
import warnings
import zipfile

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch_files

from snnvit_jax.weights import torch_file
from snnvit_jax.weights.torch_archive import read_content

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "torch_checkpoint.pth"
WHOLE = np.arange(6, dtype=np.float32).reshape(2, 3)
OTHER = WHOLE + 10


def read(path, **options):
    """A state dict, while every warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return torch_file.read_state_dict(path, **options)


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_tensors_arrive_by_name(tmp_path, compression):
    arrays = {"a": WHOLE, "b": np.arange(3), "c": np.float32(7)}
    path = torch_files.write_arrays(tmp_path / "x.pth", arrays, compression=compression)
    assert_same(read(path), arrays)


def test_double_precision_becomes_single(tmp_path):
    path = torch_files.write_arrays(tmp_path / "x.pth", {"a": WHOLE.astype(np.float64)})
    assert_same(read(path), {"a": WHOLE})


@pytest.mark.parametrize(("order", "sign"), [(b"big", ">"), (b"little", "<")])
def test_numbers_of_either_byte_order_are_read(tmp_path, order, sign):
    content = {}
    for name, array in {"a": WHOLE, "b": np.arange(3)}.items():
        stored = torch_files.Storage(name, array)
        content[name] = torch_files.tensor(name, array)
        bits = array.astype(array.dtype.newbyteorder(sign)).view(array.dtype)
        stored = torch_files.Storage(name, bits)
        content[name].arguments = (stored, *content[name].arguments[1:])
    path = torch_files.write(tmp_path / "x.pth", content, byteorder=order)
    assert_same(read(path), {"a": WHOLE, "b": np.arange(3)})


def test_an_unknown_byte_order_is_refused(tmp_path):
    path = torch_files.write_arrays(tmp_path / "x.pth", {"a": WHOLE}, byteorder=b"middle")
    with pytest.raises(ValueError, match="unknown byte order b'middle'"):
        read(path)


def test_objects_of_other_classes_do_not_matter(tmp_path):
    Named, Call = torch_files.Named, torch_files.Call
    enum = Call(Named("somewhere", "Colour"), 1)
    content = {
        "state_dict": {"a": torch_files.tensor("0", WHOLE)},
        "args": Call(Named("argparse", "Namespace")),
        "keys": {enum: 1, Named("torch", "float32"): 2},
        "loss": torch_files.tensor("1", np.float32(0.5)),
    }
    assert_same(read(torch_files.write(tmp_path / "x.pth", content)), {"a": WHOLE})


def test_a_missing_file_is_no_damage(tmp_path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "x.pth")
    with pytest.raises(IsADirectoryError):
        read(tmp_path)


# ---------------------------------------------------------------- which weights are taken


def several(path, *keys):
    """A file with other weights under each key: a = 0, 1, 2, ..."""
    arrays = [np.full(2, i, np.float32) for i in range(len(keys))]
    content = {
        k: {"a": torch_files.tensor(k, array)} for k, array in zip(keys, arrays, strict=True)
    }
    return torch_files.write(path, content | {"epoch": 3})


@pytest.mark.parametrize("key", torch_file.TRAINED_KEYS + torch_file.AVERAGED_KEYS)
def test_weights_are_found_under_every_key(tmp_path, key):
    assert_same(read(several(tmp_path / "x.pth", key)), {"a": np.zeros(2, np.float32)})


@pytest.mark.parametrize(
    ("keys", "taken"),
    [
        (("state_dict", "state_dict_ema"), 0),
        (("state_dict_ema", "state_dict"), 1),
        (("model_ema", "model"), 1),
        (("ema", "net"), 1),
        (("model", "state_dict"), 1),
    ],
)
def test_trained_weights_come_before_averaged_ones_and_are_named(tmp_path, keys, taken):
    path = several(tmp_path / "x.pth", *keys)
    other = keys[1 - taken]
    with pytest.warns(UserWarning, match=f"those of '{keys[taken]}' are taken.*'{other}'"):
        found = torch_file.read_state_dict(path)
    assert_same(found, {"a": np.full(2, taken, np.float32)})
    assert_same(read(path, key=other), {"a": np.full(2, 1 - taken, np.float32)})


def test_weights_under_any_other_key_can_be_chosen(tmp_path):
    path = several(tmp_path / "x.pth", "student", "teacher")
    assert_same(read(path, key="teacher"), {"a": np.ones(2, np.float32)})
    with pytest.raises(ValueError, match=r"no weights under None; choose a key of \['student'"):
        read(path)
    with pytest.raises(ValueError, match=r"under 'ema'; choose a key of \['student', 'teacher'\]"):
        read(path, key="ema")


def test_a_pickled_module_is_not_taken_for_weights(tmp_path):
    module = torch_files.Call(torch_files.Named("models", "Spikformer"))
    content = {"model": module, "net": {"a": torch_files.tensor("0", WHOLE)}}
    assert_same(read(torch_files.write(tmp_path / "x.pth", content)), {"a": WHOLE})
    for content, where in (({"model": module}, " under 'model'"), (module, "")):
        path = torch_files.write(tmp_path / "x.pth", content)
        with pytest.raises(ValueError, match=f"but a whole module{where}; save its state_dict"):
            read(path)


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}, {"lr": 0.1}, [], 3, {"model": None}])
def test_a_file_without_weights_says_what_was_expected(tmp_path, content):
    path = torch_files.write(tmp_path / "x.pth", content)
    with pytest.raises(ValueError, match="x.pth' holds no weights; expected a state dict, or one"):
        read(path)


# ---------------------------------------------------------------- damage


def content_of(path):
    """A checkpoint as (names, bytes), or None if it is refused as it should be."""
    try:
        content = read_content(path)
    except ValueError as error:
        assert "is not a PyTorch checkpoint" in str(error)
        return None
    return pickle.dumps({n: (a.dtype, a.tolist()) for n, a in content["state_dict"].items()})


@pytest.fixture(scope="module", params=["golden", "deflated"])
def sound(request, tmp_path_factory):
    if request.param == "golden":
        return GOLDEN
    content = {"state_dict": {"a": torch_files.tensor("0", WHOLE)}}
    path = tmp_path_factory.mktemp("sound") / "x.pth"
    return torch_files.write(path, content, zipfile.ZIP_DEFLATED)


def test_a_flipped_bit_anywhere_is_refused_or_harmless(sound, tmp_path):
    expected, data = content_of(sound), sound.read_bytes()
    path, refused = tmp_path / "x.pth", 0
    for place in range(0, len(data), 3):
        flipped = bytearray(data)
        flipped[place] ^= 1 << (place % 8)
        path.write_bytes(flipped)
        found = content_of(path)
        assert found in (None, expected), place
        refused += found is None
    assert refused > len(data) / 12  # the rest are dates, padding and the like


def test_a_file_cut_anywhere_is_refused(sound, tmp_path):
    data, path = sound.read_bytes(), tmp_path / "x.pth"
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        assert content_of(path) is None, length


@hypothesis.given(
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)),
        min_size=1,
        max_size=4,
    )
)
@hypothesis.settings(max_examples=300)
def test_overwritten_bytes_are_refused_or_harmless(changes, tmp_path_factory):
    data = bytearray(GOLDEN.read_bytes())
    for place, new in changes:
        start = int(place * len(data))
        data[start : start + len(new)] = new
    path = tmp_path_factory.mktemp("overwritten") / "x.pth"
    path.write_bytes(data)
    assert content_of(path) in (None, content_of(GOLDEN))


@hypothesis.given(place=st.integers(0), new=st.binary(min_size=1, max_size=4))
@hypothesis.settings(max_examples=300)
def test_a_changed_pickle_with_a_right_checksum_raises_nothing_but_value_error(
    place, new, tmp_path_factory
):
    path = tmp_path_factory.mktemp("pickle") / "x.pth"
    with zipfile.ZipFile(GOLDEN) as old, zipfile.ZipFile(path, "w") as changed:
        for name in old.namelist():
            data = bytearray(old.read(name))
            if name.endswith("data.pkl"):
                start = place % len(data)
                data[start : start + len(new)] = new
            changed.writestr(name, bytes(data))
    with contextlib.suppress(ValueError):
        torch_file.read_state_dict(path)


def with_pickle(path, pickled):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
    return path


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.",  # bytes of an exabyte
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 45) + b"x.",  # a bytearray of 32 terabytes
        b"\x80\x02}r" + struct.pack("<I", (1 << 32) - 1) + b".",  # object number four billion
        b"\x80\x02}p99999999999999\n.",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",  # a number of two gigabytes
        b"\x80\x02" + b"(" * 1000,
        b"\x80\x63.",
        b"",
        b".",
    ],
)
def test_a_pickle_that_asks_for_what_it_has_not_is_refused(tmp_path, pickled):
    path = with_pickle(tmp_path / "x.pth", pickled)
    with pytest.raises(ValueError, match="x.pth' is not a PyTorch checkpoint"):
        read(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"offset": -1},
        {"offset": -6, "shape": (1, 1)},
        {"offset": 1},
        {"offset": 7, "shape": (0, 3)},
        {"offset": 1 << 70},
        {"offset": 0.0},
        {"offset": True},
        {"shape": (2, 4)},
        {"shape": (-2, 3)},
        {"shape": (-2, -3)},
        {"shape": (2,)},
        {"shape": 2},
        {"shape": (2.0, 3)},
        {"shape": (1 << 40, 1 << 40), "stride": (0, 0)},
        {"shape": (1 << 30,), "stride": (0,)},
        {"shape": (1,) * 65, "stride": (1,) * 65},
        {"stride": (-3, 1)},
        {"stride": (3, -1)},
        {"stride": (3, 2)},
        {"stride": (4, 1)},
        {"stride": (1 << 62, 1)},
        {"stride": (None, 1)},
        {"count": 7},
        {"count": -1},
        {"count": 1 << 70},
        {"count": 5},
    ],
)
def test_a_tensor_that_reaches_beyond_its_numbers_is_refused(tmp_path, changes):
    content = {"a": torch_files.tensor("0", WHOLE, **changes), "b": torch_files.tensor("1", OTHER)}
    path = torch_files.write(tmp_path / "x.pth", content)
    with pytest.raises(ValueError, match="x.pth' is not a PyTorch checkpoint"):
        read(path)


@hypothesis.given(
    offset=st.integers(-3, 12),
    shape=st.lists(st.integers(-1, 4), max_size=3),
    stride=st.lists(st.integers(-2, 5), max_size=3),
)
@hypothesis.settings(max_examples=200)
def test_a_tensor_is_its_numbers_or_refused(offset, shape, stride, tmp_path_factory):
    path = tmp_path_factory.mktemp("tensor") / "x.pth"
    numbers = np.arange(10, dtype=np.float32)
    layout = {"offset": offset, "shape": tuple(shape), "stride": tuple(stride)}
    torch_files.write(path, {"a": torch_files.tensor("0", numbers, **layout)})
    try:
        found = read(path)["a"]
    except ValueError:
        found = None
    fits = len(shape) == len(stride) and min([offset, *shape, *stride]) >= 0 and offset <= 10
    if fits:
        places = [offset + sum(map(int.__mul__, index, stride)) for index in np.ndindex(*shape)]
        fits = max(places, default=0) < 10
    assert (found is not None) == fits
    if fits:
        np.testing.assert_array_equal(found, numbers[places].reshape(shape))


@pytest.mark.parametrize(
    ("shape", "stride", "expected"),
    [
        ((2, 2, 3), (0, 3, 1), np.stack([WHOLE, WHOLE])),  # expanded
        ((3, 2), (1, 3), WHOLE.T),
        ((1, 3), (1 << 60, 1), WHOLE[:1]),  # where there is one place, a stride means nothing
        ((), (), np.float32(0)),
        ((0, 3), (3, 1), np.zeros((0, 3), np.float32)),
    ],
)
def test_views_are_read(tmp_path, shape, stride, expected):
    content = {"a": torch_files.tensor("0", WHOLE, shape=shape, stride=stride)}
    path = torch_files.write(tmp_path / "x.pth", content)
    assert_same(read(path), {"a": expected})


def test_a_pickle_cannot_change_what_reads_it(tmp_path):
    named = [
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch", "BFloat16Storage"),
        ("torch", "FloatStorage"),
        ("somewhere", "Other"),
    ]
    for module, name in named:
        # GLOBAL, then BUILD with (None, {"__defaults__": (1,), "__init__": 2, ...})
        state = pickle.dumps((None, {"__defaults__": (1,), "__init__": 2, "x": 3}), 2)[2:-1]
        text = b"\x80\x02c" + f"{module}\n{name}\n".encode() + state + b"b."
        with pytest.raises(ValueError, match="x.pth'"):
            read(with_pickle(tmp_path / "x.pth", text))
    assert_same(read(torch_files.write_arrays(tmp_path / "x.pth", {"a": WHOLE})), {"a": WHOLE})
