"""A rewrite rule of your own: channels with outlier weights are read twice, with half the weight each.

Source: R. Zhao et al., Improving neural network quantization without retraining using outlier channel splitting, ICML 2019:
the channel with the largest weight is split, again and again, so that one scale for all weights becomes finer. Halves lie
a quarter of a step above and below w / 2 (quantization-aware splitting): rounded, they sum up to the code of w.
Usage: 07_split_outliers.py [MODEL.onnx CALIBRATION.npz TEST.npz]; or qcc opt ... --pipeline "float,split-outliers{share=0.1}"
"""

import sys
from pathlib import Path

import numpy as np

import qcc
from qcc.ir.builder import Builder
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.ops.rearrange import Take
from qcc.passes.base import Pass, PassContext, PassResult, register_pass
from qcc.passes.rewrite import Match, Rule, apply_rules

DIGITS = [Path(__file__).parent / f"digits{end}" for end in (".onnx", "_calib.npz", "_test.npz")]


@register_pass
class SplitOutliers(Pass, Rule):
    """Split the channels with the largest weights, a ``share`` of each layer's, for weights of ``bits``: a pass and its rule."""

    name, stage, exactness = "split-outliers", "float", "float-exact"
    share: float = 0.1
    bits: int = 4

    def match(self, node: Node, graph: Graph) -> Match | None:
        """A layer: the last axis of its weights runs over the input channels."""
        return Match(node, graph) if node.op.name in ("conv2d", "dense") else None

    def check(self, match: Match) -> str | None:
        """A layer is split once, and only where a channel is a small part of it."""
        weights, groups = match.node.input(1), match.node.op.attributes().get("groups", 1)
        if groups > 1 or round(self.share * weights.type.shape[-1]) == 0:
            return "it is grouped" if groups > 1 else "one channel is more than the share"
        return "it is split already" if weights.name.endswith("_split") else None

    def rewrite(self, match: Match, builder: Builder) -> Value:
        """The same function of a longer input."""
        x, weights, *rest = match.node.inputs
        halves, read = weights.data.astype(np.float64), list(range(x.type.shape[-1]))
        moved = np.zeros(len(read))  # of each channel, in quarters of a step
        for _ in range(round(self.share * len(read))):
            c = int(np.abs(halves).max(axis=tuple(range(halves.ndim - 1))).argmax())
            halves[..., c] /= 2
            halves, read = np.append(halves, halves[..., c : c + 1], axis=-1), [*read, read[c]]
            moved = np.append(moved, moved[c] / 2 + 1)
            moved[c] = moved[c] / 2 - 1
        halves += moved * np.abs(halves).max() / (2 ** (self.bits - 1) - 1) / 4
        split = builder.constant(halves.astype(np.float32), f"{weights.name}_split")
        return builder.emit(match.node.op, builder.emit(Take(x.type.rank - 1, tuple(read)), x), split, *rest)

    def run(self, graph: Graph, ctx: PassContext) -> PassResult:
        """A note on every layer, split or not."""
        return apply_rules(graph, (self,))


if __name__ == "__main__":
    model, calibration, test = sys.argv[1:] or DIGITS
    arrays = dict(np.load(test))
    labels = arrays.pop("label")
    for bits, share in ((b, s) for b in (6, 5, 4) for s in (0, 0.05, 0.2)):
        spec, own = f"weights=per-tensor w_bits={bits}", f"float,split-outliers{{share={share} bits={bits}}}"
        found = qcc.compile(model, calibration=calibration, qspec=spec, float_pipeline=own, corrections=False)
        result = found.verify(inputs=arrays, labels=labels).accuracy[0]
        text = f"int {result.label_accuracy[0]:.2%}, {result.sqnr_db:.1f} dB, {found.report['macs']} MACs"
        print(f"{bits} bits share={share:<5} {text}")
