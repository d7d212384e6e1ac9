"""A rounding scheme of your own: the errors of a kernel's weights cancel, without a look at data.

Source: C. Guo et al., SQuant: On-the-fly data-free quantization via diagonal Hessian approximation, ICLR 2022, algorithm 1:
where inputs are alike, the error of a sum is that of the sum of the weights. So in each kernel, then in each output channel,
those codes flip that are nearest to a tie, until the sum of the errors is below a half.

Usage: 06_custom_rounding.py [MODEL.onnx CALIBRATION.npz TEST.npz]; or
qcc compile ... --plugin FILE --annotated-pipeline "round-by{scheme=squant}"
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import qcc
from qcc.passes.round_by import register_rounding

DIGITS = [Path(__file__).parent / f"digits{end}" for end in (".onnx", "_calib.npz", "_test.npz")]


def flip(codes: NDArray[np.float64], steps: NDArray[np.float64], limit: int) -> NDArray[np.float64]:
    """Of each row move as many codes by one as bring the sum of the errors below a half, the cheapest first."""
    error = codes - steps
    excess = error.sum(axis=1, keepdims=True)
    sign = np.sign(excess)
    moved = codes - sign
    # a code that was moved before is not moved further away, nor one beyond the limit
    allowed = (error * sign > 0) & (np.abs(moved - steps) <= 1) & (np.abs(moved) <= limit)
    order = np.argsort(np.where(allowed, -error * sign, np.inf), axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    return np.where(allowed & (rank < np.rint(np.abs(excess))), moved, codes)


@register_rounding("squant")
def squant(steps: NDArray[np.float64], limit: int) -> NDArray[np.float64]:
    """Kernel by kernel where there are kernels ([O, H, W, I]), then over each output channel."""
    codes = np.clip(np.rint(steps), -limit, limit)
    if steps.ndim == 4:
        kernels, shape = (
            [np.moveaxis(a, 3, 1).reshape(-1, a[0, :, :, 0].size) for a in (codes, steps)],
            steps.shape,
        )
        flipped = flip(*kernels, limit).reshape(shape[0], shape[3], *shape[1:3])
        codes = np.moveaxis(flipped, 1, 3)
    rows = len(steps), -1
    return flip(codes.reshape(rows), steps.reshape(rows), limit).reshape(steps.shape)


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
