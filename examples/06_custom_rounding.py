"""A rounding scheme of your own: the errors of a kernel's weights cancel, without a look at data.

Source: C. Guo et al., SQuant: On-the-fly data-free quantization via diagonal Hessian approximation, ICLR 2022, algorithm 1:
where inputs are alike, the error of a sum is that of the sum of the weights. So in each kernel those codes flip that are
nearest to a tie, until the sum of its errors is below a half; then over each output channel, where a kernel offers one code:
the last that flipped, back again, if its sum went beyond zero, or the next one.

Usage: 06_custom_rounding.py [MODEL.onnx CALIBRATION.npz TEST.npz]; or
qcc compile ... --plugin FILE --annotated-pipeline "round-by{scheme=squant}"
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import qcc
from qcc.passes.round_by import register_rounding

Floats = NDArray[np.float64]
DIGITS = [Path(__file__).parent / f"digits{end}" for end in (".onnx", "_calib.npz", "_test.npz")]


def flip(
    codes: Floats, steps: Floats, free: NDArray[np.bool_], limit: int
) -> tuple[Floats, NDArray[np.bool_]]:
    """Of each row move as many ``free`` codes by one as bring the sum of errors below a half; and the code to move next."""
    error = codes - steps
    excess = error.sum(axis=1, keepdims=True)
    sign = np.sign(excess)
    moved = codes - sign
    allowed = free & (error * sign > 0) & (np.abs(moved) <= limit)
    order = np.argsort(np.where(allowed, -error * sign, np.inf), axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    count = np.rint(np.abs(excess))
    following = allowed & (rank == count - (count > np.abs(excess)))
    return np.where(allowed & (rank < count), moved, codes), following


@register_rounding("squant")
def squant(steps: Floats, limit: int) -> Floats:
    """Kernel by kernel where there are kernels ([O, H, W, I]), then over each output channel."""
    ordered = np.moveaxis(steps, -1, 1)  # [O, I, H, W]: a kernel lies together
    rows = ordered.reshape(len(steps), -1)
    codes, free = np.clip(np.rint(rows), -limit, limit), np.ones(rows.shape, bool)
    if steps.ndim == 4:
        kernels = -1, ordered[0, 0].size
        codes, free = flip(codes.reshape(kernels), rows.reshape(kernels), free.reshape(kernels), limit)
    codes, _ = flip(codes.reshape(rows.shape), rows, free.reshape(rows.shape), limit)
    return np.moveaxis(codes.reshape(ordered.shape), 1, -1)


def main(model: Path, calibration: Path, test: Path) -> None:
    """The scheme against the nearest codes, and against error feedback, which knows the data."""
    arrays = dict(np.load(test))
    labels = arrays.pop("label")
    for bits in (8, 4, 3):
        for name, own, corrections in (
            ("nearest", "", ()),
            ("squant", f"round-by{{scheme=squant bits={bits}}}", ()),
            ("round-weights", "", ("round-weights",)),
        ):
            choices = {"annotated_pipeline": own, "corrections": corrections, "qspec": f"w_bits={bits}"}
            compiled = qcc.compile(model, calibration=calibration, **choices)
            found = compiled.verify(inputs=arrays, labels=labels).accuracy[0]
            integer, real = found.label_accuracy or (0, 0)
            print(f"{bits} bits {name:13} int {integer:.2%}, float {real:.2%}, {found.sqnr_db:.1f} dB")


if __name__ == "__main__":
    main(*(map(Path, sys.argv[1:]) if len(sys.argv) > 1 else DIGITS))
