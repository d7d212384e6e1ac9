"""Programs of integers only: refused where that cannot be, and proved on the code that compilers make of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from embedded_tools import EXAMPLES, require_build
from onnx import TensorProto, helper

import qcc
from qcc.backends.c.build import compile_sources, link_alone
from qcc.backends.c.emit import RUNTIME
from qcc.backends.c.image import MEMORY_FUNCTIONS, UNKNOWN, Instruction, disassemble, float_code
from qcc.backends.target import TARGETS, Target
from qcc.backends.targets import availability
from qcc.ir.errors import QccError, TargetError

BUILT = [t.name for t in TARGETS.values() if availability(t).builds]
Digits = Callable[..., Any]


@pytest.mark.compiler
@pytest.mark.parametrize(
    "name", ["c", "arm-neon", "cortex-m4", *sorted({*BUILT} - {"c", "arm-neon", "cortex-m4"})]
)
def test_built_code_has_no_floats(name: str, digits: Digits) -> None:
    require_build(name)
    found = digits(name, no_float=True)
    footprint = found.compiled.measure(found.folder)
    assert footprint.float_code == ()
    assert set(footprint.external) <= MEMORY_FUNCTIONS


@pytest.mark.compiler
@pytest.mark.parametrize("name", BUILT)
def test_rows_that_use_floats_say_so(name: str, tmp_path: Path) -> None:
    """Of every kernel for integers: its object holds code for floats only where the row has ``uses_float``."""
    target = require_build(name)
    marked = {
        k.source: k.uses_float
        for k in target.kernels
        if k.dtype != "f32" and k.pattern != "dequantize" and not k.is_generated
    }
    for source, path in zip(marked, compile_kernels(list(marked), target, tmp_path), strict=True):
        found = float_code(
            disassemble(path, target), has_vectors=not target.semihosting or "mve" in target.features
        )
        if found:
            assert marked[source], f"{source.name}: {found}"


def compile_kernels(sources: list[Path], target: Target, folder: Path) -> list[Path]:
    includes = [f"-I{path}" for path in sorted({RUNTIME, *(s.parent for s in sources)})]
    return compile_sources(sources, target, folder, [*includes, "-O1"])  # faster; the instructions stay


@pytest.mark.compiler
@pytest.mark.parametrize("name", ["c", "arm-neon", "cortex-m4"])
def test_floats_are_found(name: str, digits: Digits) -> None:
    """The proof itself: a float boundary puts floats into the code, and they are seen."""
    require_build(name)
    found = digits(name, io="float")
    footprint = found.compiled.measure(found.folder)
    assert footprint.float_code


@pytest.mark.compiler
def test_software_floats_are_found(tmp_path: Path) -> None:
    """On a processor without an FPU, floats are calls into the compiler's library."""
    target = require_build("cortex-m4")
    soft = ("-mcpu=cortex-m0", "-mthumb", "-mfloat-abi=soft", "-mfpu=auto")
    (tmp_path / "half.c").write_text("float half_run(int x) { return (float)x * 0.5f; }\n", encoding="utf-8")
    changed = Target(**{**vars(target), "flags": (*target.flags, *soft)})
    image = link_alone(tmp_path, changed, "half_run", tmp_path / "build")
    found = float_code(disassemble(image, changed), has_vectors=False)
    assert any(f.startswith("__aeabi_") for f in found)


@pytest.mark.parametrize(
    ("mnemonic", "operands", "is_float"),
    [
        ("fmul", "v0.4s, v1.4s, v2.4s", True),
        ("scvtf", "s0, w0", True),
        ("fmov", "d0, x1", False),
        ("fmov", "s0, #1.0", True),
        ("bfi", "w0, w1, #8, #8", False),
        ("sdot", "v0.4s, v1.16b, v2.16b", False),
        ("vmul.f32", "s0, s1, s2", True),
        ("vmull.s8", "q0, d2, d3", False),
        ("vcvt.s32.f32", "q0, q0", True),
        ("vmulps", "%zmm0,%zmm1,%zmm2", True),
        ("vcvtdq2ps", "%ymm0,%ymm0", True),
        ("vpdpbusd", "%zmm0,%zmm1,%zmm2", False),
        ("movaps", "%xmm0,(%rax)", False),
        ("cvtsi2ss", "%eax,%xmm0", True),
        ("add", "%eax,%ebx", False),
        (UNKNOWN, "@ <UNDEFINED> instruction: 0xea50e12d", False),
        (UNKNOWN, "@ <UNDEFINED> instruction: 0xee300a10", True),
    ],
)
def test_instructions_are_told_apart(mnemonic: str, operands: str, is_float: bool) -> None:
    assert bool(float_code([Instruction(0, "f", mnemonic, operands)])) == is_float


@pytest.mark.parametrize(
    ("choice", "what"), [({"io": "float"}, "float at the boundary"), ({"precision": "float32"}, "float32")]
)
def test_float_choices_are_refused(choice: dict[str, Any], what: str, digits: Digits) -> None:
    with pytest.raises(QccError, match=f"without floats cannot have {what}"):
        digits("c", no_float=True, **choice)


def test_node_in_float_is_named() -> None:
    """LRN has no integer form."""
    node = helper.make_node("LRN", ["x"], ["y"], name="norm", size=3)
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4, 3, 3]) for n in ("x", "y")]
    graph = helper.make_graph([node], "lrn", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model)
    samples = np.random.default_rng(0).normal(size=(4, 4, 3, 3)).astype(np.float32)
    with pytest.raises(TargetError, match="lrn") as caught:
        qcc.compile(model, "c", samples, no_float=True)
    assert "without floats is not possible" in str(caught.value)
    assert caught.value.location is not None
    assert "norm" in str(caught.value.location)


@pytest.mark.compiler
def test_digits_of_x86_keep_their_bytes(digits: Digits) -> None:
    """Kernels that requantize in float32 are passed over; the library still equals the interpreter."""
    target = next((t for t in TARGETS.values() if t.name.startswith("x86-") and availability(t).runs), None)
    if target is None:
        pytest.skip("this processor lacks the instructions of every x86 target")
    found = digits(target.name, no_float=True)
    assert not any(op.kernel.uses_float for op in found.compiled.program.operations)
    x = np.load(EXAMPLES / "digits_test.npz")["image"][:8]
    assert found.compiled.verify(found.compiled.build(found.folder), x).exact
