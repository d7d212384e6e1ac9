"""Where two runs first diverge: the same samples through two models, every value they share side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc import onnx_importer, verify
from qcc.float_runtime import FloatRuntime
from qcc.ir import fixedpoint, interpreter
from qcc.ir.errors import QccError
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.parser import load_graph
from qcc.options import CompileOptions
from qcc.passes.manager import run_pipeline
from qcc.report import JSON_FILE
from qcc.saved import open_saved

Array = NDArray[Any]
Arrays = Mapping[str, Array]

SUSPICIOUS_DB = 20.0  # what is marked where no threshold is given: noise of a tenth of the signal's amplitude
FINE_DB = 60.0  # drops count from here: above, two runs are as good as equal


@dataclass(frozen=True)
class Subject:
    """One of the two: a graph of any stage. ``kept_channels``: by value name, where dead ones were removed.

    ``factors``, ``offsets``: by value name, what it was multiplied with, and what was taken from it then, by passes that
    shape channels; they broadcast to the value as it was. ``others``: names of values that were changed otherwise.
    """

    name: str
    graph: Graph
    kept_channels: Mapping[str, list[int]] = field(default_factory=dict)
    factors: Mapping[str, Any] = field(default_factory=dict)
    offsets: Mapping[str, Any] = field(default_factory=dict)
    others: Collection[str] = ()


@dataclass
class Difference:
    """One value in both runs, over all samples; ``integers``: both hold it in the same codes, which can be equal."""

    name: str
    op: str
    integers: bool
    signal: float = 0.0
    other: float = 0.0
    product: float = 0.0
    noise: float = 0.0
    max_error: float = 0.0
    equal: bool = True
    drop_db: float = 0.0  # how much lower the SQNR is than that of what the value is computed from

    def add(self, a: Array, b: Array) -> None:
        """Count the values of one sample, as reals."""
        a, b = np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64)
        d = b - a
        self.signal += float(a @ a)
        self.other += float(b @ b)
        self.product += float(a @ b)
        self.noise += float(d @ d)
        self.max_error = max(self.max_error, float(np.abs(d).max(initial=0.0)))
        self.equal &= bool(np.array_equal(a, b, equal_nan=True))

    @property
    def sqnr_db(self) -> float:
        """10 log10(|a|^2 / |b - a|^2); infinite where nothing differs."""
        if math.isnan(self.noise):
            return -math.inf
        if self.noise == 0.0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf

    @property
    def cosine(self) -> float:
        """Of the angle between both; 1 where both are zero, 0 where one is."""
        norms = math.sqrt(self.signal * self.other)
        return self.product / norms if norms else float(self.signal == self.other)


@dataclass(frozen=True)
class Comparison:
    """``rows`` in the order of execution of b; ``diverged``: indices below the threshold, or unequal in integers.

    ``computed``: how many values a and b have, partners or not.
    """

    rows: list[Difference]
    diverged: list[int]
    computed: tuple[int, int]

    @property
    def first(self) -> Difference | None:
        """Where the runs part."""
        return self.rows[self.diverged[0]] if self.diverged else None

    @property
    def steepest(self) -> Difference | None:
        """The value that loses most against what it is computed from."""
        losing = [r for r in self.rows if r.drop_db > 0]
        return max(losing, key=lambda r: r.drop_db) if losing else None


def open_subject(path: Path, options: CompileOptions) -> Subject:
    """An .onnx file after the float passes of ``options``, a .qir graph, or the graph of a folder of qcc compile."""
    if path.suffix == ".qir":
        return Subject(str(path), load_graph(path))
    if path.is_dir():
        graph, report = open_saved(path).graph, path / JSON_FILE
        found = json.loads(report.read_text(encoding="utf-8")) if report.is_file() else {}
        kept = found.get("dead_channels", {}).get("kept_channels", {})
        factors, offsets = (found.get(f"{how}_channels", {}) for how in ("equalized", "absorbed"))
        return Subject(str(path), graph, kept, factors, offsets, found.get("otherwise_changed", ()))
    imported = onnx_importer.import_model(path, options.shapes)
    return Subject(str(path), run_pipeline(imported, options.float_pipeline))


def compare(
    a: Subject,
    b: Subject,
    inputs: Arrays,
    threshold_db: float | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Comparison:
    """Run ``inputs`` (float32 by name, N samples) through both. ``a`` is the reference.

    Values are matched by name and, the results, by the names of outputs too. Pairs in the same integer codes diverge
    where they are not equal, others where the SQNR is under ``threshold_db`` (default: SUSPICIOUS_DB); given a
    threshold, it is that which counts for all. Raises QccError where the inputs differ, or nothing matches.
    """
    names = [sorted(v.name for v in s.graph.inputs) for s in (a, b)]
    if names[0] != names[1]:
        raise QccError(
            f"the inputs are not the same: {a.name} has {names[0]}, {b.name} has {names[1]}",
            hint="compare two forms of one model",
        )
    pairs = _pairs(a, b)
    if not pairs:
        raise QccError(f"no value of {a.name} is in {b.name}", hint="compare two forms of one model")
    rows = [Difference(name, _op(v), _same_codes(u, v)) for name, u, v in pairs]
    observed = _Run(a.graph, [u for _, u, _ in pairs]), _Run(b.graph, [v for _, _, v in pairs])
    count = len(next(iter(inputs.values())))
    for index in range(count):
        sample = {name: np.asarray(x[index : index + 1], np.float32) for name, x in inputs.items()}
        left, right = (run(sample) for run in observed)
        for row, (_, u, v) in zip(rows, pairs, strict=True):
            row.add(_like(left[id(u)], a, u, b, v), _like(right[id(v)], b, v, a, u))
        progress("comparing", index + 1, count)
    _find_drops(rows, pairs)
    limit = SUSPICIOUS_DB if threshold_db is None else threshold_db
    diverged = [
        i
        for i, row in enumerate(rows)
        if (row.integers and threshold_db is None and not row.equal) or row.sqnr_db < limit
    ]
    return Comparison(rows, diverged, (len(_computed(a.graph)), len(_computed(b.graph))))


class _Run:
    """A graph that shows some of its values as reals, for one sample at a time."""

    def __init__(self, graph: Graph, values: list[Value]) -> None:
        self.graph = graph
        self.values = list({id(v): v for v in values}.values())
        self.runtime = FloatRuntime(graph, self.values) if graph.stage == "float" else None

    def __call__(self, sample: Arrays) -> dict[int, Array]:
        """By id, in the shape of the value; the codes themselves where it has no qparams."""
        if self.runtime is not None:
            (arrays,) = self.runtime.observed(sample)
            return {id(v): np.reshape(arrays[v.name], v.type.shape) for v in self.values}
        wanted = {id(v) for v in self.values}
        found: dict[int, Array] = {}

        def keep(value: Value, array: Array) -> None:
            if id(value) in wanted:
                integer, qparams = value.type.dtype.is_integer, value.type.qparams
                real = fixedpoint.dequantize(array, qparams) if integer and qparams is not None else array
                found[id(value)] = np.reshape(real, value.type.shape)

        quantized = verify.quantize_inputs(self.graph, sample)
        interpreter.run(self.graph, quantized, observe=keep, fake_quant=self.graph.stage == "annotated")
        return found


def _computed(graph: Graph) -> list[Value]:
    return [*graph.inputs, *(n.output for n in graph.nodes)]


def _pairs(a: Subject, b: Subject) -> list[tuple[str, Value, Value]]:
    """(name, value of a, value of b) in the order of b. An s32 accumulator has no partner but another one."""
    in_a = {v.name: v for v in _computed(a.graph)}
    outputs = dict(zip(a.graph.output_names, a.graph.outputs, strict=True))
    named = {id(v): n for v, n in zip(b.graph.outputs, b.graph.output_names, strict=True)}
    pairs = []
    for v in _computed(b.graph):
        u = outputs.get(named.get(id(v), "")) or in_a.get(v.name)
        if u is not None and not u.is_constant and _comparable(a, u, b, v):
            pairs.append((named.get(id(v), v.name), u, v))
    return pairs


def _comparable(a: Subject, u: Value, b: Subject, v: Value) -> bool:
    if u.name in a.others or v.name in b.others:
        return False
    if u.type.shape == v.type.shape:
        return True
    cut = u.name in a.kept_channels or v.name in b.kept_channels
    return cut and u.type.shape[:-1] == v.type.shape[:-1]


def _like(array: Array, own: Subject, value: Value, other: Subject, partner: Value) -> Array:
    """``array`` as it was before channels were shaped, and without the channels that only the other side removed."""
    kept = own.kept_channels.get(value.name)
    if value.name in own.offsets:
        array = array + _channels_left(own.offsets[value.name], kept)
    if value.name in own.factors:
        array = array / _channels_left(own.factors[value.name], kept)
    theirs = other.kept_channels.get(partner.name)
    if theirs is None or kept == theirs:
        return array
    if kept is None:
        return np.asarray(array[..., theirs])
    raise QccError(f"%{value.name} lost different channels in {own.name} and in {other.name}")


def _channels_left(numbers: Any, kept: list[int] | None) -> NDArray[np.float32]:
    """What broadcasts to a value, for those of its channels that were kept."""
    found = np.asarray(numbers, np.float32)
    return found if kept is None or found.shape[-1] == 1 else found[..., kept]


def _same_codes(u: Value, v: Value) -> bool:
    return u.type.dtype.is_integer and u.type.dtype == v.type.dtype and u.type.qparams == v.type.qparams


def _op(value: Value) -> str:
    return value.producer.op.name if value.producer is not None else "input"


def _find_drops(rows: list[Difference], pairs: list[tuple[str, Value, Value]]) -> None:
    """Set ``drop_db`` of each row: against the worst of the matched values it is computed from."""
    sqnr = {id(v): min(row.sqnr_db, FINE_DB) for row, (_, _, v) in zip(rows, pairs, strict=True)}

    def before(node: Node | None) -> list[float]:
        if node is None:
            return []
        operands = [v for v in node.inputs if v is not None and not v.is_constant]
        return [s for v in operands for s in ([sqnr[id(v)]] if id(v) in sqnr else before(v.producer))]

    for row, (_, _, v) in zip(rows, pairs, strict=True):
        if v.producer is None:
            continue
        row.drop_db = max(0.0, min(before(v.producer), default=FINE_DB) - sqnr[id(v)])
