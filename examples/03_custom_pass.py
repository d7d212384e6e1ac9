"""A pass and a calibrator of your own, used in a pipeline text and measured.

The same from the shell: qcc compile ... --plugin examples/03_custom_pass.py --float-pipeline TEXT --observer NAME
"""

from pathlib import Path

import numpy as np

import qcc
from qcc.ir.graph import Graph
from qcc.passes.base import Note, Pass, PassContext, PassResult, register_pass
from qcc.passes.calibrate import Calibrate, register_calibrator
from qcc.passes.statistics import TensorStatistics

HERE = Path(__file__).resolve().parent


@register_pass
class PruneWeights(Pass):
    """Set the ``share`` of smallest weights of each convolution to zero."""

    name, stage, exactness = "prune-weights", "float", "approximate"
    share: float = 0.1

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """Replace the weights, which are the second operand."""
        notes = []
        for node in (n for n in graph.nodes if n.op.name == "conv2d"):
            weight = node.input(1)
            small = np.abs(weight.data) < np.quantile(np.abs(weight.data), self.share)
            pruned = np.where(small, np.float32(0), weight.data)
            graph.set_input(node, 1, graph.constant(pruned, f"{weight.name}_pruned", weight.type))
            notes.append(Note(node.name, self.name, True, f"{small.sum()} weights"))
        return PassResult(bool(notes), tuple(notes))


@register_calibrator("least-squares")
def least_squares(found: TensorStatistics, options: Calibrate) -> tuple[float, float]:
    """Shrink [min, max] to where rounding and clipping together cost least on the histogram."""
    x = (found.first + np.arange(found.counts.size) + 0.5) * 2.0**found.exponent

    def error(k: float) -> float:
        step = max((found.max - found.min) * k / 255, 1e-30)
        rounded = np.clip(np.round(x / step) * step, found.min * k, found.max * k)
        return float((x - rounded) ** 2 @ found.counts)

    best = min(np.linspace(0.3, 1, 71), key=error)
    return float(found.min * best), float(found.max * best)


if __name__ == "__main__":
    test = np.load(HERE / "digits_test.npz")
    for observer, share in (("min-max", 0), ("least-squares", 0), ("least-squares", 0.3)):
        text = f"float,prune-weights{{share={share}}}"
        choices = {"float_pipeline": text, "observer": f"observer={observer}"}
        model = qcc.compile(HERE / "digits.onnx", calibration=HERE / "digits_calib.npz", **choices)
        found = model.verify(inputs=test["image"], labels=test["label"]).accuracy[0]
        integer, real = found.label_accuracy or (0, 0)
        print(f"{observer:13} {text:31} int8 {integer:.2%}, float {real:.2%}, {found.sqnr_db:.1f} dB")
