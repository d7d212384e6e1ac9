"""The smallest worked example: 0.3 * 0.5 in 8-bit integers, scales S1, S2 and S3, result in the interval [-0.62, 1.62].

Each tensor has its own scale S and zero_point Z, real = S (q - Z). So the product of two reals is

    S3 (q3 - Z3) = S1 (q1 - Z1) * S2 (q2 - Z2)        q3 = Z3 + (S1 S2 / S3) (q1 - Z1) (q2 - Z2)

The integers are multiplied in 32 bits; the only real number left, S1 S2 / S3, becomes an integer multiplier and a
shift. What follows does it by hand, step by step, and then asks the compiler for the same.
"""

from fractions import Fraction

import numpy as np
import pytest

from qcc.ir import interpreter
from qcc.ir.builder import Builder
from qcc.ir.fixedpoint import dequantize, quantize, quantize_multiplier, requantize
from qcc.ir.graph import Graph
from qcc.ir.ops.elementwise import Mul
from qcc.ir.qparams import QParams
from qcc.ir.qspec import QSpec
from qcc.ir.types import f32
from qcc.passes.base import PassContext
from qcc.passes.manager import run_pipeline

A, B = 0.3, 0.5
LOW, HIGH = -0.62, 1.62
S1 = QParams.per_tensor(float(np.float32(1 / 127)))  # reals in [-1, 1], symmetric
S2 = QParams.per_tensor(float(np.float32(1 / 127)))
S3 = QSpec().activation(LOW, HIGH)  # asymmetric: 255 steps from -0.62 to 1.62


def codes(real: float, qparams: QParams) -> int:
    return int(quantize(np.array([real], np.float32), qparams)[0])


def test_the_interval_has_a_scale_and_a_zero_point() -> None:
    """S3 = (1.62 + 0.62) / 255 = 0.008784; real 0 lies 0.62 / S3 = 70.58 steps above -0.62, so Z3 = -128 + 71."""
    assert S3.scale[0] == pytest.approx(2.24 / 255, rel=1e-7)
    assert S3.zero_point == -57
    assert codes(0.0, S3) == -57
    assert dequantize(np.array([-57]), S3)[0] == 0.0  # zero is exact
    # the zero_point was rounded: the ends moved by 0.42 of a step, and saturate
    assert S3.range == pytest.approx((-0.6237, 1.6163), abs=1e-4)
    assert codes(LOW, S3) == -128
    assert codes(HIGH, S3) == 127
    assert (codes(-5.0, S3), codes(5.0, S3)) == (-128, 127)


def test_every_real_of_the_interval_is_held_to_half_a_step() -> None:
    x = np.linspace(LOW, HIGH, 10001).astype(np.float32)
    error = np.abs(dequantize(quantize(x, S3), S3).astype(np.float64) - x)
    assert error.max() <= 0.5001 * S3.scale[0]


def test_the_product_by_hand() -> None:
    # 1. quantize: 0.3 * 127 = 38.1 and 0.5 * 127 = 63.5, a tie, which goes to the even 64
    q1, q2 = codes(A, S1), codes(B, S2)
    assert (q1, q2) == (38, 64)
    # 2. multiply the integers: the accumulator has scale S1 S2 and zero_point 0
    acc = q1 * q2
    assert acc == 2432
    # 3. the real multiplier as integers: M * 2^-shift with 31 bits
    real = S1.scale[0] * S2.scale[0] / S3.scale[0]
    assert real == pytest.approx(0.00705812, rel=1e-5)
    multiplier, shift = quantize_multiplier(real)
    assert 2**30 <= multiplier < 2**31
    assert abs(Fraction(multiplier, 2**shift) - Fraction(real)) <= Fraction(real) / 2**31
    # 4. requantize in integers only, 17.17 steps above zero: one rounding, then the zero_point
    by_hand = ((acc * multiplier + 2 ** (shift - 1)) >> shift) + S3.zero_point
    assert by_hand == 17 - 57 == -40
    assert requantize(np.array([acc]), multiplier, shift, S3.zero_point, -128, 127)[0] == by_hand
    # 5. back to reals: 0.1493 for 0.15, within what the three roundings allow
    y = float(dequantize(np.array([by_hand]), S3)[0])
    assert y == pytest.approx(0.1493, abs=1e-4)
    s1, s2, s3 = (q.scale[0] for q in (S1, S2, S3))
    assert abs(y - A * B) <= B * s1 / 2 + A * s2 / 2 + s1 * s2 / 4 + s3 / 2


def test_the_compiler_does_the_same() -> None:
    """A graph of one mul, with these qparams, through the passes; the integer program yields the same code."""
    graph = Graph("product", "annotated")
    a, b = graph.add_input("a", f32(1, 1)), graph.add_input("b", f32(1, 1))
    y = Builder(graph).emit(Mul(), a, b, name="y")
    graph.add_output(y, "y")
    for value, qparams in ((a, S1), (b, S2), (y, S3)):
        value.range, value.type = qparams.range, value.type.with_qparams(qparams)
    planned = run_pipeline(graph, "quantize-ops,plan-accumulators", PassContext())
    found = interpreter.run(planned, {"a": np.array([[38]], np.int8), "b": np.array([[64]], np.int8)})
    assert found["y"].tolist() == [[-40]]
