"""What cannot be compiled: one error through the Python API and through the command line, and nothing is written."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper
from robust_build import IMAGE, Arrays, convolution, model, node, samples, weights

import qcc
from qcc.cli import main
from qcc.ir.errors import ImportModelError, QccError
from qcc.passes.calibrate import observer_names

pytestmark = pytest.mark.filterwarnings("error")

AGAIN = "\nhint: export the model again"
REPLACE = "\nhint: replace them before the export, or add an op: @register_op and @onnx_importer in a plugin"
DUMP = "run again with --dump-after=all to see the graph before this pass"
STACK = "\nhint: stack the samples, preprocessed as for the model, along axis 0"
OVERFLOWS = (
    "\nhint: the float model overflows, or is not a number, on these samples: check them and the weights"
    f"\n      {DUMP}"
)

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """`refused(model, calib, *options)`: the text of the error, the same from both sides.

    ``model``: a ModelProto or the bytes of a file; ``calib``: arrays, or None for noise; ``options``: of the command.
    """

    def run(
        source: onnx.ModelProto | bytes, calib: Arrays | None = None, *options: str, **choices: Any
    ) -> str:
        path, data, out = tmp_path / "bad.onnx", tmp_path / "data.npz", tmp_path / "out"
        path.write_bytes(source if isinstance(source, bytes) else source.SerializeToString())
        if calib is None and not isinstance(source, bytes):
            calib = samples(source)
        if calib is not None:
            np.savez(data, **calib)
            options = ("--calib", str(data), *options)
        with pytest.raises(QccError) as caught:
            qcc.compile(path, calibration=data if calib is not None else None, **choices)
        result = CliRunner().invoke(
            main, ["compile", str(path), "--target", "c", "--int8", *options, "-o", str(out)]
        )
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr == f"error: {caught.value}\n"
        assert sorted(p.name for p in tmp_path.iterdir() if p not in (path, data)) == []
        return str(caught.value)

    return run


# ---------------------------------------------------------------- files
def test_not_an_onnx_file(refused: Refused) -> None:
    text = "bad.onnx: this is not an ONNX model, or it is cut short"
    hint = "\nhint: download or export it again; qcc reads the binary .onnx format"
    assert refused(b"\x89PNG\r\n\x1a\n" + bytes(range(256))) == text + hint
    assert refused(convolution().SerializeToString()[:-7]) == text + hint


def test_empty_file_and_no_file(refused: Refused, tmp_path: Path) -> None:
    assert refused(b"") == "bad.onnx: the file is empty" + AGAIN
    with pytest.raises(ImportModelError) as caught:
        qcc.compile(tmp_path / "none.onnx")
    assert str(caught.value) == (
        f"none.onnx: {tmp_path / 'none.onnx'} does not exist\nhint: check the path of the model"
    )


def test_external_data_outside_the_folder_or_too_short(refused: Refused, tmp_path: Path) -> None:
    (tmp_path.parent / "outside.bin").write_bytes(bytes(432))

    def stored(location: str, **more: int) -> onnx.ModelProto:
        proto = convolution()
        tensor = proto.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **more}.items():
            tensor.external_data.add(key=key, value=str(value))
        return proto

    head, beside = (
        "bad.onnx: 1 node is not supported:\n  conv (Conv): tensor w ",
        "put the file beside the model",
    )
    for location in ("../outside.bin", str(tmp_path.parent / "outside.bin")):
        assert refused(stored(location)).startswith(
            f"{head}is stored in '{location}', which is outside the folder of the model"
        ), beside
    assert refused(stored("bad.onnx", length=8)) == (
        f"{head}needs 432 bytes, its length in 'bad.onnx' is 8" + REPLACE
    )
    assert f"{head}needs bytes 99999 to 100431 of 'bad.onnx', which has " in refused(
        stored("bad.onnx", offset=99999)
    )


# ---------------------------------------------------------------- graphs
def test_unknown_ops_are_listed_together(refused: Refused) -> None:
    nodes = [
        node("GridSample", "x x", "h", name="first"),
        node("Relu", "h", "r"),
        node("MadeUp", "r", "y", name="second"),
    ]
    assert refused(model(nodes)) == (
        "bad.onnx: 2 nodes are not supported:\n"
        "  first (GridSample): the operator is not supported\n"
        "  second (MadeUp): the operator is not supported" + REPLACE
    )


def test_dynamic_shape(refused: Refused) -> None:
    proto = model([node("Relu", "x")], {"x": ["N", 3, "height", 32]})
    assert refused(proto, {"x": np.ones((2, 3, 4, 4))}) == (
        "bad.onnx: input x has a dynamic dimension 'height' (axis 2)\nhint: pass --shape height=..."
    )


def test_cycle(refused: Refused) -> None:
    nodes = [node("Add", "x b", "a", name="first"), node("Relu", "a", "b", name="second"), node("Relu", "b")]
    assert refused(model(nodes)) == "bad.onnx: the nodes form a cycle: first -> second -> first" + AGAIN


def test_initializer_that_lies_about_its_size(refused: Refused) -> None:
    proto = convolution()
    proto.graph.initializer[0].dims[0] = 2**40
    assert refused(proto) == (
        "bad.onnx: 1 node is not supported:\n"
        "  conv (Conv): tensor w with shape (1099511627776, 3, 3, 3) needs 118747255799808 bytes, the file has 432"
        + REPLACE
    )


@pytest.mark.parametrize("shape", [(2**40,), (1, 2**20, 2**20), (1, 0, 4), (1, -3, 4)])
def test_shape_that_no_tensor_has(refused: Refused, shape: tuple[int, ...]) -> None:
    start = time.perf_counter()
    text = refused(model([node("Relu", "x")], {"x": shape}), {"x": np.ones(3)})
    assert time.perf_counter() - start < 5
    assert text.startswith("bad.onnx: input x has ")


def test_result_that_no_memory_holds(refused: Refused) -> None:
    proto = model([node("Resize", "x - s", name="up")], s=np.array([1.0, 1, 2**20, 2**20]))
    assert refused(proto) == (
        "bad.onnx: 1 node is not supported:\n"
        "  up (Resize): its result has shape (1, 6291456, 6291456, 3)" + REPLACE
    )


def test_duplicate_outputs_and_no_inputs(refused: Refused) -> None:
    assert (
        refused(model([node("Relu", "x")], outputs=("y", "y")))
        == "bad.onnx: graph output 'y' is declared twice" + AGAIN
    )
    frozen = model([node("Relu", "c")], inputs={}, c=np.ones(3))
    assert refused(frozen, {}) == (
        "bad.onnx: the model has no inputs: its outputs are constants\n"
        "hint: export it with an input, not with the sample frozen into it"
    )


# ---------------------------------------------------------------- numbers
@pytest.mark.parametrize(("bad", "what"), [(np.nan, "1 NaN"), (np.inf, "1 infinite elements")])
def test_weights_that_are_not_finite(refused: Refused, bad: float, what: str) -> None:
    w = weights(4, 3, 3, 3)
    w[1, 2, 0, 1] = bad
    proto = model([node("Conv", "x w", name="conv")], w=w)
    assert refused(proto) == (
        f"bad.onnx: 1 node is not supported:\n  conv (Conv): tensor w holds {what}" + REPLACE
    )


def test_negative_variance(refused: Refused) -> None:
    proto = model(
        [node("BatchNormalization", "x one one one var", name="bn")],
        one=np.ones(3),
        var=np.array([1.0, -1, 1]),
    )
    text = refused(proto)
    assert text.startswith(
        "bad.onnx, node bn: pass 3 (fold-batch-norm): %y_factor: the constant holds a NaN\n"
    )


@pytest.mark.parametrize(
    ("nodes", "scale"),
    [
        ([node("Mul", "x x", name="n")], 1e30),
        ([node("Exp", "x", name="n")], 100.0),
        ([node("Log", "x", name="n")], 1.0),
        ([node("GlobalAveragePool", "x", name="n")], 3e37),
    ],
)
def test_activations_that_are_not_finite(refused: Refused, nodes: list[onnx.NodeProto], scale: float) -> None:
    proto = model(nodes, {"x": (1, 3, 9, 9)})
    assert refused(proto, samples(proto, 8, scale)) == (
        "bad.onnx, node n: pass 5 (calibrate): %y is not finite on the calibration data" + OVERFLOWS
    )


# ---------------------------------------------------------------- calibration
def test_calibration_with_a_wrong_name(refused: Refused) -> None:
    assert refused(convolution(), {"image": np.ones((2, 3, 6, 6))}) == (
        "data.npz has no array for input 'x': expected 'x', got 'image'\n"
        "hint: name the arrays after the inputs of the model: numpy.savez(file, **{name: array})"
    )


def test_calibration_with_a_wrong_shape(refused: Refused) -> None:
    text = "data.npz: array 'x' has shape (2, 3, 5, 6), expected (N, 3, 6, 6)"
    assert refused(convolution(), {"x": np.ones((2, 3, 5, 6))}) == text + STACK


def test_calibration_that_is_not_finite(refused: Refused) -> None:
    array = np.ones((2, 3, 6, 6))
    array[1, 0, 2, 3] = np.nan
    assert refused(convolution(), {"x": array}) == (
        "data.npz: array 'x' has 1 elements that are NaN, infinite or beyond float32; "
        "the first is at index (1, 0, 2, 3)\nhint: remove these samples, or repair the preprocessing"
    )


def test_empty_calibration(refused: Refused) -> None:
    assert refused(convolution(), {"x": np.ones((0, 3, 6, 6))}) == (
        "data.npz holds no samples\nhint: give at least one; 100 typical ones are a good start"
    )


def test_calibration_iterator_that_raises_keeps_its_error() -> None:
    def broken() -> Iterator[Any]:
        yield np.ones((3, 6, 6), np.float32)
        raise RuntimeError("the camera is gone")

    with pytest.raises(RuntimeError, match=r"^the camera is gone$"):
        qcc.compile(convolution(), calibration=broken())


# ---------------------------------------------------------------- choices
def test_unknown_target(refused: Refused) -> None:
    text = refused(convolution(), None, "--target", "z80", target="z80")
    assert text.startswith("unknown target 'z80'\nhint: known targets: c, host, ")


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"precision": "int4"}, "unknown precision 'int4'\nhint: known: int8, float32, dynamic"),
        ({"io": "int16"}, "unknown io 'int16'\nhint: known: auto, int8, float"),
        (
            {"observer": "observer=crystal-ball"},
            "pass 5 (calibrate): unknown observer 'crystal-ball'\n"
            f"hint: known observers: {', '.join(observer_names())}\n      {DUMP}",
        ),
        (
            {"observer": "observer=percentile p=0"},
            f"pass 5 (calibrate): p = 0.0 is no percentage\nhint: give the share to keep, such as p=99.99\n      {DUMP}",
        ),
    ],
)
def test_unknown_choice(choice: dict[str, Any], text: str) -> None:
    with pytest.raises(QccError) as caught:
        qcc.compile(convolution(), calibration=samples(convolution()), **choice)
    assert str(caught.value) == text


def test_unknown_observer_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(convolution(), path)
    result = CliRunner().invoke(
        main, ["compile", str(path), "--observer", "crystal-ball", "-o", str(tmp_path / "o")]
    )
    assert result.exit_code == 2
    assert result.stderr.endswith(
        f"Error: Invalid value for '--observer': 'crystal-ball' is not one of {', '.join(observer_names())}\n"
    )


def test_error_in_a_process_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"not a model")
    command = [
        sys.executable,
        "-m",
        "qcc",
        "compile",
        str(path),
        "--target",
        "c",
        "-o",
        str(tmp_path / "out"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == (
        "error: bad.onnx: this is not an ONNX model, or it is cut short\n"
        "hint: download or export it again; qcc reads the binary .onnx format\n"
    )


def test_sequence_input(refused: Refused) -> None:
    proto = model([node("Relu", "x")], IMAGE)
    proto.graph.input[0].CopyFrom(helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, [1]))
    assert refused(proto, {"x": np.ones(3)}).startswith("bad.onnx: input x ")
