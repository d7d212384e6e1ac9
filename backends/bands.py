"""Bands: neighbouring steps computed a few rows at a time, so that what lies between them is never whole in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from qcc.backends.kernel import Call, Kernel, Part, Step
from qcc.backends.split import family_of, split_window, split_window_rows
from qcc.ir.graph import Value

# Params of kernels that compute row by row what the same row of each operand holds.
_ROWWISE = {
    "qcc_binary_params",
    "qcc_f32_binary_params",
    "qcc_requantize_params",
    "qcc_table_params",
    "qcc_f32_affine_params",
    "qcc_f32_unary_params",
    "qcc_quantize_params",
    "qcc_concat_params",
}
_COPY = "qcc_copy_params"
_FROM_WHOLE = {_COPY, "qcc_resize_linear_params"}  # rows of what is read as a whole, as far as params tell


@dataclass(frozen=True)
class Reach:
    """What output rows read of an input ``height`` rows high: row r those from r * stride - pad on, ``extent`` of them."""

    height: int
    stride: int = 1
    pad: int = 0
    extent: int = 1

    def first(self, start: int) -> int:
        """The first row that output rows from ``start`` on read."""
        return min(self.height, max(0, start * self.stride - self.pad))

    def end(self, end: int) -> int:
        """Behind the last row that output rows before ``end`` read."""
        return min(self.height, max(0, (end - 1) * self.stride - self.pad + self.extent))


@dataclass(frozen=True)
class Rowwise:
    """A step that can be computed by rows: ``reaches``, of each of ``values``, what it reads by rows; the rest is read whole."""

    kernel: Kernel
    step: Step
    call: Call
    values: tuple[Value | None, ...]
    reaches: tuple[Reach | None, ...]

    @property
    def height(self) -> int:
        """Rows of the output."""
        return self.step.output.type.shape[1]

    def part(self, start: int, end: int) -> Part:
        """The call for output rows from ``start``, before ``end``; of the input its params name only what these read."""
        part = self._parts(start, end)[0]
        reach, offset = self.reaches[0], part.params.get("offset")
        if self.kernel.params_type == _COPY and reach is not None and isinstance(offset, int):
            return replace(part, params={**part.params, "offset": 0}, inputs=(offset,))
        axis = "input_height" if part.extent[0] == "rows" else "input_width"
        if axis not in part.params or reach is None:
            return part
        rows = reach.end(end) - reach.first(start)
        each = 1 if axis == "input_height" else _width(self.values[0])
        return replace(part, params={**part.params, axis: rows * each})

    def _parts(self, start: int, end: int) -> tuple[Part, ...]:
        def cut(extent: int, grain: int) -> list[tuple[int, int]]:
            each, rest = divmod(extent, self.height)
            return [] if rest else [(start * each, end * each)]

        return next(
            (parts for split in family_of(self.kernel) if (parts := split(self.step, self.call, cut))), ()
        )


def rowwise(kernel: Kernel, step: Step, call: Call) -> Rowwise | None:
    """``step`` as one that can be computed by rows, or None. A row that would see nothing but padding refuses."""
    shape = step.output.type.shape
    values = step.inputs if call.inputs is None else call.inputs
    if len(shape) != 4 or shape[0] != 1 or shape[1] == 1:
        return None
    same = tuple(
        Reach(shape[1])
        if v is not None and len(v.type.shape) == 4 and v.type.shape[:2] == shape[:2]
        else None
        for v in values
    )
    if any(split in (split_window, split_window_rows) for split in family_of(kernel)):
        numbers = {name: value for name, value in call.params.items() if isinstance(value, int)}
        window = Reach(
            numbers["input_height"],
            numbers["stride_height"],
            numbers["pad_top"],
            (numbers["kernel_height"] - 1) * numbers.get("dilation_height", 1) + 1,
        )
        lowest = (shape[1] - 1) * window.stride - window.pad
        if window.pad >= window.extent or lowest >= window.height:
            return None
        if any(v is not None and r is None for v, r in zip(values[1:], same[1:], strict=True)):
            return None
        found = Rowwise(kernel, step, call, values, (window, *same[1:]))
    elif kernel.params_type in _ROWWISE:
        found = Rowwise(kernel, step, call, values, same)
    elif kernel.params_type in _FROM_WHOLE:
        reach = _copied_rows(step, call) if kernel.params_type == _COPY else None
        found = Rowwise(kernel, step, call, values, (reach,) * len(values))
    else:
        return None
    return found if found._parts(0, 1) else None


def _copied_rows(step: Step, call: Call) -> Reach | None:
    """Of a copy that takes each row of an image from one row, at even distances downwards: which it takes."""
    input_shape, height = step.inputs[0].type.shape, step.output.type.shape[1]
    shape, strides, offset = (call.params[name] for name in ("shape", "strides", "offset"))
    assert isinstance(shape, Sequence)
    assert isinstance(strides, Sequence)
    assert isinstance(offset, int)
    axis = next((k for k, n in enumerate(shape) if n > 1), len(shape) - 1)
    each, rest = divmod(shape[axis], height)  # of the outer axis, in a row of the output
    if len(input_shape) != 4 or input_shape[0] != 1 or rest:
        return None
    row = input_shape[2] * input_shape[3]
    spans = [(n - 1) * by for n, by in zip((each, *shape[axis + 1 :]), strides[axis:], strict=True)]
    low = offset % row + sum(span for span in spans if span < 0)
    high = offset % row + sum(span for span in spans if span > 0)
    down, across = divmod(each * strides[axis], row)
    if low < 0 or high >= row or across or down < 1:
        return None
    return Reach(input_shape[1], down, -(offset // row))


@dataclass(frozen=True)
class Schedule:
    """Which rows of which result are computed when.

    ``rows``: of each step and band, the first row and the one behind the last; ``bases``: the first row in memory then;
    ``capacity``: rows that memory holds of its result, all of them where it is needed elsewhere.
    """

    rows: tuple[tuple[tuple[int, int], ...], ...]
    bases: tuple[tuple[int, ...], ...]
    capacity: tuple[int, ...]

    @property
    def bands(self) -> int:
        """How many there are."""
        return len(self.rows[0])


def schedule(steps: Sequence[Rowwise], whole: Sequence[bool], height: int) -> Schedule:
    """``steps`` in bands of ``height`` rows of the last result: each computes just what the bands so far need.

    ``whole``: results that steps elsewhere read; the last one is whole in any case. Rows that a later band reads again stay
    in memory.
    """
    bands = -(-steps[-1].height // height)
    maker = {id(s.step.output): i for i, s in enumerate(steps)}
    rows: list[list[tuple[int, int]]] = [[] for _ in steps]
    done = [0] * len(steps)
    for band in range(bands):
        last = band == bands - 1
        wanted = [s.height if last and w else 0 for s, w in zip(steps, whole, strict=True)]
        wanted[-1] = min(steps[-1].height, (band + 1) * height)
        for i in reversed(range(len(steps))):
            start, end = done[i], max(done[i], wanted[i])
            rows[i].append((start, end))
            done[i] = end
            if end > start:
                for j, reach in _sources(steps[i], maker):
                    wanted[j] = max(wanted[j], reach.end(end))
    bases, capacity = [], []
    lows = _lows(
        {
            j: [(rows[i], r) for i, s in enumerate(steps) for k, r in _sources(s, maker) if k == j]
            for j in range(len(steps))
        },
        bands,
    )
    for i, step in enumerate(steps):
        if whole[i] or i == len(steps) - 1:
            bases.append((0,) * bands)
            capacity.append(step.height)
            continue
        base, found = 0, []
        for (start, end), low in zip(rows[i], lows[i], strict=True):
            if end > start:
                base = max(base, min(start, low))
            found.append(base)
        bases.append(tuple(found))
        capacity.append(max(end - b for (_, end), b in zip(rows[i], found, strict=True)))
    return Schedule(tuple(map(tuple, rows)), tuple(bases), tuple(capacity))


def lead(steps: Sequence[Rowwise], plan: Schedule, value: Value) -> int:
    """Bytes by which the last result must begin before ``value``, so that it overwrites only rows that were read.

    Within a band the last step alone reads and writes at one time.
    """
    out, last = row_bytes(steps[-1].step.output), len(steps) - 1
    readers = [
        (i, r) for i, s in enumerate(steps) for v, r in zip(s.values, s.reaches, strict=True) if v is value
    ]
    if any(reach is None for _, reach in readers):
        return out * steps[-1].height
    known = [(i, r) for i, r in readers if r is not None]
    later = _lows({0: [(plan.rows[i], r) for i, r in known]}, plan.bands)[0]
    own = _lows({0: [(plan.rows[i], r) for i, r in known if i == last]}, plan.bands)[0]
    found = 0
    for band, (_, end) in enumerate(plan.rows[-1]):
        low = min(own[band], later[band + 1]) if band + 1 < plan.bands else own[band]
        if low < _NEVER:
            found = max(found, end * out - low * row_bytes(value))
    return min(found, out * steps[-1].height)


_NEVER = 1 << 60  # a row that is not read


def _lows(
    readers: Mapping[int, Sequence[tuple[Sequence[tuple[int, int]], Reach]]], bands: int
) -> list[list[int]]:
    """Of each value, for each band, the first row that its readers read in it or later. Readers: (rows they compute, reach)."""
    found = []
    for key in sorted(readers):
        lows, low = [], _NEVER
        for band in reversed(range(bands)):
            starts = [
                reach.first(rows[band][0]) for rows, reach in readers[key] if rows[band][1] > rows[band][0]
            ]
            low = min([low, *starts])
            lows.append(low)
        found.append(lows[::-1])
    return found


def _sources(step: Rowwise, maker: Mapping[int, int]) -> list[tuple[int, Reach]]:
    return [
        (maker[id(v)], reach)
        for v, reach in zip(step.values, step.reaches, strict=True)
        if v is not None and reach is not None and id(v) in maker
    ]


def row_bytes(value: Value) -> int:
    """Of an image [1, H, W, C]."""
    return value.type.bytes // value.type.shape[1]


def _width(value: Value | None) -> int:
    assert value is not None
    return value.type.shape[2]
