"""The Backend interface of the onnx package on float32 libraries that qcc compiles: ``onnx.backend.test`` runs on it.

``QccBackend.prepare(model).run(inputs)`` compiles the model to C, builds it for this machine and runs it. qcc wants
shapes, indices and parameters as constants, and here they may come as inputs: a library is compiled for those a run is
given (and kept for the next run with the same ones). What qcc cannot compile raises BackendIsNotSupposedToImplementIt
with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper
from onnx.backend.base import Backend, BackendRep
from onnx.backend.test.runner import BackendIsNotSupposedToImplementIt

import qcc
from qcc.ir.errors import ImportModelError, QccError, TargetError
from qcc.ir.graph import Graph
from qcc.ir.ops.resize import ResizeLinear, ResizeNearest
from qcc.onnx_importer import import_model

Array = NDArray[Any]
RUN_TIME = (np.dtype(np.float32), np.dtype(np.bool_))  # what may be an input of the compiled function


@dataclass(frozen=True)
class Specialized:
    """A model and the inputs it still has; the others have become its constants."""

    model: ModelProto
    inputs: dict[str, Array]
    graph: Graph

    def results(self, outputs: dict[str, Array]) -> tuple[Array, ...]:
        """Results of one sample by name, in the order, shapes and types that the model declares."""
        types = {v.name: v.type.tensor_type.elem_type for v in self.model.graph.output}
        return tuple(
            np.asarray(outputs[name])
            .reshape(value.type.shape)
            .astype(helper.tensor_dtype_to_np_dtype(types[name]))
            for name, value in zip(self.graph.output_names, self.graph.outputs, strict=True)
        )

    def samples(self) -> dict[str, Array]:
        """The inputs as float32 with a batch of one sample in front."""
        return {name: array[None].astype(np.float32) for name, array in self.inputs.items()}


def specialize(model: ModelProto, inputs: dict[str, Array]) -> Specialized:
    """``model`` with as few of ``inputs`` constant as qcc can import: integers; or all but the first of the others.

    Raises ImportModelError with the reason where neither can be.
    """
    return next(specializations(model, inputs))


def specializations(model: ModelProto, inputs: dict[str, Array]) -> Iterator[Specialized]:
    """All forms of ``model`` that can be imported, those with the fewest constants first; raises where there is none."""
    error = ImportModelError("no input is float32 or bool: nothing would be computed at run time")
    found = False
    for kept in _run_time_inputs(model, inputs):
        constant = {n: a for n, a in inputs.items() if n not in kept}
        candidate = with_constants(model, constant)
        try:
            graph = import_model(candidate)
            _refuse_integers(candidate, graph)
            _refuse_other_meanings(graph)
        except ImportModelError as refusal:
            error = refusal
        else:
            found = True
            yield Specialized(candidate, {n: inputs[n] for n in kept}, graph)
    if not found:
        raise error


def _run_time_inputs(model: ModelProto, inputs: dict[str, Array]) -> Iterator[list[str]]:
    free = [n for n, a in inputs.items() if a.dtype in RUN_TIME]
    floats = [n for n in free if inputs[n].dtype == np.float32]
    choices = [free, floats, floats[:1]]
    yield from (c for i, c in enumerate(choices) if c and c not in choices[:i])


def _refuse_integers(model: ModelProto, graph: Graph) -> None:
    """Results that are known at compile time show nothing; codes of 8 bits are reals in the graph."""
    if all(v.is_constant for v in graph.outputs):
        raise ImportModelError("every output is constant: nothing would be computed at run time")
    for value in (*model.graph.input, *model.graph.output):
        kind = value.type.tensor_type.elem_type
        if kind in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8):
            raise ImportModelError(f"{value.name} holds codes of 8 bits, reals in the float32 library")


def _refuse_other_meanings(graph: Graph) -> None:
    """Where qcc follows onnxruntime on purpose and the standard says otherwise."""
    for node in graph.nodes:
        op = node.op
        if isinstance(op, ResizeLinear | ResizeNearest) and op.coordinates == "align_corners":
            reached = np.multiply(op.scales, node.input(0).type.shape[1:3])
            if not np.allclose(reached, op.out_size):
                raise ImportModelError(
                    f"{node.name} aligns corners of a length that is not whole, {reached.tolist()}: qcc follows onnxruntime, "
                    "which takes the elements there are, and not the standard"
                )


def with_constants(model: ModelProto, constants: dict[str, Array]) -> ModelProto:
    """``model`` with these inputs as initializers."""
    result = ModelProto()
    result.CopyFrom(model)
    kept = [v for v in result.graph.input if v.name not in constants]
    del result.graph.input[:]
    result.graph.input.extend(kept)
    result.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in constants.items())
    return result


@dataclass
class QccBackendRep(BackendRep):
    """A model that is compiled when it is run."""

    model: ModelProto
    libraries: dict[bytes, Any] = field(default_factory=dict)

    def run(self, inputs: Sequence[Any] | dict[str, Any], **kwargs: Any) -> tuple[Array, ...]:
        """Outputs for ``inputs``, in the order of the model's inputs or by name."""
        stored = {t.name for t in self.model.graph.initializer}
        names = [v.name for v in self.model.graph.input if v.name not in stored]
        given = inputs if isinstance(inputs, dict) else dict(zip(names, inputs, strict=False))
        for name, value in given.items():
            if not isinstance(value, np.ndarray | np.generic) or value.dtype.kind not in "fiub":
                raise BackendIsNotSupposedToImplementIt(f"input {name} is no dense tensor of numbers")
        refusal: QccError | None = None
        try:
            for special in specializations(self.model, {n: np.asarray(a) for n, a in given.items()}):
                try:
                    return special.results(self.outputs(special))
                except TargetError as error:  # no kernel where parameters are computed at run time
                    refusal = error
        except ImportModelError as error:
            refusal = refusal or error
        raise BackendIsNotSupposedToImplementIt(str(refusal)) from refusal

    def outputs(self, special: Specialized) -> dict[str, Array]:
        """What the library of ``special`` computes, by name. Raises QccError where there is none."""
        key = special.model.SerializeToString(deterministic=True)
        if key not in self.libraries:
            self.libraries[key] = qcc.compile(special.model, precision="float32").build()
        return dict(self.libraries[key].run(special.samples()))


class QccBackend(Backend):
    """onnx's Backend interface on the portable C target. ``representation``: of prepared models."""

    representation: ClassVar[type[QccBackendRep]] = QccBackendRep

    @classmethod
    def is_compatible(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """True: what a model needs is known when it is run."""
        return True

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> QccBackendRep:
        """``model``, ready to be run."""
        if not cls.supports_device(device):
            raise BackendIsNotSupposedToImplementIt(f"device {device} is not supported: expected CPU")
        return cls.representation(model)

    @classmethod
    def run_node(
        cls,
        node: NodeProto,
        inputs: Sequence[Any],
        device: str = "CPU",
        outputs_info: Sequence[tuple[Any, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Array, ...]:
        """Outputs of one node."""
        names = [n for n in node.input if n]
        arrays = dict(zip(names, map(np.asarray, inputs), strict=True))
        declared = [_declared(n, a.dtype, a.shape) for n, a in arrays.items()]
        made = [n for n in node.output if n]
        types = [np.dtype(d) for d, _ in outputs_info or [(np.float32, ())] * len(made)]
        results = [_declared(n, d, None) for n, d in zip(made, types, strict=True)]
        graph = helper.make_graph([node], "node", declared, results)
        opset = int(kwargs.get("opset_version", onnx.defs.onnx_opset_version()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid(node.domain, opset)])
        return cls.prepare(model, device).run(arrays)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Only this machine's processor."""
        return device == "CPU"


def _declared(name: str, dtype: Any, shape: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)


prepare = QccBackend.prepare
run_model = QccBackend.run_model
run_node = QccBackend.run_node
supports_device = QccBackend.supports_device
__all__ = ["QccBackend", "QccBackendRep", "QccError", "prepare", "run_model", "run_node", "supports_device"]
