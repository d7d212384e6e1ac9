"""Print the program at three stages: float, annotated with ranges and qparams, planned integers.

Every line is text that qcc reads back: save it as .qir and go on with `qcc opt FILE.qir --pipeline ...`.
"""

from pathlib import Path

import qcc
from qcc.calibration_data import load_calibration
from qcc.ir.graph import Graph
from qcc.ir.printer import print_graph
from qcc.passes.base import PassContext
from qcc.passes.manager import run_pipeline

HERE = Path(__file__).resolve().parent
WIDTH = 118


def show(title: str, graph: Graph) -> None:
    """The nodes of ``graph``, long lines cut; weights are left out."""
    print(f"\n== {title}")
    for line in print_graph(graph)[0].splitlines():
        if not line.startswith("  const"):
            print(line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}...")


def main() -> None:
    """Compile once, then look at what the stages left."""
    calibration = HERE / "digits_calib.npz"
    model = qcc.compile(HERE / "digits.onnx", calibration=calibration)
    float_graph, planned = model.compilation.float_graph, model.compilation.planned
    assert planned is not None
    show("float: batch normalization is folded, images are channels-last", float_graph)

    context = PassContext(resources={"calibration": load_calibration(calibration, float_graph.inputs)})
    annotated = run_pipeline(float_graph.clone(), "fuse-epilogues,calibrate,choose-qparams", context)
    show("annotated: ranges seen in calibration, and the qparams chosen from them", annotated)

    show("planned: s8 values, s32 accumulators, a certified requantize behind each", planned)


if __name__ == "__main__":
    main()
