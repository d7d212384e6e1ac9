"""Pipelines as text: reading, errors with a caret, writing back."""

from typing import Literal

import pytest

from qcc.ir.errors import ParseError
from qcc.ir.graph import Graph
from qcc.passes.base import PASSES, Pass, PassContext, PassResult, register_pass
from qcc.passes.manager import PIPELINES, format_pipeline, parse_pipeline


@pytest.fixture(scope="module", autouse=True)
def probe():
    @register_pass
    class Probe(Pass):
        """Takes an option of every kind."""

        name = "probe-options"
        count: int = 1
        p: float = 99.9
        deep: bool = False
        mode: Literal["fast", "slow"] = "slow"
        label: str = ""
        sizes: tuple[int, ...] = ()
        pair: tuple[int, float] | None = None

        def run(self, graph: Graph, ctx: PassContext) -> PassResult:
            return PassResult(False)

    yield Probe
    del PASSES["probe-options"]


def test_parse_pipeline_types_options_by_field(probe):
    text = (
        'canonicalize, probe-options{count=3 p=2 deep=true mode=fast label="a b" sizes=[1, 2] pair=[4, .5]}'
    )
    _, made = parse_pipeline(text)
    assert made == probe(3, 2.0, True, "fast", "a b", (1, 2), (4, 0.5))
    assert isinstance(made.p, float)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "canonicalize",
        "canonicalize,fold-constants,canonicalize",
        'probe-options{count=-2 p=0.1 deep=true label="x, {y}" sizes=[1, 2] pair=[1, 2.5]},eliminate-dead',
        'probe-options{label="none"}',
    ],
)
def test_format_pipeline_reads_back(text):
    passes = parse_pipeline(text)
    written = format_pipeline(passes)
    assert parse_pipeline(written) == passes
    assert format_pipeline(parse_pipeline(written)) == written


def test_format_pipeline_leaves_defaults_out(probe):
    assert format_pipeline([probe(), probe(count=2, pair=None)]) == "probe-options,probe-options{count=2}"


def test_named_pipeline_expands_in_place():
    names = [p.name for p in parse_pipeline("fold-constants,float")]
    assert names == ["fold-constants", *PIPELINES["float"].split(",")]


@pytest.mark.parametrize("name", list(PIPELINES))
def test_every_named_pipeline_parses(name):
    assert parse_pipeline(name)


@pytest.mark.parametrize(
    ("text", "message", "column", "hint"),
    [
        ("fold-constants,canonicalise", "there is no pass canonicalise", 16, "did you mean canonicalize"),
        ("zzz", "there is no pass zzz", 1, "known: "),
        ("canonicalize{x=1}", "pass canonicalize has no option x", 14, "it has no options"),
        (
            "probe-options{size=1}",
            "no option size",
            15,
            "its options: count, p, deep, mode, label, sizes, pair",
        ),
        ("probe-options{count=1 count=2}", "option count is given twice", 23, None),
        ("probe-options{count=many}", "option count must be an integer", 21, None),
        ("probe-options{p=[1]}", "option p must be a number", 17, None),
        ("probe-options{deep=yes}", "option deep must be true or false", 20, None),
        ("probe-options{mode=medium}", "option mode must be one of fast, slow", 20, None),
        (
            "probe-options{sizes=[1, a]}",
            "option sizes must be a list [...], each element an integer",
            21,
            None,
        ),
        ("probe-options{pair=[1]}", "option pair must be a list [an integer, a number] or none", 20, None),
        ("float{x=1}", "pipeline float takes no options", 7, "canonicalize,"),
        ("canonicalize,,eliminate-dead", "this does not belong here", 14, "write: "),
        ("canonicalize{observer}", "this does not belong here", 22, "write: "),
        ("probe-options{count=1", "ends too early", 22, "write: "),
        ("canonicalize,", "ends too early", 14, "write: "),
    ],
)
def test_parse_pipeline_error_points_into_the_text(text, message, column, hint):
    with pytest.raises(ParseError) as caught:
        parse_pipeline(text)
    error = caught.value
    assert message in error.message
    assert error.location.column == column
    assert error.location.excerpt == f"  {text}\n  {' ' * (column - 1)}^"
    assert (error.hint is None) if hint is None else (hint in error.hint)
