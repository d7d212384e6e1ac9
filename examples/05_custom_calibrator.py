"""A calibrator of your own: ranges of activations in closed form, from the mean deviation alone.

Source: R. Banner et al., Post training 4-bit quantization of convolutional networks, NeurIPS 2019, section 3:
for a Laplace distribution of parameter b the error of M bits is least where 2 b exp(-c / b) = 2 c / (3 * 4^M), that is at
c = b W(3 * 4^M), W being Lambert's function. What is on one side of zero has twice the codes: M + 1 bits.

Usage: 05_custom_calibrator.py [MODEL.onnx CALIBRATION.npz TEST.npz]; or qcc compile ... --plugin FILE --observer aciq
"""

import sys
from pathlib import Path

import numpy as np

import qcc
from qcc.passes.calibrate import Calibrate, register_calibrator
from qcc.passes.statistics import TensorStatistics

DIGITS = [Path(__file__).parent / f"digits{end}" for end in (".onnx", "_calib.npz", "_test.npz")]


def lambert(z: float) -> float:
    """W with W exp(W) = z, for z > 1, by Newton's method."""
    w = np.log(z)
    for _ in range(20):
        w -= (w - z * np.exp(-w)) / (1 + w)
    return float(w)


@register_calibrator("aciq")
def aciq(found: TensorStatistics, options: Calibrate) -> tuple[float, float]:
    """Clip at W(3 * 4^M) mean deviations around the centre, never outside of what was seen."""
    x = (found.first + np.arange(found.counts.size) + 0.5) * 2.0**found.exponent
    one_sided, bits = found.min >= 0, options.spec.a_bits
    # behind a ReLU the zeros say nothing of the distribution: the halves on either side of 0 are alike
    share = found.counts * (x > 2.0**found.exponent) if one_sided else found.counts
    centre = 0.0 if one_sided else float(x @ share) / max(share.sum(), 1)
    b = float(np.abs(x - centre) @ share) / max(share.sum(), 1)
    reach = b * lambert(3 * 4.0 ** (bits + one_sided))
    return max(found.min, centre - reach), min(found.max, centre + reach)


def main(model: Path, calibration: Path, test: Path) -> None:
    """The rule against two that qcc has, in 8 and in 4 bits of activations."""
    arrays = dict(np.load(test))
    labels = arrays.pop("label")
    for bits in (8, 4):
        for observer in ("min-max", "mse", "aciq"):
            choices = {"observer": f"observer={observer}", "qspec": f"a_bits={bits}", "corrections": False}
            compiled = qcc.compile(model, calibration=calibration, **choices)
            found = compiled.verify(inputs=arrays, labels=labels).accuracy[0]
            integer, real = found.label_accuracy or (0, 0)
            print(f"{bits} bits {observer:8} int {integer:.2%}, float {real:.2%}, {found.sqnr_db:.1f} dB")


if __name__ == "__main__":
    main(*(map(Path, sys.argv[1:]) if len(sys.argv) > 1 else DIGITS))
