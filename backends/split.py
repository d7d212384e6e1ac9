"""Splitting: a call becomes parts for threads, each the same kernel on some of the output's rows, pixels or channels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

from qcc.backends.kernel import Call, Cut, Kernel, Part, Split, Step

GRAIN = 64  # elements: flat ranges begin at whole vectors and cache lines
# Elements from output pixel to pixel: a kernel with this field can write some channels of each.
OUTPUT_STEP = "output_step"
_OF_PIXELS = ("factors", "weight")  # constants with a value for each output pixel


def parts_of(kernel: Kernel, step: Step, call: Call, threads: int) -> tuple[Part, ...]:
    """The most even parts for ``threads`` threads, none where the call cannot be split.

    Where rows and channels are as even, rows win, though all threads then read all weights: for ResNet-50, channels
    were 1 % slower, as each thread reads, and where there is padding copies, the whole input.
    """
    ways = family_of(kernel)
    if kernel.channel_block:
        ways = (*ways, split_channels(kernel.channel_block))

    def evenly(extent: int, grain: int) -> list[tuple[int, int]]:
        return ranges(extent, threads, grain)

    found = [split(step, call, evenly) for split in ways]
    useful = [parts for parts in found if len(parts) > 1 and _keeps_in_place(kernel, step, call, parts)]
    return min(useful, key=largest_share, default=())


def family_of(kernel: Kernel) -> tuple[Split, ...]:
    """The ways to split the calls of ``kernel``, without those of its row of the table."""
    return (kernel.split,) if kernel.split else FAMILIES.get(kernel.params_type, ())


def largest_share(parts: tuple[Part, ...]) -> float:
    """Of the work of a call, that of its largest part."""
    return max(part.size for part in parts) / sum(part.size for part in parts)


def _keeps_in_place(kernel: Kernel, step: Step, call: Call, parts: tuple[Part, ...]) -> bool:
    """False where a part may read what another one has written over: the output in place of an input it reads beyond."""
    inputs = step.inputs if call.inputs is None else call.inputs
    for index in kernel.overwritable:
        value = inputs[index] if index < len(inputs) else None
        if value is not None and value.type.bytes >= step.output.type.bytes:
            sizes = value.type.dtype.bytes, step.output.type.dtype.bytes
            if any(part.inputs[index] * sizes[0] != part.output * sizes[1] for part in parts):
                return False
    return True


def ranges(extent: int, threads: int, grain: int = 1) -> list[tuple[int, int]]:
    """At most ``threads`` ranges of nearly equal size that begin at multiples of ``grain``; together 0 to ``extent``."""
    units = -(-extent // grain)
    count = min(threads, units)
    ends = [min(extent, grain * (units * (i + 1) // count)) for i in range(count)]
    return list(zip([0, *ends], ends, strict=False))


# ---------------------------------------------------------------- windows: convolution, pooling
def split_window(step: Step, call: Call, cut: Cut) -> tuple[Part, ...]:
    """Rows of one image; pixels where the kernel sees one at a time, and columns of an image one row high."""
    params = _integers(call)
    if params["batch"] != 1:
        return ()
    if _is_pointwise(params):
        flat = {
            f"{side}_{axis}": size
            for side in ("input", "output")
            for axis, size in (("height", 1), ("width", params[f"{side}_height"] * params[f"{side}_width"]))
        }
        return _window(call, params | flat, "width", cut, "pixels")
    if params["input_height"] == params["output_height"] == 1:
        return _window(call, params, "width", cut, "columns")
    return _window(call, params, "height", cut, "rows")


def split_window_rows(step: Step, call: Call, cut: Cut) -> tuple[Part, ...]:
    """Rows of one image, of kernels whose workspace holds some rows of it."""
    params = _integers(call)
    return _window(call, params, "height", cut, "rows") if params["batch"] == 1 else ()


def _is_pointwise(params: Mapping[str, int]) -> bool:
    """1x1 windows at each pixel: the image is as good as one long row."""
    ones = ("kernel_height", "kernel_width", "stride_height", "stride_width")
    return (
        all(params[name] == 1 for name in ones)
        and params["pad_top"] == params["pad_left"] == 0
        and all(params[f"input_{axis}"] == params[f"output_{axis}"] for axis in ("height", "width"))
    )


def _window(call: Call, params: Mapping[str, int], axis: str, cut: Cut, what: str) -> tuple[Part, ...]:
    """Parts along ``axis``; the other axis is whole, or 1 where the axis is "width"."""
    pad = "pad_top" if axis == "height" else "pad_left"
    width = (params["input_width"], params["output_width"]) if axis == "height" else (1, 1)
    read, written = (
        columns
        * next(params[name] for name in (f"{side}_step", f"{side}_channels", "channels") if name in params)
        for side, columns in zip(("input", "output"), width, strict=True)
    )
    parts = []
    for start, end in cut(params[f"output_{axis}"], 1):
        first = start * params[f"stride_{axis}"] - params[pad]
        if first >= params[f"input_{axis}"]:  # a part that sees padding only
            return ()
        changed = {
            f"input_{axis}": params[f"input_{axis}"] - max(0, first),
            f"output_{axis}": end - start,
            pad: max(0, -first),
        }
        offsets = {name: start * width[1] for name in _OF_PIXELS if call.constants.get(name) is not None}
        inputs = _offsets(call, max(0, first) * read, start * written)
        parts.append(
            Part(
                {**call.params, **params, **changed} if what == "pixels" else {**call.params, **changed},
                inputs,
                start * written,
                offsets,
                (what, start, end),
            )
        )
    return tuple(parts)


def split_resize(step: Step, call: Call, cut: Cut) -> tuple[Part, ...]:
    """Rows of the output; each names the two rows of the input that it mixes."""
    params = _integers(call)
    if params["batch"] != 1:
        return ()
    row = params["output_width"] * params["channels"]
    return tuple(
        Part(
            {**call.params, "output_height": end - start},
            _offsets(call, 0),
            start * row,
            {"rows": 2 * start, "row_weights": start},
            ("rows", start, end),
        )
        for start, end in cut(params["output_height"], 1)
    )


# ---------------------------------------------------------------- channels
def split_channels(block: int) -> Split:
    """Output channels in whole blocks, of kernels whose constants are packed in such blocks."""

    def split(step: Step, call: Call, cut: Cut) -> tuple[Part, ...]:
        params = _integers(call)
        pixels = prod(params.get(name, 1) for name in ("batch", "rows", "output_height", "output_width"))
        if params.get("groups", 1) != 1 or (pixels != 1 and OUTPUT_STEP not in params):
            return ()
        bias = call.constants["bias"]
        rounded = params["output_channels"] if bias is None else bias.size
        return tuple(
            Part(
                {**call.params, "output_channels": end - start},
                _offsets(call, 0, start),
                start,
                {
                    name: array.size // rounded * start
                    for name, array in call.constants.items()
                    if array is not None
                },
                ("channels", start, end),
            )
            for start, end in cut(params["output_channels"], block)
        )

    return split


def split_vectors(step: Step, call: Call, cut: Cut) -> tuple[Part, ...]:
    """Output channels in blocks of ``vectors`` registers of 16."""
    return split_channels(16 * _integers(call)["vectors"])(step, call, cut)


# ---------------------------------------------------------------- flat ranges and outer axes
def split_rows(rows: str, *inner: str) -> Split:
    """The count ``rows`` of runs of the product of ``inner`` elements, the same in all operands and the output."""

    def split(step: Step, call: Call, cut: Cut) -> tuple[Part, ...]:
        params = _integers(call)
        run = prod(params[name] for name in inner)
        grain = GRAIN if run == 1 else 1
        return tuple(
            Part(
                {**call.params, rows: end - start},
                _offsets(call, start * run, start * run),
                start * run,
                {},
                ("elements" if run == 1 else "rows", start, end),
            )
            for start, end in cut(params[rows], grain)
        )

    return split


def split_dense(step: Step, call: Call, cut: Cut) -> tuple[Part, ...]:
    """Rows, which differ in length between input and output."""
    params = _integers(call)
    return tuple(
        Part(
            {**call.params, "rows": end - start},
            _offsets(call, start * params["input_channels"], start * params["output_channels"]),
            start * params["output_channels"],
            {},
            ("rows", start, end),
        )
        for start, end in cut(params["rows"], 1)
    )


def split_binary(count: str, strides: tuple[str, str], constant: str) -> Split:
    """The outermost axis of ``count`` that is no 1; ``constant`` stands for an operand that is not passed."""

    def split(step: Step, call: Call, cut: Cut) -> tuple[Part, ...]:
        extents = _sequence(call, count)
        axis = next((k for k, n in enumerate(extents) if n > 1), len(extents) - 1)
        inner = prod(extents[axis + 1 :])
        steps = [_sequence(call, name)[axis] for name in strides]
        if inner == 1 and call.params.get("per_channel"):
            return ()
        passed = step.inputs if call.inputs is None else call.inputs
        parts = []
        for start, end in cut(extents[axis], GRAIN if inner == 1 else 1):
            moved = [start * by for by in steps]
            constants = {}
            if call.constants.get(constant) is not None:
                missing = passed.index(None) if None in passed else 1
                constants = {constant: moved[missing]}
            parts.append(
                Part(
                    {**call.params, count: (*extents[:axis], end - start, *extents[axis + 1 :])},
                    tuple(0 if v is None else moved[i] for i, v in enumerate(passed)),
                    start * inner,
                    constants,
                    ("rows" if inner > 1 else "elements", start, end),
                )
            )
        return tuple(parts)

    return split


def split_copy(step: Step, call: Call, cut: Cut) -> tuple[Part, ...]:
    """The outermost axis of the output that is no 1."""
    shape, strides = _sequence(call, "shape"), _sequence(call, "strides")
    axis = next((k for k, n in enumerate(shape) if n > 1), len(shape) - 1)
    offset = _integers(call)["offset"]
    return tuple(
        Part(
            {
                **call.params,
                "offset": offset + start * strides[axis],
                "shape": (*shape[:axis], end - start, *shape[axis + 1 :]),
            },
            _offsets(call, 0),
            start * prod(shape[axis + 1 :]),
            {},
            ("rows", start, end),
        )
        for start, end in cut(shape[axis], 1)
    )


def split_concat(step: Step, call: Call, cut: Cut) -> tuple[Part, ...]:
    """Blocks: each takes a run of every operand."""
    lengths = call.constants["block_bytes"]
    if call.constants["constant"] is not None or lengths is None:
        return ()
    size = step.output.type.dtype.bytes
    runs = [int(n) // size for n in lengths]
    return tuple(
        Part(
            {**call.params, "blocks": end - start},
            tuple(start * run for run in runs),
            start * sum(runs),
            {},
            ("rows", start, end),
        )
        for start, end in cut(_integers(call)["blocks"], 1)
    )


def _integers(call: Call) -> dict[str, int]:
    return {name: value for name, value in call.params.items() if isinstance(value, int)}


def _sequence(call: Call, name: str) -> tuple[int, ...]:
    value = call.params[name]
    assert not isinstance(value, int | float)
    return tuple(value)


def _offsets(call: Call, first: int, others: int = 0) -> tuple[int, ...]:
    """Of every pointer: input 0, and operands of the output's shape behind it."""

    def each() -> Iterator[int]:
        for index, value in enumerate(call.inputs or (True,)):
            yield 0 if value is None else first if index == 0 else others

    return tuple(each())


_softmax = split_rows("rows", "count")
_outer = split_rows("outer", "count", "inner")
_channels = split_rows("rows", "channels")
_count = split_rows("count")

FAMILIES: Mapping[str, tuple[Split, ...]] = {
    "qcc_avx2_conv2d_params": (split_window_rows,),
    "qcc_neon_conv2d_params": (split_window,),
    "qcc_dsp_conv2d_params": (split_window_rows,),
    "qcc_conv2d_params": (split_window,),
    "qcc_f32_conv2d_params": (split_window,),
    "qcc_f32_stored_conv2d_params": (split_window,),
    "qcc_avx512_conv_params": (split_window, split_vectors),
    "qcc_avx512_depthwise_params": (split_window,),
    "qcc_max_pool2d_params": (split_window,),
    "qcc_avg_pool2d_params": (split_window,),
    "qcc_f32_pool2d_params": (split_window,),
    "qcc_resize_linear_params": (split_resize,),
    "qcc_f32_resize_linear_params": (split_resize,),
    "qcc_dense_params": (split_dense,),
    "qcc_dense_accumulator_params": (split_dense,),
    "qcc_binary_params": (split_binary("count", ("a_stride", "b_stride"), "b"),),
    "qcc_f32_binary_params": (split_binary("shape", ("a_strides", "b_strides"), "constant"),),
    "qcc_requantize_params": (_channels,),
    "qcc_table_params": (_channels,),
    "qcc_f32_affine_params": (_channels,),
    "qcc_f32_unary_params": (_count,),
    "qcc_f32_fake_quant_params": (_count,),
    "qcc_quantize_params": (_count,),
    "qcc_softmax_params": (_softmax,),
    "qcc_wide_softmax_params": (_softmax,),
    "qcc_f32_softmax_params": (_outer,),
    "qcc_copy_params": (split_copy,),
    "qcc_concat_params": (split_concat,),
    "qcc_wide_conv2d_params": (split_window,),
    "qcc_wide_max_pool2d_params": (split_window,),
    "qcc_wide_avg_pool2d_params": (split_window,),
    "qcc_wide_resize_linear_params": (split_resize,),
    "qcc_wide_binary_params": (split_binary("count", ("a_stride", "b_stride"), "constant"),),
    "qcc_wide_requantize_params": (_channels,),
    "qcc_wide_table_params": (_channels,),
    "qcc_wide_dense_accumulator_params": (split_dense,),
    "qcc_any_softmax_params": (_softmax,),
    "qcc_wide_quantize_params": (_count,),
    "qcc_avx512_wide_conv_params": (split_window, split_vectors),
    "qcc_avx512_wide_depthwise_params": (split_window,),
    "qcc_avx512_wide_add_params": (_count,),
    "qcc_neon_wide_conv2d_params": (split_window,),
    "qcc_neon_wide_add_params": (_count,),
}
