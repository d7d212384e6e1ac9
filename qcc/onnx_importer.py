"""ONNX model to float Graph: binds the shapes, folds what is known, hands every other node to its op's importer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

import qcc.ir.ops  # fills ONNX_IMPORTERS
from qcc.ir.builder import Builder
from qcc.ir.errors import ImportModelError, VerifyError
from qcc.ir.graph import Graph, Node, Value
from qcc.ir.importing import OnnxNode
from qcc.ir.location import Location
from qcc.ir.op import ONNX_IMPORTERS
from qcc.ir.ops.fake_quant import FakeQuant
from qcc.ir.qparams import QParams
from qcc.ir.types import DType, TensorType
from qcc.onnx_discrete import DiscreteKinds, with_functions_inlined
from qcc.onnx_dynamic import with_dynamic_products
from qcc.onnx_folding import MAX_FOLDED_ELEMENTS, fold, is_foldable
from qcc.onnx_quantized import (
    MOVEMENTS,
    PAIR,
    WeightCodes,
    activation_codes,
    clipped,
    keep_weight_codes,
    spelled_as_qdq,
)
from qcc.onnx_reading import (
    MAX_ELEMENTS,
    attribute_value,
    check_finite,
    default_opset,
    is_default_domain,
    read_model,
    tensor_array,
)
from qcc.onnx_shapes import Shapes, bind_inputs
from qcc.onnx_structure import Step, check_schema, ordered_steps

Array = NDArray[Any]

_OPTIONAL = onnx.defs.OpSchema.FormalParameterOption.Optional
_NO_OPERATOR = "the operator is not supported"
# What a handler meets where a node follows its schema but contradicts itself (a stride of 0, a short list).
_MALFORMED = (ArithmeticError, IndexError, TypeError, ValueError)


def import_model(
    source: str | Path | ModelProto, shapes: Shapes | None = None, name: str | None = None
) -> Graph:
    """Read an ONNX model into a Graph of stage ``float``.

    ``shapes`` gives symbolic dimensions by their name, or whole shapes by input name; an unknown batch
    dimension becomes 1. Output names are those of the model. Raises ImportModelError; one error lists all
    nodes that are not supported.
    """
    model, file, folder = read_model(source)
    location = Location(file)
    opset = default_opset(model, location)
    stem = Path(file).stem if folder is not None else file
    importer = _Importer(
        with_functions_inlined(with_dynamic_products(spelled_as_qdq(model))),
        opset,
        folder,
        location,
        Graph(name or stem),
    )
    try:
        return importer.run(shapes or {})
    except ImportModelError as error:
        if error.location is not None:
            raise
        raise ImportModelError(error.message, location, error.hint) from error


@dataclass
class _Importer:
    """State of one import.

    A tensor is in ``arrays`` (known) or in ``values`` (computed at run time). Behind a node that is not
    supported it is in ``failed``, or in ``unknown`` when only the shape of a failed tensor is missing.

    A computed tensor of integers is in ``values`` as reals, and in ``codes`` with its qparams: those of the
    QuantizeLinear before it, or the name of the graph input it comes from, whose qparams (``input_codes``) the first
    DequantizeLinear tells. ``weights``: what DequantizeLinear made of constants.
    """

    model: ModelProto
    opset: int
    folder: Path | None
    location: Location
    graph: Graph
    arrays: dict[str, Array] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    stored: dict[str, TensorProto] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    codes: dict[str, QParams | str] = field(default_factory=dict)
    input_codes: dict[str, QParams] = field(default_factory=dict)
    weights: dict[str, WeightCodes] = field(default_factory=dict)
    discrete: DiscreteKinds = field(default_factory=DiscreteKinds)
    folded_elements: int = 0

    @property
    def proto(self) -> GraphProto:
        return self.model.graph

    def run(self, shapes: Shapes) -> Graph:
        self.stored = {t.name: t for t in self.proto.initializer}
        steps = ordered_steps(self.proto, self.location)
        # a name can be an initializer and an input (IR version 3): then the input is a mere default
        inputs = [v for v in self.proto.input if v.name not in self.stored]
        for input_name, type_ in bind_inputs(inputs, shapes, self.location):
            self.values[input_name] = self.graph.add_input(input_name, type_)
        integers = (TensorProto.INT8, TensorProto.UINT8)
        self.codes = {v.name: v.name for v in inputs if v.type.tensor_type.elem_type in integers}
        self.discrete.add_inputs(inputs)
        self.used = {n for s in steps for n in s.reads} | {v.name for v in self.proto.output}
        for step in steps:
            self.import_step(step)
        self.raise_problems()
        for output in self.proto.output:
            self.graph.add_output(self.output_value(output.name), output.name)
        self.graph.remove_dead_nodes()
        return self.graph

    # ------------------------------------------------------------------ one node
    def import_step(self, step: Step) -> None:
        """Define the results of one node, or note why that is impossible."""
        node = step.proto
        if any(n in self.failed or n in self.unknown for n in step.reads):
            self.skip_step(step)
            return
        first_new = len(self.graph.nodes)
        try:
            if not self.define_known(node):
                self.define_computed(step)
        except (ImportModelError, VerifyError) as error:
            self.fail(step, error.message)
        except _MALFORMED as error:
            self.fail(step, f"malformed: {type(error).__name__}: {error}")
        else:
            self.check_sizes(step, self.graph.nodes[first_new:])

    def skip_step(self, step: Step) -> None:
        """A node behind a failed one: only whether qcc has such an operator can still be said."""
        node = step.proto
        computed = any(n in self.failed or n in self.values for n in step.reads)
        if node.op_type in ("Shape", "Size") or not computed:
            self.unknown.update(node.output)
        elif _operator(node) in (*ONNX_IMPORTERS, *PAIR):
            self.failed.update(node.output)
        else:
            self.fail(step, _NO_OPERATOR)

    def fail(self, step: Step, reason: str) -> None:
        self.failed.update(step.proto.output)
        self.problems.append(f"  {step.label} ({_operator(step.proto)}): {reason}")

    def define_known(self, node: NodeProto) -> bool:
        """Evaluate a node that needs no run-time data; False if it does."""
        if not is_default_domain(node.domain):
            if _operator(node) in ONNX_IMPORTERS:
                return False
            functions = {(f.domain, f.name) for f in self.model.functions}
            kind = (
                "a function of the model" if (node.domain, node.op_type) in functions else "a custom operator"
            )
            raise ImportModelError(f"it is {kind}; only operators of the ONNX standard are supported")
        check_schema(node, self.opset)
        if any(a.HasField("g") or a.graphs for a in node.attribute):
            raise ImportModelError("control flow with subgraphs is not supported")
        names = [n for n in node.input if n]
        if node.op_type == "Constant":
            results = {node.output[0]: self.constant_of(node)}
        elif node.op_type in ("Shape", "Size") and names[0] in self.values:
            shape = self.values[names[0]].type.shape
            # a tensor of that shape without memory: only its shape matters
            results = fold(node, self.opset, {names[0]: np.broadcast_to(np.zeros((), np.float32), shape)})
        elif names and is_foldable(node) and all(self.known(n) is not None for n in names):
            results = fold(node, self.opset, {n: self.arrays[n] for n in names})
        else:
            return False
        self.folded_elements += sum(r.size for r in results.values())
        if self.folded_elements > MAX_FOLDED_ELEMENTS:
            raise ImportModelError(f"the constants of the model pass {MAX_FOLDED_ELEMENTS} elements")
        self.arrays.update(results)
        self.remember_codes(node)
        return True

    def remember_codes(self, node: NodeProto) -> None:
        """The scales of a constant that was dequantized, also where it is transposed afterwards."""
        if node.op_type == "DequantizeLinear":
            scale, zero_point = (self.known(n) for n in (*node.input, "")[1:3])
            assert scale is not None
            rank = self.arrays[node.output[0]].ndim
            self.weights[node.output[0]] = WeightCodes.of(node, scale, zero_point, rank)
        elif node.op_type == "Transpose" and node.input[0] in self.weights:
            rank = self.arrays[node.output[0]].ndim
            perm = next((list(a.ints) for a in node.attribute), [*reversed(range(rank))])
            self.weights[node.output[0]] = self.weights[node.input[0]].transposed(perm)

    def constant_of(self, node: NodeProto) -> Array:
        """The value of a Constant node."""
        values = [attribute_value(a, self.folder) for a in node.attribute]
        if len(values) != 1:
            raise ImportModelError(f"it has {len(values)} values, expected one")
        (value,) = values
        if isinstance(value, np.ndarray):
            return value
        sample = value[0] if isinstance(value, list) and value else value
        if isinstance(sample, str):
            raise ImportModelError("strings are not supported")
        integer = "int" in node.attribute[0].name
        return np.asarray(value, np.int64 if integer else np.float32)

    def known(self, name: str) -> Array | None:
        """The array of a tensor known at import, or None. Stored tensors are decoded when first used."""
        if name not in self.arrays and name in self.stored:
            self.arrays[name] = tensor_array(self.stored[name], self.folder)
        return self.arrays.get(name)

    def define_computed(self, step: Step) -> None:
        """Let the importer of the op build the nodes, and name the main one after the tensor."""
        node = step.proto
        if self.define_codes(step):
            return
        if self.discrete.enter(node):
            self.values[node.output[0]] = self.values[node.input[0]]
            return
        handler = ONNX_IMPORTERS.get(_operator(node))
        if handler is None:
            raise ImportModelError(_NO_OPERATOR)
        for name in step.reads:
            check_finite(name, self.known(name))
        first_new = len(self.graph.nodes)
        wanted = next((n for n in node.output if n), step.label)
        location = Location(self.location.file, node=step.label)
        view = OnnxNode(
            op_type=node.op_type,
            name=wanted,
            opset=self.opset,
            attrs={a.name: attribute_value(a, self.folder) for a in node.attribute},
            inputs=[self.values.get(n) if n else None for n in node.input],
            constants=[self.known(n) if n else None for n in node.input],
            outputs=self.count_outputs(node),
            builder=Builder(self.graph, location=location),
            input_names=tuple(node.input),
        )
        made = handler(view)
        results: list[Value] = list(made) if isinstance(made, list | tuple) else [made]
        for index, name in enumerate(node.output):
            if index < len(results):
                self.values[name] = results[index]
            elif name and name in self.used:
                raise ImportModelError(f"its output {index} ({name}) is used, which is not supported")
        new = self.graph.nodes[first_new:]
        if len(node.input) > 1 and node.input[1] in self.weights:
            for made_node in new:
                if made_node.op.quant_rule().weight is not None:
                    keep_weight_codes(self.graph, made_node, self.weights[node.input[1]])
        if len(results) == 1:
            _name_main_node(new, wanted)
        else:
            for value, name in zip(results[1:], node.output[1:], strict=False):
                if name and any(n.output is value for n in new):
                    value.name = self.graph.fresh_name(name)

    def define_codes(self, step: Step) -> bool:
        """Define the result of a node that makes, moves or reads integers; False where its handler still has to."""
        node = step.proto
        held = [self.codes[n] for n in step.reads if n in self.codes]
        if node.op_type not in PAIR and not held:
            return False
        if held and node.op_type in MOVEMENTS:
            if any(h != held[0] for h in held):
                raise ImportModelError("it joins integers of different scales; dequantize them first")
            self.codes.update((n, held[0]) for n in node.output if n)
            return False
        constants = [self.known(n) if n else None for n in (*node.input, "", "")]
        if node.input[0] not in self.values:
            raise ImportModelError("its scale must be a constant, it is computed at run time")
        x, out = self.values[node.input[0]], node.output[0]
        if node.op_type == "Clip" and isinstance(held[0], QParams):
            qparams = clipped(held[0], *constants[1:3])
        elif node.op_type in PAIR:
            if len(step.reads) > 2 and constants[2] is None:
                raise ImportModelError("its zero point must be a constant, it is computed at run time")
            dtype = self.dtype_of_codes(node, constants[2])
            qparams = activation_codes(constants[1], constants[2], dtype)
        else:
            raise ImportModelError(
                "it computes with integers; only operators that move elements may read them"
            )
        if node.op_type == "DequantizeLinear":
            if not held:
                raise ImportModelError("its operand is computed, and no integer of 8 bits")
            given = held[0] if isinstance(held[0], QParams) else self.input_codes.setdefault(held[0], qparams)
            if (given.scale, given.zero_point) != (qparams.scale, qparams.zero_point):
                raise ImportModelError(
                    "it dequantizes with another scale or zero point than the integers were made with"
                )
            if isinstance(held[0], QParams):
                self.values[out] = x
                return True
        else:
            self.codes[out] = qparams
        location = Location(self.location.file, node=step.label)
        source = held[0] if held and isinstance(held[0], str) else None
        op = FakeQuant.of(
            qparams, "" if source is None else {"int8": "s8", "uint8": "u8"}[self.integer_type(source)]
        )
        self.values[out] = Builder(self.graph, location=location).emit(op, x, name=out)
        return True

    def dtype_of_codes(self, node: NodeProto, zero_point: Array | None) -> str | None:
        """What the codes are where no zero point says it: an attribute of the node, or the type of a graph input."""
        held = self.codes.get(node.input[0])
        for attribute in node.attribute:
            if attribute.name == "output_dtype" and attribute.i:
                return str(onnx.helper.tensor_dtype_to_np_dtype(attribute.i))
        return self.integer_type(held) if isinstance(held, str) else None

    def integer_type(self, name: str) -> str:
        """int8 or uint8: the type of a graph input."""
        kind = next(v.type.tensor_type.elem_type for v in self.proto.input if v.name == name)
        return str(onnx.helper.tensor_dtype_to_np_dtype(kind))

    def count_outputs(self, node: NodeProto) -> int:
        """Outputs without trailing optional ones that nothing reads (the mask of a Dropout)."""
        if not is_default_domain(node.domain):
            return len(node.output)
        declared = onnx.defs.get_schema(node.op_type, max_inclusive_version=self.opset, domain="").outputs
        count = len(node.output)
        while (
            count > 1
            and node.output[count - 1] not in self.used
            and declared[min(count, len(declared)) - 1].option == _OPTIONAL
        ):
            count -= 1
        return count

    def check_sizes(self, step: Step, new: list[Node]) -> None:
        """Refuse what no memory holds, before a later step or pass allocates it."""
        for node in new:
            type_ = node.output.type
            if min(type_.shape, default=1) < 1 or type_.elements > MAX_ELEMENTS:
                self.fail(step, f"its result has shape {type_.shape}")
                return

    # ------------------------------------------------------------------ ends
    def raise_problems(self) -> None:
        if not self.problems:
            return
        count = len(self.problems)
        lines = "\n".join(self.problems)
        raise ImportModelError(
            f"{count} {'node is' if count == 1 else 'nodes are'} not supported:\n{lines}",
            self.location,
            "replace them before the export, or add an op: @register_op and @onnx_importer in a plugin",
        )

    def output_value(self, name: str) -> Value:
        """The value of a graph output, which may be an input or a constant."""
        if name in self.values:
            return self.values[name]
        array = self.known(name)
        if array is None or array.dtype.kind != "f":
            kind = "not dense" if array is None else f"{array.dtype}"
            raise ImportModelError(f"output {name!r} is constant and {kind}: only float32 is supported")
        if not array.size:
            raise ImportModelError(f"output {name!r} is constant and holds no elements")
        return self.graph.constant(array.astype(np.float32), name, TensorType(DType.F32, array.shape))


def _operator(node: NodeProto) -> str:
    """Its name, with the domain in front where that is not ONNX's own."""
    return node.op_type if is_default_domain(node.domain) else f"{node.domain}.{node.op_type}"


def _name_main_node(new: list[Node], wanted: str) -> None:
    """Give the tensor's name to the last node that computes: layout changes around it keep derived names."""
    layout = (qcc.ir.ops.shape.Transpose, qcc.ir.ops.shape.Reshape)
    main = next((n for n in reversed(new) if not isinstance(n.op, layout)), new[-1] if new else None)
    holder = next((n for n in new if n.output.name == wanted), None)
    if main is not None and holder is not None:
        holder.output.name, main.output.name = main.output.name, holder.output.name
