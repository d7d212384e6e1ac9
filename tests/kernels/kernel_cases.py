"""Random small cases with shapes around every block size and unrolled length of the kernels."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcc.ir.errors import VerifyError
from qcc.ir.op import OPS, Case, Op
from qcc.ir.types import f32

Rng = np.random.Generator
Array = NDArray[Any]
CHANNELS = (1, 2, 3, 15, 16, 17, 31, 32, 33)


def odd_cases(seed: int, each: int = 6) -> list[tuple[str, Case]]:
    """``each`` cases of every family below, by name; what an op's own rules refuse is drawn again."""
    rng = np.random.default_rng(seed)
    found = []
    for make in FAMILIES:
        made = 0
        while made < each:
            case = make(rng)
            try:
                case.op.infer(*(None if a is None else f32(*a.shape) for a in case.inputs))
            except VerifyError:
                continue
            found.append((f"{make.__name__}_{made}", case))
            made += 1
    return found


def _pick(rng: Rng, *values: Any) -> Any:
    return values[rng.integers(len(values))]


def _normal(rng: Rng, *shape: int) -> Array:
    return rng.normal(size=shape).astype(np.float32)


def _op(name: str, *args: Any, **kwargs: Any) -> Op:
    return OPS[name](*args, **kwargs)


def _shape(rng: Rng, rank: int, largest: int = 5) -> tuple[int, ...]:
    return tuple(int(n) for n in rng.integers(1, largest + 1, size=rank))


def _image(rng: Rng) -> tuple[int, int, int, int]:
    return 1, int(rng.integers(1, 9)), int(rng.integers(1, 9)), int(_pick(rng, *CHANNELS))


def _two(rng: Rng, low: int, high: int) -> tuple[int, int]:
    return int(rng.integers(low, high + 1)), int(rng.integers(low, high + 1))


def _four(rng: Rng, high: int) -> tuple[int, int, int, int]:
    return (*_two(rng, 0, high), *_two(rng, 0, high))


def _filters(rng: Rng, channels: int) -> tuple[int, tuple[int, int, int, int]]:
    kernel = _two(rng, 1, 3)
    groups = int(_pick(rng, 1, 1, channels, *(g for g in (2, 3) if channels % g == 0)))
    outputs = groups * int(_pick(rng, 1, 2, 15, 16, 17) if groups < 4 else 1)
    return groups, (outputs, *kernel, channels // groups)


def conv2d(rng: Rng) -> Case:
    x = _image(rng)
    groups, w = _filters(rng, x[3])
    op = _op("conv2d", _two(rng, 1, 3), _four(rng, 2), _two(rng, 1, 2), groups)
    return Case(op, (_normal(rng, *x), _normal(rng, *w), _normal(rng, w[0])), (False, True, True))


def conv_transpose2d(rng: Rng) -> Case:
    x = _image(rng)
    groups, w = _filters(rng, x[3])
    op = _op("conv_transpose2d", _two(rng, 1, 3), _four(rng, 1), _two(rng, 0, 1), _two(rng, 1, 2), groups)
    bias = _pick(rng, _normal(rng, w[0]), None)
    return Case(op, (_normal(rng, *x), _normal(rng, *w), bias), (False, True, True))


def dense(rng: Rng) -> Case:
    depth, outputs = int(_pick(rng, *CHANNELS, 70)), int(_pick(rng, *CHANNELS))
    x = _normal(rng, *_shape(rng, int(rng.integers(0, 3))), depth)
    return Case(_op("dense"), (x, _normal(rng, outputs, depth), _normal(rng, outputs)), (False, True, True))


def matmul(rng: Rng) -> Case:
    leading = _shape(rng, int(rng.integers(0, 4)), 3)
    rows, depth, columns = _shape(rng, 3, 18)
    shapes = []
    for matrix in ((rows, depth), (depth, columns)):
        kept = tuple(n if rng.random() < 0.7 else 1 for n in leading)
        shapes.append((*kept[int(rng.integers(0, len(kept) + 1)) :], *matrix))
    constant = _pick(rng, (False, False), (True, False), (False, True))
    return Case(_op("matmul"), tuple(_normal(rng, *s) for s in shapes), constant)


def binary(rng: Rng) -> Case:
    name = _pick(rng, "add", "sub", "mul", "div", "min", "max", "pow")
    shape = _shape(rng, int(rng.integers(1, 6)), 4)
    operands = []
    for _ in range(2):
        kept = tuple(n if rng.random() < 0.6 else 1 for n in shape)
        cut = int(rng.integers(0, len(kept) + 1)) if rng.random() < 0.3 else 0
        operands.append(np.asarray(rng.uniform(0.5, 2, size=kept[cut:]), np.float32))
    constant = _pick(rng, (False, False), (True, False), (False, True))
    return Case(_op(name), tuple(operands), constant)


def max_pool2d(rng: Rng) -> Case:
    op = _op(
        "max_pool2d",
        _two(rng, 1, 4),
        _two(rng, 1, 3),
        _four(rng, 2),
        _two(rng, 1, 2),
        bool(rng.random() < 0.5),
    )
    return Case(op, (_normal(rng, *_image(rng)),))


def avg_pool2d(rng: Rng) -> Case:
    windows = _two(rng, 1, 4), _two(rng, 1, 3), _four(rng, 2), _two(rng, 1, 2)
    op = _op("avg_pool2d", *windows, bool(rng.random() < 0.5), bool(rng.random() < 0.5))
    return Case(op, (_normal(rng, *_image(rng)),))


def resize_nearest(rng: Rng) -> Case:
    return _resize(rng, "resize_nearest")


def resize_linear(rng: Rng) -> Case:
    return _resize(rng, "resize_linear")


def _resize(rng: Rng, name: str) -> Case:
    x, out = _image(rng), _two(rng, 1, 11)
    coordinates = _pick(rng, "half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    return Case(_op(name, out, (out[0] / x[1], out[1] / x[2]), coordinates), (_normal(rng, *x),))


def reduction(rng: Rng) -> Case:
    name = _pick(rng, "reduce_mean", "reduce_sum", "reduce_max", "reduce_min", "reduce_prod")
    shape = (*_shape(rng, int(rng.integers(0, 5)), 4), int(_pick(rng, *CHANNELS)))
    axes = tuple(axis for axis in range(len(shape)) if rng.random() < 0.5)
    return Case(_op(name, axes), (_normal(rng, *shape),))


def softmax(rng: Rng) -> Case:
    shape = _shape(rng, int(rng.integers(1, 5)), 9)
    name = _pick(rng, "softmax", "softmax", "log_softmax")
    return Case(_op(name, int(rng.integers(len(shape)))), (_normal(rng, *shape) * 5,))


def layer_norm(rng: Rng) -> Case:
    shape = _shape(rng, int(rng.integers(2, 5)), 7)
    axis = int(rng.integers(len(shape)))
    parameter = shape[int(rng.integers(0, axis + 1)) :]
    return Case(
        _op("layer_norm", axis),
        (_normal(rng, *shape), _normal(rng, *parameter), _normal(rng, 1)),
        (False, True, True),
    )


def transpose(rng: Rng) -> Case:
    x = _normal(rng, *_shape(rng, int(rng.integers(1, 7)), 4))
    return Case(_op("transpose", tuple(int(a) for a in rng.permutation(x.ndim))), (x,))


def slice_(rng: Rng) -> Case:
    x = _normal(rng, *_shape(rng, int(rng.integers(1, 7)), 5))
    starts, ends, steps = [], [], []
    for n in x.shape:
        step = int(_pick(rng, 1, 1, 2, 3, -1, -2))
        first, last = sorted(int(i) for i in rng.integers(0, n, size=2))
        starts.append(first if step > 0 else last)
        ends.append(last + 1 if step > 0 else first - 1 - (n if first == 0 else 0))
        steps.append(step)
    return Case(_op("slice", tuple(range(x.ndim)), tuple(starts), tuple(ends), tuple(steps)), (x,))


def pad(rng: Rng) -> Case:
    x = _normal(rng, *_shape(rng, int(rng.integers(1, 6)), 5))
    mode = _pick(rng, "constant", "edge", "reflect")
    low = -2 if mode == "constant" else 0
    begins, ends = (tuple(int(n) for n in rng.integers(low, 3, size=x.ndim)) for _ in range(2))
    return Case(_op("pad", begins, ends, float(rng.normal()) if mode == "constant" else 0.0, mode), (x,))


def take(rng: Rng) -> Case:
    x = _normal(rng, *_shape(rng, int(rng.integers(1, 7)), 4))
    axis = int(rng.integers(x.ndim))
    indices = tuple(int(i) for i in rng.integers(0, x.shape[axis], size=int(rng.integers(1, 7))))
    return Case(_op("take", axis, indices), (x,))


def tile(rng: Rng) -> Case:
    x = _normal(rng, *_shape(rng, int(rng.integers(1, 5)), 3))
    return Case(_op("tile", _shape(rng, x.ndim, 3)), (x,))


def expand(rng: Rng) -> Case:
    shape = _shape(rng, int(rng.integers(1, 7)), 3)
    return Case(_op("expand", shape), (_normal(rng, *(n if rng.random() < 0.5 else 1 for n in shape)),))


def concat(rng: Rng) -> Case:
    shape = _shape(rng, int(rng.integers(1, 5)), 4)
    axis, count = int(rng.integers(len(shape))), int(rng.integers(1, 5))
    sizes = rng.integers(1, 5, size=count)
    arrays = tuple(_normal(rng, *shape[:axis], int(n), *shape[axis + 1 :]) for n in sizes)
    # the first operand stays variable, so that the node is not a constant as a whole
    return Case(_op("concat", axis), arrays, (False, *(bool(rng.random() < 0.4) for _ in arrays[1:])))


FAMILIES: tuple[Callable[[Rng], Case], ...] = (
    conv2d,
    conv_transpose2d,
    dense,
    matmul,
    binary,
    max_pool2d,
    avg_pool2d,
    resize_nearest,
    resize_linear,
    reduction,
    softmax,
    layer_norm,
    transpose,
    slice_,
    pad,
    take,
    tile,
    expand,
    concat,
)


def registry_cases(seed: int = 0) -> Iterator[tuple[str, Case]]:
    """Every case of every op with a float meaning that kernels have."""
    for name, op in OPS.items():
        if op.float_ref is not Op.float_ref and not op.simulated:
            for index, case in enumerate(op.cases(np.random.default_rng(seed))):
                yield f"{name}_case{index}", case
