"""The pass manager: requirements, promises, verification, exactness, dumps, notes."""

import numpy as np
import pytest

from qcc.ir.errors import PassError, QccError, VerifyError
from qcc.ir.location import Location
from qcc.ir.ops.activation import Clamp
from qcc.ir.ops.elementwise import Add, Mul
from qcc.ir.parser import load_graph
from qcc.passes.base import PASSES, Pass, PassContext, PassResult, register_pass
from qcc.passes.manager import PassManager, parse_pipeline, run_pipeline


@pytest.fixture
def register(monkeypatch):
    """Declare a pass for one test only."""
    monkeypatch.setattr("qcc.passes.base.PASSES", PASSES)
    before = dict(PASSES)
    yield register_pass
    PASSES.clear()
    PASSES.update(before)


@pytest.fixture
def graph(make):
    g = make(1, 4)
    return g.finish(g(Clamp(0.0), g(Add(), g(Mul(), g.x, g.constant(4)), g.constant(4)), name="relu"))


def scale_by(register, factor, exactness_):
    class Scale(Pass):
        """Multiplies the constant of every product."""

        name = f"scale-{exactness_}"
        exactness = exactness_

        def run(self, graph, ctx):
            for node in graph.nodes:
                if isinstance(node.op, Mul):
                    node.input(1).data = (node.input(1).data * np.float32(factor)).astype(np.float32)
            return PassResult(True)

    return register(Scale)


def test_run_records_timings_notes_and_result(graph):
    manager = PassManager("canonicalize,eliminate-dead")
    assert manager.run(graph) is graph
    assert [name for name, seconds in manager.timings if seconds >= 0] == ["canonicalize", "eliminate-dead"]
    assert manager.notes() == []


def test_notes_tell_what_happened_to_one_node(make):
    g = make(1, 4)
    y = g(Clamp(0.0), g(Clamp(-1.0), g.x, name="inner"), name="outer")
    manager = PassManager("canonicalize")
    manager.run(g.finish(y))
    ((name, note),) = manager.notes("outer")
    assert (name, note.rule, note.applied) == ("canonicalize", "merge-clamps", True)


def test_wrong_stage_names_the_pass_that_makes_it(graph):
    with pytest.raises(
        PassError, match=r"pass 1 \(choose-qparams\): needs a graph of stage annotated"
    ) as caught:
        run_pipeline(graph, "choose-qparams")
    assert "calibrate makes one" in caught.value.hint


def test_missing_property_names_the_pass_that_ensures_it(graph):
    graph.stage = "annotated"
    with pytest.raises(PassError, match="needs the property has_ranges") as caught:
        run_pipeline(graph, "choose-qparams")
    assert "run calibrate first" in caught.value.hint


def test_broken_promise_is_an_error(graph, register):
    @register
    class Promise(Pass):
        """Promises ranges and does nothing."""

        name = "promise"
        ensures = ("has_ranges",)

        def run(self, graph, ctx):
            return PassResult(False)

    with pytest.raises(PassError, match="promises the property has_ranges"):
        run_pipeline(graph, [Promise()])


def test_invalid_result_reports_pass_node_and_dump(graph, register, tmp_path):
    @register
    class Break(Pass):
        """Gives a node a type that is not its own."""

        name = "break-types"

        def run(self, graph, ctx):
            node = graph.nodes[-1]
            node.location = Location(node="Relu_3")
            node.output.type = node.output.type.with_shape((9,))
            return PassResult(True)

    manager = PassManager("canonicalize,break-types", dump_after="all", dump_folder=tmp_path)
    with pytest.raises(PassError) as caught:
        manager.run(graph)
    error = caught.value
    assert error.message.startswith("pass 2 (break-types): %relu")
    assert error.location.node == "Relu_3"
    assert str(tmp_path / "01-canonicalize.qir") in error.hint


def test_failure_without_dumps_says_how_to_get_them(graph):
    with pytest.raises(PassError) as caught:
        run_pipeline(graph, "quantize-ops")
    assert "--dump-after=all" in caught.value.hint


def test_invalid_graph_is_refused_before_any_pass(graph):
    graph.nodes[0].output.type = graph.nodes[0].output.type.with_shape((3, 3))
    with pytest.raises(VerifyError):
        run_pipeline(graph, "canonicalize")


def test_dump_after_all_writes_every_graph(graph, tmp_path, capsys):
    folder = tmp_path / "dumps"
    run_pipeline(graph, "canonicalize,fold-affine,eliminate-dead", dump_after="all", dump_folder=folder)
    names = ["01-canonicalize.qir", "02-fold-affine.qir", "03-eliminate-dead.qir"]
    assert sorted(p.name for p in folder.glob("*.qir")) == names
    assert [n.op.name for n in load_graph(folder / names[-1]).nodes] == ["mul", "add", "clamp"]
    assert capsys.readouterr() == ("", "")


def test_dump_after_one_pass_writes_only_that(graph, tmp_path):
    run_pipeline(graph, "canonicalize,eliminate-dead", dump_after="eliminate-dead", dump_folder=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["02-eliminate-dead.qir"]


def test_dump_after_unknown_pass_lists_the_pipeline(tmp_path):
    with pytest.raises(PassError, match="cannot dump after calibrate") as caught:
        PassManager("canonicalize,eliminate-dead", dump_after="calibrate", dump_folder=tmp_path)
    assert caught.value.hint == "use all, or canonicalize, eliminate-dead"
    with pytest.raises(PassError, match="needs a folder"):
        PassManager("canonicalize", dump_after="all")


@pytest.mark.parametrize(
    ("exactness", "factor", "fails"),
    [
        ("exact", 1.0, False),
        ("exact", 1.0 + 1e-6, True),
        ("float-exact", 1.0 + 1e-6, False),
        ("float-exact", 1.01, True),
        ("approximate", 1.01, False),
    ],
)
def test_verify_each_enforces_the_exactness(graph, register, exactness, factor, fails):
    manager = PassManager([scale_by(register, factor, exactness)()], verify_each=True)
    if fails:
        with pytest.raises(PassError, match=f"is {exactness}, but output y0 changed by"):
            manager.run(graph)
        return
    manager.run(graph)
    (record,) = manager.records
    assert list(record.sqnr_db) == (["y0"] if exactness == "approximate" else [])
    assert all(30 < db < 60 for db in record.sqnr_db.values())


def test_verify_each_uses_the_samples_of_the_context(graph, register):
    zeros = {"x": np.zeros((1, 4), np.float32)}
    broken = scale_by(register, 5.0, "exact")
    run_pipeline(graph, [broken()], PassContext({"samples": zeros}), verify_each=True)  # zeros cannot tell
    with pytest.raises(PassError):
        run_pipeline(graph, [broken()], PassContext({"samples": {"x": zeros["x"] + 3}}), verify_each=True)


def test_verify_each_passes_over_the_float_pipeline(graph):
    manager = PassManager("float", verify_each=True)
    manager.run(graph)
    assert len(manager.records) == len(manager.passes)


def test_pass_that_returns_a_graph_replaces_it(graph, register):
    @register
    class Copy(Pass):
        """Returns a clone."""

        name = "copy-graph"

        def run(self, graph, ctx):
            return PassResult(True, graph=graph.clone())

    result = run_pipeline(graph, [Copy()])
    assert result is not graph
    assert [n.name for n in result.nodes] == [n.name for n in graph.nodes]


def test_foreign_errors_pass_through(graph, register):
    @register
    class Bug(Pass):
        """Has a bug."""

        name = "has-bug"

        def run(self, graph, ctx):
            raise KeyError("bug")

    with pytest.raises(KeyError) as caught:
        run_pipeline(graph, [Bug()])
    assert not isinstance(caught.value, QccError)


def test_diff_shows_changed_nodes_and_changed_arrays_only(make, register):
    g = make(1, 40)
    graph = g.finish(g(Mul(), g(Add(), g.x, g.constant(40), name="sum"), g.constant(40), name="product"))
    harmless = scale_by(register, 2.0, "approximate")
    seen = []
    PassManager([parse_pipeline("canonicalize")[0], harmless()], on_diff=seen.append).run(graph)
    (text,) = seen  # canonicalize found nothing to do
    head, after, *lines = text.splitlines()
    assert (head, after) == ("--- before", "+++ after pass 2 (scale-approximate)")
    assert [line[0] for line in lines] == ["-", "+"]
    assert lines[0].partition("@")[0][1:] == lines[1].partition("@")[0][1:]  # the name of the constant
    assert lines[0].rpartition(":")[2] != lines[1].rpartition(":")[2]  # the digest of its bytes


def count_nodes(graph):
    count_nodes.calls += 1
    return len(graph.nodes)


def test_analyses_are_kept_until_a_pass_changes_the_graph(graph, register):
    @register
    class Ask(Pass):
        """Asks twice, and says whether the graph changed."""

        name = "ask"
        changes: bool = False

        def run(self, graph, ctx):
            assert ctx.analysis(count_nodes, graph) == ctx.analysis(count_nodes, graph) == len(graph.nodes)
            return PassResult(self.changes)

    for changes, calls in (((False, False, False), 1), ((False, True, False), 2), ((True, True, True), 3)):
        count_nodes.calls = 0
        run_pipeline(graph, [Ask(c) for c in changes])
        assert count_nodes.calls == calls
    ctx = PassContext()
    count_nodes.calls = 0
    assert ctx.analysis(count_nodes, graph) == ctx.analysis(count_nodes, graph.clone())
    assert count_nodes.calls == 2  # another graph


def sum_of_constants(graph):
    sum_of_constants.calls += 1
    return sum(float(v.data.sum()) for v in graph.constants())


def test_pass_that_changes_the_graph_keeps_the_analyses_it_preserves(graph, register):
    @register
    class Double(Pass):
        """Doubles constants: as many nodes as before, but another sum."""

        name, exactness, preserves = "double", "approximate", (count_nodes,)

        def run(self, graph, ctx):
            found.append((ctx.analysis(count_nodes, graph), ctx.analysis(sum_of_constants, graph)))
            for value in graph.constants():
                value.data = value.data * np.float32(2)
            return PassResult(True)

    found = []
    count_nodes.calls = sum_of_constants.calls = 0
    run_pipeline(graph, [Double(), Double()])
    assert (count_nodes.calls, sum_of_constants.calls) == (1, 2)
    (nodes, total), (same_nodes, doubled) = found
    assert nodes == same_nodes == 3
    assert doubled == 2 * total != 0
