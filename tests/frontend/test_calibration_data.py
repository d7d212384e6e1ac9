"""Calibration data: every kind of source, and every way in which one is refused, with the exact text."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcc.calibration_data import CalibrationData, load_calibration
from qcc.ir.errors import QccError
from qcc.ir.graph import Value
from qcc.ir.op import Array
from qcc.ir.types import f32

X = [Value("x", f32(1, 3, 4, 5))]
TWO = [Value("a", f32(1, 2)), Value("b", f32(1, 3))]
STACK = "\nhint: stack the samples, preprocessed as for the model, along axis 0"
NAMES = "\nhint: name the arrays after the inputs of the model: numpy.savez(file, **{name: array})"


def images(count: int) -> Array:
    return np.arange(count * 60, dtype=np.float32).reshape(count, 3, 4, 5)


def joined(data: CalibrationData, name: str = "x", size: int = 32) -> Array:
    return np.concatenate([b[name] for b in data.batches(size)])


def error_of(source: object, inputs: list[Value] = X) -> str:
    with pytest.raises(QccError) as caught:
        list(load_calibration(source, inputs))
    return str(caught.value)


# ---------------------------------------------------------------- sources
def test_npz_with_labels(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    np.savez(path, x=images(5), y=np.arange(5), idx=np.arange(5))
    data = load_calibration(path, X)
    assert data.samples == 5
    np.testing.assert_array_equal(data.labels, np.arange(5))
    np.testing.assert_array_equal(joined(data), images(5))


def test_npz_by_input_name_even_when_it_is_called_like_a_label(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    np.savez(path, y=images(2), label=[1, 2])
    data = load_calibration(str(path), [Value("y", X[0].type)])
    np.testing.assert_array_equal(joined(data, "y"), images(2))
    np.testing.assert_array_equal(data.labels, [1, 2])


@pytest.mark.parametrize("key", ["x", "arr_0", "data"])
def test_single_unnamed_array(key: str) -> None:
    data = load_calibration({key: images(2)}, [Value("serving:0", X[0].type)])
    np.testing.assert_array_equal(joined(data, "serving:0"), images(2))


def test_npy_array_and_dict(tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", images(3))
    for source in (tmp_path / "c.npy", images(3), {"x": images(3)}, images(3).astype(np.uint8)):
        data = load_calibration(source, X)
        assert data.samples == 3
        np.testing.assert_array_equal(joined(data), images(3))
        assert next(iter(data))["x"].dtype == np.float32


def test_folder_in_the_order_of_names(tmp_path: Path) -> None:
    for index in (2, 0, 1):
        np.save(tmp_path / f"s{index}.npy", images(3)[index])
    np.save(tmp_path / "t.npy", images(2))
    (tmp_path / "readme.txt").write_text("not data")
    data = load_calibration(tmp_path, X)
    assert data.samples is None
    np.testing.assert_array_equal(joined(data), np.concatenate([images(3), images(2)]))
    np.testing.assert_array_equal(joined(data), joined(data))


def test_streams_of_samples_batches_and_dicts() -> None:
    whole = images(6)
    for source in (list(whole), [whole[:4], whole[4:]], [{"x": w} for w in whole]):
        np.testing.assert_array_equal(joined(load_calibration(source, X), size=4), whole)
    assert [len(b["x"]) for b in load_calibration(list(whole), X).batches(4)] == [4, 2]


def test_generator_is_read_once() -> None:
    data = load_calibration((s for s in images(2)), X)
    assert len(joined(data)) == 2
    with pytest.raises(QccError) as caught:
        joined(data)
    assert str(caught.value) == (
        "the calibration data can be read only once: it is a generator\n"
        "hint: pass a list, or an object whose __iter__ starts again"
    )


def test_stream_is_not_read_ahead() -> None:
    asked = []

    def endless() -> Iterator[Array]:
        while True:
            asked.append(1)
            yield images(1)

    batches = load_calibration(endless(), X).batches(8)
    assert len(next(batches)["x"]) == 8
    assert len(asked) <= 9


def test_leading_one_scalar_inputs_and_fixed_batches() -> None:
    np.testing.assert_array_equal(joined(load_calibration(images(2)[:, None], X)), images(2))
    np.testing.assert_array_equal(joined(load_calibration(np.ones(3), [Value("x", f32())])), np.ones(3))
    fixed = [Value("x", f32(2, 3))]
    assert joined(load_calibration(np.ones((8, 3)), fixed)).shape == (4, 2, 3)
    assert joined(load_calibration(np.ones((4, 2, 3)), fixed)).shape == (4, 2, 3)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 7))
def test_batches_keep_all_samples_in_order(lengths: list[int], size: int) -> None:
    whole = np.arange(sum(lengths) * 2, dtype=np.float32).reshape(-1, 2)
    parts = np.split(whole, np.cumsum(lengths)[:-1])
    batches = [b["x"] for b in load_calibration(parts, [Value("x", f32(1, 2))]).batches(size)]
    assert all(1 <= len(b) <= size for b in batches)
    np.testing.assert_array_equal(np.concatenate(batches), whole)


# ---------------------------------------------------------------- refusals
def test_wrong_names() -> None:
    assert error_of({"image": images(1)}) == (
        "the calibration data has no array for input 'x': expected 'x', got 'image'" + NAMES
    )
    assert error_of({"a": np.ones((2, 2)), "b": np.ones((2, 3)), "c": 1}, TWO) == (
        "the calibration data has an unknown array 'c': expected 'a', 'b', got 'a', 'b', 'c'" + NAMES
    )
    assert (
        error_of({}) == "the calibration data has no array for input 'x': expected 'x', got nothing" + NAMES
    )
    assert error_of(np.ones((2, 2)), TWO) == (
        "the calibration data is one array, but the model has the inputs 'a', 'b'\n"
        "hint: name the arrays: a .npz file or a dict"
    )


def test_different_numbers_of_samples() -> None:
    assert error_of({"a": np.ones((2, 2)), "b": np.ones((5, 3))}, TWO) == (
        "the calibration data has different numbers of samples (a: 2, b: 5)\n"
        "hint: give every input as many samples"
    )


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((2, 4)), "array 'x' has shape (2, 4), expected (N, 3, 4, 5)" + STACK),
        (np.float32(1), "array 'x' has shape (), expected (N, 3, 4, 5)" + STACK),
        (
            np.ones((2, 4, 5, 3)),
            "array 'x' has shape (2, 4, 5, 3), expected (N, 3, 4, 5)\n"
            "hint: the images are channels-last: pass array.transpose(0, 3, 1, 2)",
        ),
        (
            np.ones((2, 5, 3, 4)),
            "array 'x' has shape (2, 5, 3, 4), expected (N, 3, 4, 5)\n"
            "hint: the images are channels-first: pass array.transpose(0, 2, 3, 1)",
        ),
        (np.array(["a"]), "array 'x' has type <U1, expected numbers\nhint: save it as float32"),
        (
            np.ones((1, 3, 4, 5), np.complex64),
            "array 'x' has type complex64, expected numbers\nhint: save it as float32",
        ),
    ],
)
def test_wrong_shape_or_type(array: Array, message: str) -> None:
    assert error_of({"x": array}) == f"the calibration data: {message}"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_numbers_that_are_not_finite(bad: float) -> None:
    array = images(3).astype(np.float64)
    array[1, 2, 0, 4] = array[2, 0, 0, 0] = bad
    assert error_of([images(1), array]) == (
        "item 1 of the calibration data: array 'x' has 2 elements that are NaN, infinite or beyond float32; "
        "the first is at index (1, 2, 0, 4)\n"
        "hint: remove these samples, or repair the preprocessing"
    )


def test_nothing() -> None:
    message = (
        "the calibration data holds no samples\nhint: give at least one; 100 typical ones are a good start"
    )
    for source in (images(0), {"x": images(0)}, [], iter([]), [images(0)]):
        assert error_of(source) == message


def test_source_of_another_kind() -> None:
    assert error_of(7) == (
        "calibration data cannot be a int\n"
        "hint: pass a .npz or .npy file, a folder of .npy files, an array, a dict of arrays or an iterable of these"
    )


def test_files_that_are_refused(tmp_path: Path) -> None:
    missing = tmp_path / "no.npz"
    assert error_of(missing) == f"{missing} does not exist\nhint: check the path of the calibration data"
    assert error_of(tmp_path) == (
        f"{tmp_path} holds no .npy or .npz file\n"
        "hint: save each sample with numpy.save, or all of them in one .npz file"
    )
    np.savez(tmp_path / "few.npz", x=images(0))
    assert error_of(tmp_path / "few.npz").startswith("few.npz holds no samples\n")


@pytest.mark.parametrize("name", ["o.npz", "o.npy"])
def test_python_objects_are_not_read(tmp_path: Path, name: str) -> None:
    array = np.array([{"a": 1}], dtype=object)
    if name == "o.npy":
        np.save(tmp_path / name, array, allow_pickle=True)
    else:
        np.savez(tmp_path / name, x=array)
    assert error_of(tmp_path / name) == (
        f"{name} holds Python objects, which are not read: they can run code\n"
        "hint: save plain arrays: array.astype(numpy.float32)"
    )


def test_files_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("not an archive")
    np.savez(tmp_path / "whole.npz", x=images(9))
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "damaged.npz").write_bytes(whole.replace(images(9)[4].tobytes(), bytes(240)))
    np.save(tmp_path / "whole.npy", images(9))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:-4])
    (tmp_path / "empty.npy").touch()
    huge = (tmp_path / "whole.npy").read_bytes().replace(b"(9, 3, 4, 5)", b"(9" + b"0" * 9 + b",)")
    (tmp_path / "huge.npy").write_bytes(huge)
    for name in ("cut.npz", "damaged.npz", "cut.npy", "empty.npy", "huge.npy"):
        text = error_of(tmp_path / name)
        assert text.startswith(f"{name} is not a numpy file, or it is damaged: "), text
        assert text.endswith("\nhint: write it with numpy.save or numpy.savez")
    assert error_of(tmp_path / "text.npz") == (
        "text.npz holds Python objects, which are not read: they can run code\n"
        "hint: save plain arrays: array.astype(numpy.float32)"
    )  # numpy takes any other file for a pickle


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01."])
def test_pickle_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "p.npy"
    path.write_bytes(content)
    assert error_of(path).startswith("p.npy ")
