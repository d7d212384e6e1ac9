"""One file of a user's own, outside of the checkout, through `qcc compile --plugin`: library and interpreter agree.

Each command is a process of its own, so that nothing is registered but what the file registers.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from qcc.ir.parser import load_graph

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DIGITS = EXAMPLES / "digits.onnx", EXAMPLES / "digits_calib.npz"
Report = dict[str, Any]


def qcc(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qcc", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def compile_with(
    folder: Path, plugin: str, *options: object, model: object = DIGITS[0], calib: object = DIGITS[1]
) -> Report:
    """The report of a compilation in which the library had the bytes of the interpreter, twice."""
    (folder / "mine.py").write_text(plugin)
    own = "--plugin", folder / "mine.py"
    done = qcc(folder, "compile", model, "--calib", calib, "-o", "out", *own, *options)
    assert (done.returncode, done.stderr) == (0, "")
    again = qcc(folder, "verify", "out", "--data", calib, *own)
    assert (again.returncode, again.stderr) == (0, ""), again.stdout
    report: Report = json.loads((folder / "out" / "report.json").read_text())
    assert report["verification"]["equal"] == report["verification"]["samples"] > 0
    assert again.stdout.startswith("100 of 100 samples ")
    return report


PASS = '''
import numpy as np
from qcc.passes.base import Pass, register_pass
from qcc.passes.rewrite import Match, Rule, apply_rules

class Round(Rule):
    name = "half-precision"
    def match(self, node, graph):
        return Match(node, graph) if node.op.name == "conv2d" else None
    def check(self, match):
        weights = match.node.input(1).data
        return "they are halves already" if (weights == weights.astype(np.float16)).all() else None
    def rewrite(self, match, builder):
        x, weights, *rest = match.node.inputs
        halves = builder.constant(weights.data.astype(np.float16).astype(np.float32), weights.name + "_half")
        return builder.emit(match.node.op, x, halves, *rest)

@register_pass
class HalfPrecision(Pass):
    """Weights as half-precision floats hold them."""
    name, stage, exactness = "half-precision", "float", "approximate"
    def run(self, graph, ctx):
        return apply_rules(graph, (Round(),))
'''


def test_pass_with_a_rule(tmp_path: Path) -> None:
    flags = "--time-passes", "--print-ir-diff", "--verify-each", "--dump-after", "half-precision"
    (tmp_path / "mine.py").write_text(PASS)
    own = "--plugin", "mine.py", "--float-pipeline", "float,half-precision"
    done = qcc(tmp_path, "compile", DIGITS[0], "--calib", DIGITS[1], "-o", "out", *own, *flags)
    assert done.returncode == 0, done.stderr
    assert [p.name for p in tmp_path.glob("out-dumps/*/*.qir")] == ["10-half-precision.qir"]
    diffs = done.stderr.split("--- before\n")
    (mine,) = (d for d in diffs if d.startswith("+++ after pass 10 (half-precision)"))
    assert "conv3_weight_2_half" in mine
    assert any(re.match(r"\+\+\+ after pass \d+ \(plan-accumulators\)", d) for d in diffs)
    assert re.search(r"^half-precision +\d", done.stderr, re.MULTILINE)  # in the table of times
    notes = qcc(tmp_path, "explain", DIGITS[0], "conv1", *own[:2], "--calib", DIGITS[1])
    assert notes.returncode == 0, notes.stderr
    compile_with(tmp_path, PASS, "--float-pipeline", "float,half-precision")


OP = '''
"""MaxMin, the activation of C. Anil, J. Lucas and R. Grosse, Sorting out Lipschitz function approximation, ICML 2019."""
from pathlib import Path
import numpy as np
from qcc.backends.kernel import Call, Kernel
from qcc.backends.target import register_kernel
from qcc.backends.targets import find_target
from qcc.ir.op import Case, onnx_importer, register_op
from qcc.ir.ops.shape import Movement

@register_op
class MaxMin(Movement):
    """Of each pair of channels the larger one, then the smaller one."""
    name = "maxmin"
    def infer(self, *operands):
        return operands[0]
    def float_ref(self, *operands):
        pairs = operands[0].reshape(*operands[0].shape[:-1], -1, 2)
        return np.stack([pairs.max(-1), pairs.min(-1)], -1).reshape(operands[0].shape)
    @classmethod
    def cases(cls, rng):
        yield Case(cls(), (rng.normal(size=(1, 3, 4)).astype(np.float32),))

@onnx_importer("com.acme.MaxMin")
def read(node):
    return node.to_nchw(node.emit(MaxMin(), node.to_nhwc(node.input(0))))

for dtype, c_type in (("s8", "int8_t"), ("f32", "float")):
    source = Path(__file__).with_name(f"acme_{dtype}_maxmin.c")
    source.write_text(f"""#include "acme.h"

void acme_{dtype}_maxmin(const acme_pairs_params *params, const {c_type} *input, {c_type} *output) {{
  for (int32_t i = 0; i < params->pairs; ++i) {{
    const {c_type} a = input[2 * i], b = input[2 * i + 1];
    output[2 * i] = a > b ? a : b;
    output[2 * i + 1] = a > b ? b : a;
  }}
}}
""")
    lower = lambda step: Call({"pairs": step.output.type.elements // 2})
    register_kernel(Kernel("maxmin", dtype, f"acme_{dtype}_maxmin", "acme_pairs_params", source, lower, in_place=True))

Path(__file__).with_name("acme.h").write_text("""#ifndef ACME_H
#define ACME_H
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
typedef struct {
  int32_t pairs;
} acme_pairs_params;
void acme_s8_maxmin(const acme_pairs_params *params, const int8_t *input, int8_t *output);
void acme_f32_maxmin(const acme_pairs_params *params, const float *input, float *output);
#ifdef __cplusplus
}
#endif
#endif
""")
'''


def maxmin_model(path: Path) -> Path:
    """conv, MaxMin, conv: MaxMin is a function of the model too, so that other runtimes know it."""
    rng = np.random.default_rng(0)
    weights = [rng.normal(0, 0.3, s).astype(np.float32) for s in ((6, 1, 3, 3), (4, 6, 3, 3))]
    body = [
        *(helper.make_node("Constant", [], [n], value=numpy_helper.from_array(np.array(v, np.int64))) for n, v in
          (("zero", [0]), ("one", [1]), ("two", [2]), ("end", [1 << 30]))),
        helper.make_node("Slice", ["x", "zero", "end", "one", "two"], ["even"]),
        helper.make_node("Slice", ["x", "one", "end", "one", "two"], ["odd"]),
        helper.make_node("Max", ["even", "odd"], ["max"]),
        helper.make_node("Min", ["even", "odd"], ["min"]),
        *(helper.make_node("Unsqueeze", [n, "two"], [f"{n}5"]) for n in ("max", "min")),
        helper.make_node("Concat", ["max5", "min5"], ["pairs"], axis=2),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Reshape", ["pairs", "shape"], ["y"]),
    ]  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.acme", 1)]
    function = helper.make_function("com.acme", "MaxMin", ["x"], ["y"], body, opsets[:1])
    nodes = [
        helper.make_node("Conv", ["image", "w0"], ["a"], name="first"),
        helper.make_node("MaxMin", ["a"], ["b"], name="sorted", domain="com.acme"),
        helper.make_node("Conv", ["b", "w1"], ["c"], name="second"),
    ]
    graph = helper.make_graph(
        nodes,
        "maxmin",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, ["N", 4, 4, 4])],
        [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)],
    )
    onnx.save(helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=8), path)
    return path


@pytest.mark.parametrize("options", [(), ("--float32",), ("--target", "host", "--threads", "2")])
def test_op_of_a_custom_domain_with_a_kernel(options: tuple[str, ...], tmp_path: Path) -> None:
    model = maxmin_model(tmp_path / "maxmin.onnx")
    compile_with(tmp_path, OP, *options, model=model)
    dtype = "f32" if options == ("--float32",) else "s8"
    assert f"acme_{dtype}_maxmin(" in (tmp_path / "out" / "maxmin.c").read_text()
    assert {"acme.h", f"acme_{dtype}_maxmin.c"} <= {p.name for p in (tmp_path / "out").iterdir()}
    # onnxruntime, which runs the function of the model, agrees with the float graph and with the library
    image = np.load(DIGITS[1])["image"]
    (expected,) = onnxruntime.InferenceSession(model).run(None, {"image": image})
    script = (
        "import sys; from pathlib import Path; import numpy as np, qcc; from qcc.plugins import load_plugin\n"
    )
    script += "load_plugin(Path('mine.py')); x = np.load(sys.argv[1])['image']\n"
    script += (
        "m = qcc.compile('maxmin.onnx', calibration=x); np.savez('y.npz', m.run_float(x), m.build().run(x))"
    )
    subprocess.run([sys.executable, "-c", script, DIGITS[1]], cwd=tmp_path, check=True)
    real, integer = np.load(tmp_path / "y.npz").values()
    np.testing.assert_allclose(real, expected, atol=1e-5)
    assert 10 * np.log10((expected**2).sum() / ((expected - integer) ** 2).sum()) > 35


def test_op_is_unknown_without_its_plugin(tmp_path: Path) -> None:
    done = qcc(tmp_path, "compile", maxmin_model(tmp_path / "maxmin.onnx"), "-o", "out")
    assert done.returncode == 1
    assert "sorted (com.acme.MaxMin): it is a function of the model" in done.stderr
    assert "@onnx_importer in a plugin" in done.stderr


REWRITE = (
    OP.replace("@onnx_importer", "#").replace("\ndef read(node):\n    return", "\nunused = lambda node:")
    + '''
from qcc.passes.base import Pass, register_pass
from qcc.passes.rewrite import Match, Rule, apply_rules

class FromRelu(Rule):
    name = "maxmin-for-relu"
    def match(self, node, graph):
        return Match(node, graph) if node.op.name == "clamp" else None
    def rewrite(self, match, builder):
        return builder.emit(MaxMin(), match.node.input(0))

@register_pass
class UseMaxMin(Pass):
    """MaxMin in the place of every clamp."""
    name, stage, exactness = "use-maxmin", "float", "approximate"
    def run(self, graph, ctx):
        return apply_rules(graph, (FromRelu(),))
'''
)


def test_op_that_a_rewrite_makes(tmp_path: Path) -> None:
    compile_with(tmp_path, REWRITE, "--float-pipeline", "float,use-maxmin", "--target", "host")
    assert "acme_s8_maxmin(" in (tmp_path / "out" / "digits.c").read_text()


ELEMENTWISE = '''
"""Snake: L. Ziyin, T. Hartwig and M. Ueda, Neural networks fail to learn periodic functions, NeurIPS 2020."""
import numpy as np
from qcc.ir.op import Case, Op, onnx_importer, register_op
from qcc.onnx_export_ops import exports

@register_op
class Snake(Op):
    """x + sin(x)^2."""
    name, operands, elementwise = "snake", ("x",), True
    def infer(self, *operands):
        return operands[0].with_qparams(None)
    def float_ref(self, *operands):
        return operands[0] + np.sin(operands[0]) ** 2
    @classmethod
    def cases(cls, rng):
        yield Case(cls(), (rng.normal(size=(1, 3, 4)).astype(np.float32),))

@onnx_importer("Relu6Like", "com.acme.Snake")
def read(node):
    return node.emit(Snake(), node.input(0))

@exports("snake")
def write(w, node):
    x = w.tensor(node.input(0))
    sine = w.node("Sin", [x], node.name)
    return w.node("Add", [x, w.node("Mul", [sine, sine], node.name)], node.name)
'''


def test_elementwise_op_needs_no_kernel_and_may_have_an_onnx_form(tmp_path: Path) -> None:
    model = onnx.load(DIGITS[0])
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type, node.domain = "Snake", "com.acme"
    model.opset_import.append(helper.make_opsetid("com.acme", 1))
    onnx.save(model, tmp_path / "snake.onnx")
    compile_with(tmp_path, ELEMENTWISE, model=tmp_path / "snake.onnx")
    text = (tmp_path / "out" / "snake.c").read_text()
    assert "qcc_s8_table_scalar(" in text
    qdq = qcc(tmp_path, "quantize", "snake.onnx", "--calib", DIGITS[1], "--plugin", "mine.py", "-o", "q.onnx")
    assert qdq.returncode == 0, qdq.stderr
    onnxruntime.InferenceSession(tmp_path / "q.onnx")  # no op of a domain that it does not know


CALIBRATOR = """
from qcc.passes.calibrate import register_calibrator

@register_calibrator("nine-tenths")
def nine_tenths(statistics, options):
    return 0.9 * statistics.min, 0.9 * statistics.max
"""


def test_calibrator(tmp_path: Path) -> None:
    report = compile_with(tmp_path, CALIBRATOR, "--observer", "nine-tenths")
    assert report["ranges"][0]["high"] == pytest.approx(0.9)
    report = compile_with(tmp_path, CALIBRATOR, "--observer-of", "image=nine-tenths")
    assert report["ranges"][0]["high"] == pytest.approx(0.9)


ROUNDING = """
import numpy as np
from qcc.passes.round_by import register_rounding

@register_rounding("even")
def even(steps, limit):
    return np.clip(2 * np.rint(steps / 2), -limit + 1, limit - 1)
"""


def test_rounding(tmp_path: Path) -> None:
    compile_with(tmp_path, ROUNDING, "--annotated-pipeline", "round-by{scheme=even}")
    graph = load_graph(tmp_path / "out" / "graphs" / "planned.qir")
    weights = [n.operand("w").data for n in graph.nodes if n.op.quant_rule().weight is not None]
    assert len(weights) == 4
    assert all((w % 2 == 0).all() and w.any() for w in weights)


TARGET = """
from pathlib import Path
from qcc.backends.kernel import Call, Kernel
from qcc.backends.scalar import KERNELS
from qcc.backends.scalar.lowering import constant, requantize_constants, requantize_params
from qcc.backends.target import Compiler, Target, register_target

HERE = Path(__file__).parent

def accepts(step):
    op = step.root.op
    if op.groups > 1 or op.dilations != (1, 1):
        return "it has groups or dilations"
    return "the filter is not 3 by 3" if step.root.input(1).type.shape[1:3] != (3, 3) else None

def lower(step):
    op, x, y = step.root.op, step.root.input(0).type.shape, step.output.type.shape
    sizes = dict(zip(("height", "width", "channels", "rows", "columns", "filters"), (*x[1:], *y[1:])))
    placed = {"stride": op.strides[0], "pad_top": op.pads[0], "pad_left": op.pads[1], "pad_value": op.pad_value}
    weights, bias = (constant(step.root, name) for name in ("w", "bias"))
    return Call(
        {**sizes, **placed, **requantize_params(step)},
        {"weights": weights, "bias": bias, **requantize_constants(step, y[-1])},
    )

conv = Kernel(
    "conv2d+requantize", "s8", "acme_conv3x3", "acme_conv3x3_params", HERE / "acme_conv3x3.c", lower, accepts, priority=5
)
register_target(Target(
    name="acme", description="a processor of mine", compilers=(Compiler(("cc",), "install gcc"),),
    kernels=(conv, *KERNELS), flags=("-Os",), is_native=True, alignment=32,
))
"""
TARGET_HEADER = """#ifndef ACME_H
#define ACME_H
#include "qcc_requantize.h"
#ifdef __cplusplus
extern "C" {
#endif
typedef struct {
  int32_t height, width, channels, rows, columns, filters;
  int32_t stride, pad_top, pad_left, pad_value;
  int32_t zero_point, low, high;
} acme_conv3x3_params;
void acme_conv3x3(const acme_conv3x3_params *params, const int8_t *input, const int8_t *weights, const int32_t *bias,
                  const int32_t *multiplier, const int32_t *shift, int8_t *output);
#ifdef __cplusplus
}
#endif
#endif
"""
TARGET_C = """#include "acme.h"

void acme_conv3x3(const acme_conv3x3_params *p, const int8_t *input, const int8_t *weights, const int32_t *bias,
                  const int32_t *multiplier, const int32_t *shift, int8_t *output) {
  for (int32_t i = 0; i < p->rows * p->columns * p->filters; ++i) {
    const int32_t o = i % p->filters, column = i / p->filters % p->columns, row = i / p->filters / p->columns;
    int32_t acc = bias[o];
    for (int32_t k = 0; k < 9 * p->channels; ++k) {
      const int32_t y = row * p->stride - p->pad_top + k / p->channels / 3;
      const int32_t x = column * p->stride - p->pad_left + k / p->channels % 3;
      const int32_t inside = y >= 0 && y < p->height && x >= 0 && x < p->width;
      const int32_t q = inside ? input[(y * p->width + x) * p->channels + k % p->channels] : p->pad_value;
      acc += q * weights[o * 9 * p->channels + k];
    }
    output[i] = qcc_requantize_s8(acc, multiplier[o], shift[o], p->zero_point, p->low, p->high);
  }
}
"""


def test_target_with_a_kernel_table_and_c_file(tmp_path: Path) -> None:
    (tmp_path / "acme.h").write_text(TARGET_HEADER)
    (tmp_path / "acme_conv3x3.c").write_text(TARGET_C)
    report = compile_with(tmp_path, TARGET, "--target", "acme")
    assert report["target"] == "acme"
    text = (tmp_path / "out" / "digits.c").read_text()
    assert text.count("  acme_conv3x3(&params") == 2
    assert "qcc_s8_conv2d_scalar(" in text  # the sum with a skip is another pattern
    assert {"acme.h", "acme_conv3x3.c"} <= {p.name for p in (tmp_path / "out").iterdir()}
    shown = qcc(tmp_path, "targets", "--kernels", "acme", "--plugin", "mine.py")
    assert "acme_conv3x3" in shown.stdout
    why = qcc(
        tmp_path,
        "explain",
        DIGITS[0],
        "conv3",
        "--target",
        "acme",
        "--plugin",
        "mine.py",
        "--calib",
        DIGITS[1],
    )
    assert why.returncode == 0, why.stderr
