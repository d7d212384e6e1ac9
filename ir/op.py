"""What an op is: one class that declares operands, attributes, types and every meaning qcc needs of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, dataclass_transform

import numpy as np
from numpy.typing import NDArray

from qcc.ir.errors import VerifyError
from qcc.ir.interval import Interval
from qcc.ir.qparams import QParams
from qcc.ir.types import TensorType

if TYPE_CHECKING:
    from qcc.ir.graph import Node, Value
    from qcc.ir.lowering import Lowering

Array = NDArray[Any]


@dataclass(frozen=True)
class Signature:
    """Types of one application: operands (None where absent) and result."""

    operands: tuple[TensorType | None, ...]
    result: TensorType

    def operand(self, index: int) -> TensorType:
        """The type of a present operand."""
        type_ = self.operands[index]
        assert type_ is not None
        return type_

    def qparams(self, index: int) -> QParams:
        """The qparams of a present integer operand."""
        qparams = self.operand(index).qparams
        if qparams is None:
            raise VerifyError(f"operand {index} has no qparams")
        return qparams


@dataclass(frozen=True)
class QuantRule:
    """What quantization must know of an op.

    ``weight``: index of the operand quantized symmetrically per channel of ``weight_axis`` (None: no weight).
    ``bias``: index of the operand that becomes s32 at the accumulator's scale.
    ``shares``: result and all data operands have the same qparams (concat, pooling, reshape).
    ``result``, ``wide_result``: qparams the integer algorithm dictates for the result (softmax), in 8 and in 16 bits.
    """

    weight: int | None = None
    weight_axis: int = 0
    bias: int | None = None
    shares: bool = False
    result: QParams | None = None
    wide_result: QParams | None = None


@dataclass(frozen=True)
class Case:
    """A small example of an op: generic tests run on it. Arrays are float32; ``constant`` marks weights."""

    op: Op
    inputs: tuple[Array | None, ...]
    constant: tuple[bool, ...] = field(default=())


class Op:
    """Base of all ops. A subclass is a frozen dataclass whose fields are the op's attributes.

    Class variables: ``name``; ``operands`` (``"x"``, optional ``"bias?"``, variadic ``"xs*"`` alone);
    ``elementwise`` for ops that work element by element with numpy broadcasting (they commute with
    permutations and may join a table); ``accumulates`` for ops whose integer form leaves an s32 accumulator;
    ``chooses_qparams`` for integer ops whose result qparams are a free choice and not inferred;
    ``accepts_accumulator`` for ops that can take the s32 accumulator of a fused operand; ``folds_zero_point`` for
    ops with an attribute ``x_zero_point`` whose contribution to the accumulator is the same everywhere;
    ``wide_result`` for ops whose s32 accumulator may also be written to memory as it is; ``wide_operands`` for ops whose
    integer form also takes operands of 16 bits (others get them requantized to 8);
    ``reads_codes`` for float ops with constant operands of integers, which may stand in a float graph;
    ``simulated`` for ops that exist in the interpreter alone, which quantize-ops and ONNX export refuse.
    """

    name: ClassVar[str]
    operands: ClassVar[tuple[str, ...]]
    elementwise: ClassVar[bool] = False
    accumulates: ClassVar[bool] = False
    chooses_qparams: ClassVar[bool] = False
    accepts_accumulator: ClassVar[bool] = False
    folds_zero_point: ClassVar[bool] = False
    wide_result: ClassVar[bool] = False
    reads_codes: ClassVar[bool] = False
    simulated: ClassVar[bool] = False
    wide_operands: ClassVar[bool] = False

    # ------------------------------------------------------------ every op
    def infer(self, *operands: TensorType | None) -> TensorType:
        """Result type from operand types, for the float and the integer form. Raises VerifyError."""
        raise NotImplementedError

    def float_ref(self, *operands: Array | None) -> Array:
        """The real meaning in numpy; float32 in, float32 (or float64) out. A leading batch is allowed."""
        raise NotImplementedError

    def int_ref(self, sig: Signature, *operands: Array | None) -> Array:
        """The exact integer meaning: what every kernel must equal bit for bit. Returns int64 or the final type."""
        raise NotImplementedError

    @classmethod
    def cases(cls, rng: np.random.Generator) -> Iterable[Case]:
        """Small examples for the generic tests."""
        raise NotImplementedError

    # ------------------------------------------------------------ quantization
    def quant_rule(self) -> QuantRule:
        """What quantization must know of this op."""
        return QuantRule()

    def accumulate(self, q: Lowering, node: Node) -> Value | None:
        """Emit the integer form up to the s32 accumulator; None if the op has no accumulator here."""
        return None

    def quantize(self, q: Lowering, node: Node) -> Value | None:
        """Emit the whole integer form of ``node``; None when there is none, and the op runs in float."""
        acc = self.accumulate(q, node)
        return None if acc is None else q.requantize(acc, node.output)

    def accumulator_problem(self, sig: Signature, producer: Op) -> str:
        """Why an op that accepts accumulators cannot take the one of ``producer``; "" when it can."""
        return ""

    def weight_rows(self, x: Array, w: TensorType, positions: int) -> Array | None:
        """What the weights are multiplied with: [N, P, G, K] for weights seen as [G, O/G, K]; None if not known.

        At most about ``positions`` of an image's output positions, spread evenly.
        """
        return None

    # ------------------------------------------------------------ analysis
    def interval(self, sig: Signature, *operands: Interval | Array | None) -> Interval:
        """Proven integer interval of the result per channel of its last axis.

        Operands are intervals, or arrays where constant. The default is the whole range of the type.
        """
        dtype = sig.result.dtype
        return Interval.full(dtype.min, dtype.max, sig.result.shape[-1] if sig.result.shape else 1)

    def partial_sum_bound(self, sig: Signature, *operands: Interval | Array | None) -> int:
        """Largest |partial sum| in any order of summation; accumulating ops override it."""
        result = self.interval(sig, *operands)
        return int(max(-result.low.min(), result.high.max()))

    def permuted(self, perm: tuple[int, ...], sig: Signature) -> Op | None:
        """The op P such that P(x) transposed by ``perm`` equals self(x transposed by ``perm``); None if none.

        Elementwise ops whose operands have equal rank commute as they are.
        """
        return self if self.elementwise else None

    def with_padding(self, pads: tuple[int, int, int, int], value: float) -> Op | None:
        """The op that also pads x with ``value`` by ``pads`` (top, left, bottom, right); None if it cannot."""
        return None

    # ------------------------------------------------------------ channels (see passes/remove_dead_channels.py)
    def channel_map(self, sig: Signature) -> tuple[int, ...]:
        """Operands whose channel c (last axis) alone decides channel c of the result."""
        if not self.elementwise:
            return ()
        channels = sig.result.shape[-1:]
        return tuple(i for i, t in enumerate(sig.operands) if t is not None and t.shape[-1:] == channels)

    def defines_channels(self, sig: Signature) -> bool:
        """True when each result channel has its own weights, so that channels can be computed or not at will."""
        return False

    def with_channels(self, count: int) -> Op:
        """The op after its result channels were reduced to ``count``."""
        return self

    def constant_channel_axis(self, sig: Signature, index: int) -> int | None:
        """Axis of constant operand ``index`` that runs over the result's channels; None if none does."""
        rule = self.quant_rule()
        if index == rule.weight:
            return rule.weight_axis
        return -1 if sig.operand(index).shape[-1:] == sig.result.shape[-1:] else None

    def batches(self, sig: Signature) -> bool:
        """False where independent samples must not be stacked along axis 0 although the shapes would allow it."""
        return True

    def macs(self, sig: Signature) -> int:
        """Multiply-accumulates of one application."""
        return 0

    # ------------------------------------------------------------ attributes
    def attributes(self) -> dict[str, Any]:
        """Attribute values by name, in declaration order."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]


OPS: dict[str, type[Op]] = {}
ONNX_IMPORTERS: dict[str, Callable[..., Any]] = {}
OpT = TypeVar("OpT", bound=Op)


@dataclass_transform(frozen_default=True)
def register_op(cls: type[OpT]) -> type[OpT]:
    """Class decorator: make the op a frozen dataclass and enter it in OPS. A missing method fails here."""
    made = dataclass(frozen=True)(cls)
    missing = [m for m in ("infer", "cases") if _function(made, m) is _function(Op, m)]
    if missing:
        raise TypeError(f"op {made.name} does not define {', '.join(missing)}")
    if made.float_ref is Op.float_ref and made.int_ref is Op.int_ref:
        raise TypeError(f"op {made.name} has no meaning: define float_ref or int_ref")
    if made.name in OPS:
        raise TypeError(f"op {made.name} is declared twice")
    OPS[made.name] = made
    return made


def _function(cls: type[Op], method: str) -> Any:
    found = getattr(cls, method)
    return getattr(found, "__func__", found)


def onnx_importer(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: the function turns one ONNX node (see ``qcc.ir.importing.OnnxNode``) into IR values.

    ``names``: of operators, with their domain in front where it is not ONNX's own: ``com.acme.MaxMin``. An operator that is
    read this way may also be a function of the model.
    """

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            if name in ONNX_IMPORTERS:
                raise TypeError(f"ONNX {name} is imported twice")
            ONNX_IMPORTERS[name] = function
        return function

    return enter
