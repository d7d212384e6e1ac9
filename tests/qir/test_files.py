"""Runs tests/qir/**/*.qir: line 1 is `// RUN: <pipeline>`, the comments below it say what the result looks like.

`// CHECK: text` finds the next line that contains text; `// CHECK-NEXT: text` demands it in the line behind the
last match; `// CHECK-NOT: text` forbids it between the matches around it. Runs of spaces count as one, and
{{...}} holds a regular expression.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from qcc.ir.parser import load_graph
from qcc.ir.printer import print_graph
from qcc.passes.manager import run_pipeline

FOLDER = Path(__file__).parent
FILES = sorted(FOLDER.rglob("*.qir"))
DIRECTIVE = re.compile(r"^\s*//\s*(CHECK[A-Z-]*)\s*:(.*)$")


@dataclass(frozen=True)
class Check:
    kind: str
    text: str
    line: int

    def matches(self, output: str) -> bool:
        parts = re.split(r"\{\{(.*?)\}\}", " ".join(self.text.split()))
        pattern = "".join(part if i % 2 else re.escape(part) for i, part in enumerate(parts))
        return re.search(pattern, " ".join(output.split())) is not None


def read_checks(text: str) -> tuple[str, list[Check]]:
    """The pipeline and the expectations of a file."""
    first, *rest = text.split("\n")
    if not first.startswith("// RUN:"):
        raise ValueError("line 1 must be // RUN: <pipeline>")
    checks = []
    for number, line in enumerate(rest, 2):
        match = DIRECTIVE.match(line)
        if match is None:
            continue
        if match[1] not in ("CHECK", "CHECK-NEXT", "CHECK-NOT") or not match[2].strip():
            raise ValueError(f"line {number}: no directive: {line.strip()}")
        checks.append(Check(match[1], match[2].strip(), number))
    if not checks or checks[0].kind == "CHECK-NEXT":
        raise ValueError("the first expectation must be a CHECK or a CHECK-NOT")
    return first.removeprefix("// RUN:").strip(), checks


def first_failure(output: str, checks: list[Check]) -> str | None:
    """The first expectation that ``output`` does not meet, in words."""
    lines, here, forbidden = output.split("\n"), -1, list[Check]()

    def unwanted(end: int) -> str | None:
        for check in forbidden:
            for line in lines[here + 1 : end]:
                if check.matches(line):
                    return f"line {check.line}: CHECK-NOT: {check.text}: found {line.strip()!r}"
        return None

    for check in checks:
        if check.kind == "CHECK-NOT":
            forbidden.append(check)
            continue
        end = here + 2 if check.kind == "CHECK-NEXT" else len(lines)
        found = next((i for i in range(here + 1, min(end, len(lines))) if check.matches(lines[i])), None)
        if found is None:
            return f"line {check.line}: {check.kind}: {check.text}: not found behind line {here + 1} of the output"
        failure = unwanted(found)
        if failure:
            return failure
        here, forbidden = found, []
    return unwanted(len(lines))


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(FOLDER)) for p in FILES])
def test_pipeline_gives_what_the_file_says(path: Path) -> None:
    pipeline, checks = read_checks(path.read_text(encoding="utf-8"))
    output, _ = print_graph(run_pipeline(load_graph(path), pipeline))
    failure = first_failure(output, checks)
    assert failure is None, f"{failure}\n{output}"


OUTPUT = "graph @g {\n  %a = nn.relu(%x)\n  %b = nn.add(%a, %a)  : f32<3>\n}"


@pytest.mark.parametrize(
    ("expectations", "failure"),
    [
        ("// CHECK: %a = nn.relu\n// CHECK-NEXT: nn.add(%a, %a) : f32<3>", None),
        ("// CHECK: graph\n// CHECK: %b = {{nn\\.(add|sub)}}(%a", None),
        ("// CHECK-NOT: nn.mul\n// CHECK: nn.add\n// CHECK-NOT: nn.relu", None),
        (
            "// CHECK: nn.add\n// CHECK: nn.relu",
            "line 3: CHECK: nn.relu: not found behind line 3 of the output",
        ),
        (
            "// CHECK: graph\n// CHECK-NEXT: nn.add",
            "line 3: CHECK-NEXT: nn.add: not found behind line 1 of the output",
        ),
        ("// CHECK: }\n// CHECK-NEXT: x", "line 3: CHECK-NEXT: x: not found behind line 4 of the output"),
        (
            "// CHECK: graph\n// CHECK-NOT: relu\n// CHECK: add",
            "line 3: CHECK-NOT: relu: found '%a = nn.relu(%x)'",
        ),
        ("// CHECK: nn.relu\n// CHECK-NOT: }", "line 3: CHECK-NOT: }: found '}'"),
    ],
)
def test_checker_judges(expectations: str, failure: str | None) -> None:
    pipeline, checks = read_checks(f"// RUN: a,b{{x=1}}\n{expectations}")
    assert pipeline == "a,b{x=1}"
    assert first_failure(OUTPUT, checks) == failure


@pytest.mark.parametrize(
    "text",
    [
        "",
        "// RUN: a",
        "// CHECK: a",
        "// RUN: a\n// CHECK-NEXT: b",
        "// RUN: a\n// CHECK:",
        "// RUN: a\n// CHECK-LAST: b",
    ],
)
def test_checker_refuses_a_file_that_checks_nothing(text: str) -> None:
    with pytest.raises(ValueError, match=r"line 1 must|first expectation|no directive"):
        read_checks(text)
