"""A rewrite rule of your own: channels with outlier weights are computed twice and count half.

Source: R. Zhao et al., Improving neural network quantization without retraining using outlier channel splitting, ICML 2019.
Usage: 07_split_outliers.py [MODEL.onnx CALIBRATION.npz TEST.npz]; or qcc opt ... --pipeline "float,split-outliers{above=2}"
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import qcc
from qcc.ir.builder import Builder
from qcc.ir.graph import Graph, Node, Value
from qcc.passes.base import Pass, PassContext, PassResult, register_pass
from qcc.passes.rewrite import Match, Rule, apply_rules, sole_user_problem

DIGITS = [Path(__file__).parent / f"digits{end}" for end in (".onnx", "_calib.npz", "_test.npz")]


@dataclass(frozen=True)
class SplitOutliers(Rule):
    """conv(clamp(conv(x))): split those channels between the two whose weights lie ``above`` times the median."""

    above: float
    name = "split-outliers"

    def match(self, node: Node, graph: Graph) -> Match | None:
        """Two convolutions with a clamp between them."""
        clamp = node.input(0).producer
        first = clamp.input(0).producer if clamp is not None else None
        names = [n.op.name for n in (node, clamp, first) if n is not None]
        if names != ["conv2d", "clamp", "conv2d"]:
            return None
        peaks = np.abs(node.input(1).data).max(axis=(0, 1, 2))  # of each input channel of [O, H, W, I]
        return Match(node, graph, (clamp, first, np.flatnonzero(peaks > self.above * np.median(peaks))))

    def check(self, match: Match) -> str | None:
        """Nothing else may read what changes its shape; outliers are split once: the median sinks with them."""
        if match.node.op.groups > 1 or match.found[1].op.groups > 1:
            return "a grouped convolution does not read all channels"
        if not match.found[2].size or "_split" in match.found[1].input(1).name:
            return f"no channel lies above {self.above:g} medians, or they are split already"
        return next(filter(None, (sole_user_problem(match.graph, n.output) for n in match.found[:2])), None)

    def rewrite(self, match: Match, builder: Builder) -> Value:
        """Each outlier is there twice, with half its weights: the function stays, the largest weight shrinks."""
        node, (clamp, first, split) = match.node, match.found
        twice = [builder.constant(np.r_[v.data, v.data[split]], v.name + "_split") for v in first.inputs[1:]]
        halved = node.input(1).data.copy()
        halved[..., split] /= 2
        weights = builder.constant(np.append(halved, halved[..., split], axis=3), f"{node.name}_halved")
        y = builder.emit(clamp.op, builder.emit(first.op, first.input(0), *twice))
        return builder.emit(node.op, y, weights, *node.inputs[2:])


@register_pass
class SplitOutliersPass(Pass):
    """Split channels whose weights lie ``above`` times the median of their layer's channels."""

    name, stage, exactness = "split-outliers", "float", "float-exact"
    above: float = 1.5

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """A note on every pair, split or not."""
        return apply_rules(graph, (SplitOutliers(self.above),))


if __name__ == "__main__":
    model, calibration, test = sys.argv[1:] or DIGITS
    arrays = dict(np.load(test))
    labels = arrays.pop("label")
    for bits, k in ((5, 99), (5, 1.5), (5, 1.1), (4, 99), (4, 1.5), (4, 1.1)):
        spec, own = f"weights=per-tensor w_bits={bits}", f"float,split-outliers{{above={k}}}"
        found = qcc.compile(model, calibration=calibration, qspec=spec, float_pipeline=own, corrections=False)
        result = found.verify(inputs=arrays, labels=labels).accuracy[0]
        text = f"int {result.label_accuracy[0]:.2%}, {result.sqnr_db:.1f} dB, {found.report['macs']} MACs"
        print(f"{bits} bits above={k:<4} {text}")
