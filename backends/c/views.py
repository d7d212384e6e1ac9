"""What the templates print: a program as lines of C, each prepared here in small pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from qcc.backends.c.names import C_TYPES, LINE, Names, c_comment, c_number, common_folder, short_names
from qcc.backends.c.stages import BandedCall, Offsets, c_field, params_lines, stages
from qcc.backends.c.weights import Constants
from qcc.backends.parallel import is_long
from qcc.backends.program import Operation, Program
from qcc.backends.storage import Port
from qcc.backends.target import Generated
from qcc.ir.graph import Value
from qcc.ir.types import TensorType


class Views:
    """Names of one program's C objects, and the template context made of them."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.constants = Constants(program.target.alignment)
        self.offsets: list[dict[str, Any]] = []
        self._offset_names: dict[int, str] = {}  # by id of value
        self._at, self._steps = Names("at_"), Names("step_")
        self._data = Names(f"{program.name}_")
        self._used: set[str] = set()
        self._blocks = {"arena": "memory", "input": "in", "output": "out"}
        if block_type(program.inputs) != "int8_t":
            self._blocks["input"] = "input"
        if block_type(program.outputs) != "int8_t":
            self._blocks["output"] = "output"
        self._folder = c_comment(common_folder([op.step.output.name for op in program.operations]))
        self._short = short_names([op.step.output.name for op in program.operations])
        self._rows = {
            id(op.step.output): f"{_rows_held(op)} rows of " for op in program.operations if not op.is_whole
        }
        for operation in program.operations:
            joined = program.joined.get(id(operation.step.output))
            if joined is not None:
                self._reserve(joined.whole)
            self._reserve(operation.step.output)
        self.operations = [self._operation(i, op) for i, op in enumerate(program.operations)]
        self.copies = [self._copy(port) for port in program.copies]
        steps = [(op["parts"], op["invocation"], op["after"]) for op in self.operations]
        self.stages = stages(steps, self.copies) if program.parts > 1 else []
        self.generated = [
            Generated(view["symbol"], op.kernel, op.step, op.call)
            for view, op in zip(self.operations, program.operations, strict=True)
            if op.kernel.is_generated
        ]
        self._align_comments()

    def context(self) -> dict[str, Any]:
        """Variables of the templates."""
        program = self.program
        return {
            "name": program.name,
            "NAME": program.name.upper(),
            "description": c_comment(f"{program.graph.name}, compiled for {program.target.name}"),
            "arena_bytes": program.plan.arena_bytes,
            "arena_align": program.target.alignment,
            "lower_bound": program.plan.lower_bound_bytes,
            "input_bytes": program.input_bytes,
            "output_bytes": program.output_bytes,
            "input_arena_offset": program.input_arena_offset,
            "output_arena_offset": program.output_arena_offset,
            "in_type": block_type(program.inputs),
            "out_type": block_type(program.outputs),
            "inputs": [self._port(p, "INPUT", program.inputs) for p in program.inputs],
            "outputs": [self._port(p, "OUTPUT", program.outputs) for p in program.outputs],
            "macs": sum(op.macs for op in program.operations),
            "weight_bytes": self.constants.bytes,
            "constants": list(self.constants),
            "folder": self._folder,
            "offsets": [o | {"comment": self._shortened(o["comment"])} for o in self.offsets],
            "operations": [op | self._shortened_comments(op) for op in self.operations],
            "copies": self.copies,
            "uses": {
                "input": "input" in self._used and self._blocks["input"] == "input",
                "output": "output" in self._used and self._blocks["output"] == "output",
                "arena": "arena" in self._used,
                "blocks": [block for region, block in self._blocks.items() if region in self._used],
            },
            "body": self._body(),
            "keeps_rows": any(
                line.startswith("keep_rows") for op in self.operations for line in op["before"]
            ),
            "threads": program.threads,
            "parts": program.parts,
            "stages": self.stages,
            "is_long": is_long([op.sharing for op in program.operations]),
            "blocks": self._blocks,
        }

    def _shortened(self, comment: str) -> str:
        return comment.replace(self._folder, ".../") if self._folder else comment

    def _shortened_comments(self, operation: Mapping[str, Any]) -> dict[str, Any]:
        comments = [self._shortened(line) for line in operation["comments"]]
        return {"title": self._shortened(operation["title"]), "comments": comments}

    def _body(self) -> list[str]:
        """Statements of NAME_run: steps in order, those of a stream in a loop over its bands."""
        begins = {stream.first: stream for stream in self.program.streams}
        lines, after = [], -1
        for index, operation in enumerate(self.operations):
            stream = begins.get(index)
            if stream is not None:
                after = stream.last
                lines.append(f"for (int32_t band = 0; band < {stream.schedule.bands}; ++band) {{")
            lines.append(operation["invocation"])
            if index <= after:
                lines[-1] = "  " + lines[-1].replace("\n", "\n  ")
            if index == after:
                lines.append("}")
                first = next(s.first for s in self.program.streams if s.last == index)
                lines += [op["after"] for op in self.operations[first : index + 1]]
        return lines + self.copies

    # ------------------------------------------------------------------ memory
    def _reserve(self, value: Value) -> None:
        place = self.program.place(value)
        if place.region == "arena" and id(value) not in self._offset_names:
            name = self._at.make(self._short_name(value.name))
            self._offset_names[id(value)] = name
            rows = self._rows.get(id(value), "")
            joined = _joined_text(self.program, value)
            comment = c_comment(f"{value.name}: {rows}{shape_text(value.type)}{joined}")
            self.offsets.append({"name": name, "value": place.offset, "comment": comment})

    def _short_name(self, name: str) -> str:
        return self._short.get(name, name)

    def _workspace(self, operation: Operation) -> str:
        assert operation.workspace is not None
        name = self._at.make(f"{self._short_name(operation.step.output.name)}_workspace")
        size, count = operation.part_workspace_bytes, len(operation.parts)
        each = f"{count} parts of " if count else ""
        comment = c_comment(f"scratch memory of {operation.step.output.name}: {each}{size} bytes")
        self.offsets.append({"name": name, "value": operation.workspace, "comment": comment})
        self._used.add("arena")
        return f"memory + {name} + part * {size}" if count else f"memory + {name}"

    def _align_comments(self) -> None:
        widths = [len(f"{o['name']}{o['value']}") for o in self.offsets]
        for offset, width in zip(self.offsets, widths, strict=True):
            offset["pad"] = " " * (max(widths) - width)

    def _address(self, value: Value) -> str:
        """The bytes of a tensor, ``int8_t *`` (or the array of a constant)."""
        place = self.program.place(value)
        if place.region == "constant":
            return self._constant(self._owner(value).data, self._owner(value).name, value.name)
        self._used.add(place.region)
        block = self._blocks[place.region]
        if place.region == "arena":
            return f"{block} + {self._offset_names[id(self._owner(value))]}"
        return f"{block} + {place.offset}" if place.offset else block

    def _owner(self, value: Value) -> Value:
        """The value whose bytes an alias names."""
        while id(value) not in self._offset_names and value.producer is not None:
            value = value.producer.input(0)
        return value

    def _pointer(self, value: Value, const: str) -> str:
        address, c_type = self._address(value), C_TYPES[value.type.dtype.value]
        if c_type == "int8_t" or self.program.place(value).region == "constant":
            return address
        return f"({const}{c_type} *)({const}void *)({address})"

    # ------------------------------------------------------------------ constants
    def _constant(self, array: NDArray[Any] | None, owner: str, what: str) -> str:
        if array is None:
            return "NULL"
        shape = ", ".join(map(str, array.shape))

        def describe() -> tuple[str, str]:
            name = self._data.make(f"{self._short_name(owner)}_{what}")
            return name, c_comment(f"{owner}, {what}: {array.dtype.name}[{shape}]")

        return self.constants.add(array, describe).name

    # ------------------------------------------------------------------ operations
    def _operation(self, index: int, operation: Operation) -> dict[str, Any]:
        step, call, kernel = operation.step, operation.call, operation.kernel
        which = "part" if operation.parts else "band" if operation.banded else ""
        scope = Names()
        for name in ("params", "output", "workspace", "inputs", *((which,) if which else ())):
            scope.make(name)
        banded = BandedCall(operation.banded, scope) if operation.banded else None
        offsets = banded.offsets if banded else Offsets(scope)
        parts = banded.parts if banded else operation.parts
        inputs = [(scope.make(_operand_name(operation, v)) if v else "NULL", v) for v in operation.inputs]
        parameters = [f"int32_t {which}"] if which else []
        parameters += [f"const {C_TYPES[v.type.dtype.value]} *{name}" for name, v in inputs if v]
        parameters.append(f"{C_TYPES[step.output.type.dtype.value]} *output")
        passed = [which] if which else []
        passed += [self._pointer(v, "const ") for _, v in inputs if v]
        passed.append(self._pointer(step.output, ""))
        joined = self.program.joined.get(id(step.output))
        size = joined.span(step.output) if joined else step.output.type.bytes if operation.is_whole else 0
        after = f"QCC_AFTER_STEP({index}, {passed[-1]}, {size});"
        pointers = [
            offsets.moved(name, [part.inputs[i] for part in parts], name)
            for i, (name, _) in enumerate(inputs)
        ]
        name = self._steps.make(self._short_name(step.output.name))
        symbol = kernel.symbol
        arguments = [banded.params if banded else "&params[part]" if parts else "&params"]
        if kernel.is_generated:
            symbol, arguments = f"{self.program.name}_{name}", []
        arguments += ["inputs"] if kernel.variadic else pointers
        for what, array in call.constants.items():
            moves = [part.constants.get(what, 0) for part in parts]
            arguments.append(offsets.moved(self._constant(array, step.output.name, what), moves, what))
        arguments.append(offsets.moved("output", [part.output for part in parts], "output"))
        if call.workspace_bytes:
            parameters.append("void *workspace")
            passed.append(self._workspace(operation))
            arguments.append("workspace")
        fields = [(c_field(value), key) for key, value in call.params.items()]
        width = max((len(value) for value, _ in fields), default=0)
        return {
            "name": name,
            "symbol": symbol,
            "title": c_comment(f"{step.output.name} = {step.pattern}"),
            "comments": _description(self.program, operation),
            "parameters": ", ".join(parameters),
            "params_type": kernel.params_type,
            "fields": fields,
            "pads": [" " * (min(width, 40) - len(value)) for value, _ in fields],
            "parts": len(operation.parts),
            "is_banded": banded is not None,
            "params_lines": banded.params_lines if banded else params_lines(parts) if parts else [],
            "before": banded.before if banded else [],
            "offset_lines": offsets.lines,
            "pointers": ", ".join(pointers) if kernel.variadic else "",
            "call": call_lines(symbol, arguments),
            "after": after,
            "output_bytes": size,
            "invocation": "\n  ".join(call_lines(name, passed)),
        }

    def _copy(self, port: Port) -> str:
        source = self._address(port.value)
        self._used.add("output")
        target = self._blocks["output"] + (f" + {port.offset}" if port.offset else "")
        return f"copy_bytes({source}, {target}, {port.value.type.bytes});"

    # ------------------------------------------------------------------ ports
    def _port(self, port: Port, side: str, ports: Sequence[Port]) -> Mapping[str, Any]:
        index = str(ports.index(port)) if len(ports) > 1 else ""
        prefix, type_ = f"{self.program.name.upper()}_{side}{index}", port.value.type
        macros: list[tuple[str, str, str]] = [
            (f"{prefix}_OFFSET", str(port.offset), "bytes from the start of all"),
            (f"{prefix}_ELEMENTS", str(type_.elements), C_TYPES[type_.dtype.value]),
            (f"{prefix}_RANK", str(type_.rank), ""),
            (f"{prefix}_DIMS", "{" + ", ".join(map(str, type_.shape or (1,))) + "}", ""),
            (f"{prefix}_TYPE", C_TYPES[type_.dtype.value], ""),
        ]
        if type_.dtype.is_integer and type_.qparams is not None and type_.qparams.axis is None:
            scale = type_.qparams.scale[0]
            macros.append((f"{prefix}_SCALE", c_number(scale), f"{scale:.9g}"))
            zero_point = type_.qparams.zero_point
            macros.append(
                (f"{prefix}_ZERO_POINT", f"({zero_point})" if zero_point < 0 else str(zero_point), "")
            )
        return {"comment": c_comment(f"{port.name}: {shape_text(type_)}"), "macros": macros}


def _rows_held(operation: Operation) -> int:
    """Rows in the buffer of a result that is never whole."""
    type_ = operation.step.output.type
    return operation.output_bytes * type_.shape[1] // type_.bytes


def shape_text(type_: TensorType) -> str:
    """``s8[1, 8, 8, 4]``."""
    return f"{type_.dtype.value}[{', '.join(map(str, type_.shape))}]"


def block_type(ports: Sequence[Port]) -> str:
    """The C type that NAME_run takes for a block: that of its ports, void when they differ."""
    types = dict.fromkeys(C_TYPES[p.value.type.dtype.value] for p in ports)
    return next(iter(types)) if len(types) == 1 else "void"


def call_lines(symbol: str, arguments: Sequence[str]) -> list[str]:
    """A call, its arguments filled into lines of at most LINE characters."""
    indent = " " * (len(symbol) + 1)
    lines, current = [], f"{symbol}("
    for index, argument in enumerate(arguments):
        piece = argument + (");" if index == len(arguments) - 1 else ",")
        if len(current) + len(piece) + 3 > LINE and current.strip() != f"{symbol}(":
            lines.append(current.rstrip())
            current = indent
        current += piece + " "
    return [*lines, current.rstrip()]


def _operand_name(operation: Operation, value: Value) -> str:
    """The op's own name of an operand; ``skip`` for what a fused node reads."""
    root = operation.step.root
    names = root.op.operands
    for index, operand in enumerate(root.inputs):
        if operand is value:
            return f"{names[0].rstrip('*')}{index}" if names[0].endswith("*") else names[index].rstrip("?")
    return "skip"


def _joined_text(program: Program, value: Value, with_step: bool = False) -> str:
    """Where a value lies that is part of another."""
    joined = program.joined.get(id(value))
    if joined is None:
        return ""
    apart = (
        f", pixels {joined.step * value.type.dtype.bytes} bytes apart" if joined.step and with_step else ""
    )
    return f", in {joined.whole.name}{apart}"


def _description(program: Program, operation: Operation) -> list[str]:
    step = operation.step
    sources = ", ".join(f"{v.name} {shape_text(v.type)}" for v in step.inputs)
    result = shape_text(step.output.type) + _joined_text(program, step.output, with_step=True)
    lines = [f"{sources} -> {result}" if sources else result]
    if operation.macs:
        size = sum(a.nbytes for a in operation.call.constants.values() if a is not None)
        lines.append(f"{operation.macs} MACs, {size} bytes of constants")
    if operation.banded is not None:
        lines.append(f"in {len(operation.banded.parts)} bands of rows")
    if step.root.location is not None and step.root.location.node:
        lines.append(f"from node {step.root.location.node}")
    return [c_comment(line) for line in lines]
