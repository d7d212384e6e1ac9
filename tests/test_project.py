"""Guards of the project itself: packaging lists, layers, file sizes, head comments, paths of one machine."""

import ast
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
SOURCES = ("qcc", "ir", "passes", "backends")
MAX_LINES = 450

# What each layer may import besides the standard library. `qcc` is on top and may import all of them.
LAYERS = {
    "ir": ("numpy", "lark", "qcc.ir"),
    "passes": ("numpy", "qcc.ir", "qcc.passes"),
    "backends": ("numpy", "jinja2", "qcc.ir", "qcc.backends"),
    "backends/tvm": ("numpy", "jinja2", "qcc.ir", "qcc.backends", "tvm", "tvm_ffi"),
}

# Modules that only these files may import: one door each, so that the rest can be read and tested without it.
DOORS = {
    "onnx": ("qcc/onnx_*.py",),
    "onnxruntime": ("qcc/float_runtime.py",),
    "subprocess": ("backends/c/build.py", "backends/c/run.py"),
    "ctypes": ("backends/c/build.py", "backends/c/run.py"),
    "tvm": ("backends/tvm/*",),
    "tvm_ffi": ("backends/tvm/*",),
}
# TVM is optional and slow to import, so its backend imports it at the moment of use.
LATE_IMPORTS = ("backends/tvm/*",)


def python_files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted(p for p in (CHECKOUT / folder).rglob("*.py") if "__pycache__" not in p.parts)


def relative(path: Path) -> str:
    return path.relative_to(CHECKOUT).as_posix()


def is_within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


# ---------------------------------------------------------------- (a) the packaging lists


def packaging() -> dict[str, object]:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    setuptools: dict[str, object] = project["tool"]["setuptools"]
    return setuptools


def package_name(folder: Path) -> str:
    name = relative(folder).replace("/", ".")
    return name if is_within(name, ("qcc",)) else f"qcc.{name}"


def test_packages_list_names_every_folder_with_init() -> None:
    """A forgotten package works in an editable install and is missing, silently, from the wheel."""
    folders = {package_name(path.parent) for path in python_files(*SOURCES) if path.name == "__init__.py"}
    listed = packaging()["packages"]
    assert isinstance(listed, list)
    assert sorted(listed) == sorted(folders)


def test_every_module_lies_in_a_package() -> None:
    assert [relative(p) for p in python_files(*SOURCES) if not (p.parent / "__init__.py").is_file()] == []


def test_package_data_names_every_other_file() -> None:
    """The same for kernels, templates and grammars; patterns belong to the nearest package above the file."""
    patterns = packaging()["package-data"]
    assert isinstance(patterns, dict)
    missing = []
    for path in (p for folder in SOURCES for p in sorted((CHECKOUT / folder).rglob("*"))):
        if path.is_dir() or path.suffix == ".py" or "__pycache__" in path.parts:
            continue
        package = next(p for p in path.parents if (p / "__init__.py").is_file() or p == CHECKOUT)
        inside = path.relative_to(package)
        if not any(inside.match(pattern) for pattern in patterns.get(package_name(package), [])):
            missing.append(relative(path))
    assert missing == []


# ---------------------------------------------------------------- (b) layers


def imported_modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Names with what is taken from them, because `from qcc import ir` imports qcc.ir, not only qcc."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.module is not None
    return [f"{node.module}.{alias.name}" for alias in node.names]


def import_breaches(path: str, source: str) -> list[str]:
    """What the imports of one file (path relative to the checkout) do against the rules."""
    tree = ast.parse(source)
    layer = next((LAYERS[name] for name in sorted(LAYERS, reverse=True) if path.startswith(f"{name}/")), None)
    late = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    breaches = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        where = f"{path}:{node.lineno}"
        if isinstance(node, ast.ImportFrom) and node.level:
            breaches.append(f"{where}: relative import")
            continue
        if any(alias.name == "*" for alias in node.names):
            breaches.append(f"{where}: star import")
        if node in late and not any(fnmatch(path, pattern) for pattern in LATE_IMPORTS):
            breaches.append(f"{where}: import inside a function")
        for module in imported_modules(node):
            top = module.split(".")[0]
            if top in DOORS and not any(fnmatch(path, pattern) for pattern in DOORS[top]):
                breaches.append(f"{where}: {top} may be imported only in {', '.join(DOORS[top])}")
            elif layer and top not in sys.stdlib_module_names and not is_within(module, layer):
                breaches.append(f"{where}: {module} is not in a layer below")
    return breaches


def test_imports_keep_the_layers() -> None:
    breaches = []
    for path in python_files(*SOURCES):
        breaches += import_breaches(relative(path), path.read_text(encoding="utf-8"))
    assert breaches == []


@pytest.mark.parametrize(
    ("path", "source", "message"),
    [
        ("ir/a.py", "from qcc.passes import base", "layer below"),
        ("ir/a.py", "import jinja2", "layer below"),
        ("ir/a.py", "from qcc import driver", "layer below"),
        ("passes/a.py", "from qcc.backends.target import Target", "layer below"),
        ("passes/a.py", "from qcc import backends", "layer below"),
        ("passes/a.py", "import qcc", "layer below"),
        ("passes/a.py", "from numpy_extras import x", "layer below"),
        ("backends/c/a.py", "import numpy, qcc.passes.base", "layer below"),
        ("backends/a.py", "if True:\n    import click", "layer below"),
        ("qcc/driver.py", "import onnx", "onnx may be imported only"),
        ("qcc/driver.py", "from onnx import helper", "onnx may be imported only"),
        ("qcc/onnx_importer.py", "import onnxruntime", "onnxruntime may be imported only"),
        ("passes/onnx_importer.py", "import onnx", "onnx may be imported only"),
        ("backends/c/emit.py", "import subprocess", "subprocess may be imported only"),
        ("qcc/cli.py", "from ctypes import CDLL", "ctypes may be imported only"),
        ("backends/c/emit.py", "def f():\n    import tvm", "tvm may be imported only"),
        ("qcc/cli.py", "def f():\n    import json", "inside a function"),
        (
            "qcc/cli.py",
            "class A:\n    async def f():\n        if 1:\n            import json",
            "inside a function",
        ),
        ("qcc/cli.py", "from . import driver", "relative import"),
        ("ir/a.py", "from numpy import *", "star import"),
    ],
)
def test_planted_import_is_found(path: str, source: str, message: str) -> None:
    assert any(message in breach for breach in import_breaches(path, source))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("ir/parser.py", "import re\nimport lark\nfrom qcc.ir.graph import Graph\nfrom qcc import ir"),
        ("passes/a.py", "import numpy as np\nfrom qcc.ir import ops\nfrom qcc.passes.base import Pass"),
        ("backends/c/build.py", "import ctypes.util\nimport subprocess\nimport jinja2"),
        ("backends/tvm/a.py", "def f():\n    import tvm\n    from tvm import tir"),
        ("qcc/onnx_exporter_qdq.py", "import onnx\nfrom onnx import helper"),
        ("qcc/driver.py", "from qcc.passes import manager\nfrom qcc.backends import target\nimport click"),
    ],
)
def test_planted_allowed_import_is_left_alone(path: str, source: str) -> None:
    assert import_breaches(path, source) == []


# ---------------------------------------------------------------- (c) size and docstrings


def test_python_files_stay_short() -> None:
    files = python_files(*SOURCES, "tests", "examples", "benchmarks")
    lengths = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {path: lines for path, lines in lengths.items() if lines > MAX_LINES} == {}


def test_python_modules_open_with_a_docstring() -> None:
    files = python_files(*SOURCES, "tests", "examples", "benchmarks")
    assert [relative(p) for p in files if not ast.get_docstring(ast.parse(p.read_bytes()))] == []


# ---------------------------------------------------------------- (d) paths of one machine


def folder_pattern(checkout: Path) -> re.Pattern[bytes]:
    """Finds the folder that holds the checkout; the checkout itself where all machines have such a folder."""
    common = {"/", "/home", "/mnt", "/opt", "/root", "/src", "/srv", "/tmp", "/usr/src", "/var/tmp"}
    parent = checkout.parent.as_posix()
    shared = parent in common | {tempfile.gettempdir()}
    folder = re.escape((checkout.as_posix() if shared else parent).encode())
    # A whole path: not the middle of a longer one (a/work), not the start of another name (/workspace).
    return re.compile(rb"(?<![\w./~-])" + folder + rb"(?![\w-])")


def test_no_file_names_the_folder_of_this_checkout() -> None:
    git = ["git", "-c", f"safe.directory={CHECKOUT}", "-C", str(CHECKOUT)]
    listing = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run([*git, *listing], capture_output=True, check=True, timeout=60).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout, so which files belong to the project is unknown")
    pattern = folder_pattern(CHECKOUT)
    paths = [CHECKOUT / name for name in listed.decode().split("\0") if name]
    assert [relative(p) for p in paths if p.is_file() and pattern.search(p.read_bytes())] == []


@pytest.mark.parametrize(
    ("checkout", "text", "found"),
    [
        ("/data/ann/qcc", "see /data/ann/other/file", True),
        ("/data/ann/qcc", "(/data/ann)", True),
        ("/data/ann/qcc", "file:///data/ann/x", False),  # looks like the middle of another path
        ("/data/ann/qcc", "/data/annual/x", False),
        ("/data/ann/qcc", "/big/data/ann", False),
        ("/tmp/qcc", "write to /tmp/out", False),
        ("/tmp/qcc", "write to /tmp/qcc/out", True),
        ("/qcc", "/usr/bin", False),
    ],
)
def test_folder_pattern_finds_whole_paths_only(checkout: str, text: str, found: bool) -> None:
    assert bool(folder_pattern(Path(checkout)).search(text.encode())) is found


# ---------------------------------------------------------------- (e) kernels


def test_kernel_files_open_with_a_comment() -> None:
    """The head comment gives layouts, ranges and the accumulator bound (see the docs on adding a kernel)."""
    suffixes = {".c", ".h", ".S", ".in"}
    kernels = [p for p in sorted(CHECKOUT.glob("backends/*/kernels/**/*")) if p.suffix in suffixes]
    bare = [p for p in kernels if not p.read_text(encoding="utf-8").lstrip().startswith(("/*", "//"))]
    assert [relative(p) for p in bare] == []
