"""qcc reduce: a planted bug is brought down to the nodes that it needs."""

from pathlib import Path

import pytest

from qcc.ir.parser import load_graph
from qcc.onnx_importer import import_model
from qcc.passes.base import PASSES

PLANTED = """
from qcc.passes.base import Pass, PassResult, register_pass

@register_pass
class Planted(Pass):
    '''Cannot take a clamp behind a convolution of 3 x 3.'''

    name = "tests-planted"

    def run(self, graph, ctx):
        for node in graph.nodes:
            producer = node.input(0).producer
            if node.op.name == "clamp" and producer is not None and producer.op.name == "conv2d":
                if producer.input(1).type.shape[1:3] == (3, 3):
                    raise RuntimeError(f"a clamp at {node.name}")
        return PassResult(False)

@register_pass
class Harmful(Pass):
    '''Claims to be exact, and negates what each dense layer has as weights.'''

    name = "tests-harmful"

    def run(self, graph, ctx):
        for node in graph.nodes:
            if node.op.name == "dense":
                node.input(1).data = -node.input(1).data
        return PassResult(True)
"""


@pytest.fixture
def plugin(tmp_path: Path):
    path, before = tmp_path / "planted.py", dict(PASSES)
    path.write_text(PLANTED)
    yield path
    PASSES.clear()
    PASSES.update(before)


@pytest.mark.parametrize("suffix", [".qir", ".onnx"])
def test_reduce_finds_the_two_nodes_of_a_planted_failure(
    qcc, model: Path, plugin: Path, tmp_path: Path, suffix
) -> None:
    out = tmp_path / f"small{suffix}"
    result = qcc("reduce", model, "--pipeline", "float,tests-planted", "--plugin", plugin, "-o", out)
    assert (result.exit_code, result.stdout.splitlines()[0]) == (0, "RuntimeError: a clamp at")
    graph = load_graph(out) if suffix == ".qir" else import_model(out, {})
    assert [n.op.name for n in graph.nodes if n.op.name not in ("transpose", "reshape")] == [
        "conv2d",
        "clamp",
    ]
    assert sum(v.type.elements for v in graph.constants()) <= 10
    assert out.stat().st_size < 2000


def test_reduce_finds_what_verify_each_finds(qcc, model: Path, plugin: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.qir"
    arguments = ("--pipeline", "tests-harmful", "--plugin", plugin, "--verify-each", "-o", out)
    result = qcc("reduce", model, *arguments)
    assert result.stdout.splitlines()[0] == "tests-harmful: PassError: is exact, but output"
    assert [n.op.name for n in load_graph(out).nodes] == ["dense"]


def test_reduce_keeps_what_a_failing_pass_calibrates(qcc, model: Path, calib: Path, tmp_path: Path) -> None:
    """A failure of a pass of qcc's own, behind calibration: an unknown name of a value."""
    out = tmp_path / "small.qir"
    pipeline = 'float,fuse-epilogues,calibrate,choose-qparams{int16=["nowhere"]}'
    result = qcc("reduce", model, "--pipeline", pipeline, "--calib", calib, "-o", out)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("choose-qparams: PassError: ")
    assert len(load_graph(out).nodes) == 1


def test_reduce_with_a_command(qcc, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.qir"
    result = qcc("reduce", model, "--check", "sh -c '! grep -q softmax {}'", "-o", out)
    assert result.exit_code == 0
    assert [n.op.name for n in load_graph(out).nodes] == ["softmax"]
    pipeline = ("--pipeline", "float", "--check", "grep -vq conv2d", "-o", out)
    assert "does not fail" in qcc("reduce", model, *pipeline).stderr  # the file is the last argument


def test_reduce_says_what_is_wrong(qcc, model: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ((), "--pipeline TEXT or --check COMMAND"),
        (("--check", "true", "-o", "x.txt"), "must end in .qir or .onnx"),
        (("--check", "no-such-program"), "cannot be run here"),
        (("--check", "a 'b"), "No closing quotation"),
        (("--pipeline", "no-such-pass"), "there is no pass no-such-pass"),
        (("--pipeline", "float"), "the pipeline succeeds on the whole graph"),
    ):
        result = qcc("reduce", model, *arguments)
        assert result.exit_code != 0
        assert message in " ".join(result.stderr.split()), arguments
