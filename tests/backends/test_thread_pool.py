"""The pool of threads that emitted programs use: every stage in order, whoever computes its parts."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from qcc.backends.c.emit import RUNTIME
from qcc.backends.target import Target


@pytest.mark.compiler
@pytest.mark.parametrize("sanitizer", ["", "-fsanitize=thread", "-fsanitize=address,undefined"])
def test_pool_of_any_size_runs_stages_in_order(
    sanitizer: str, compiler_target: Callable[..., Target], tmp_path: Path
) -> None:
    """Fewer, as many and more threads than parts and than processors; workers awake and asleep."""
    flags = ["-O1", "-g", *([sanitizer] if sanitizer else [])]
    compiler_target("gcc")
    sources = [str(Path(__file__).with_name("thread_pool_main.c")), str(RUNTIME / "qcc_threads.c")]
    command = ["gcc", "-std=c99", "-pthread", *flags, f"-I{RUNTIME}", *sources, "-o", str(tmp_path / "main")]
    if subprocess.run(command, check=False, capture_output=True, timeout=100).returncode != 0:
        pytest.skip(f"the compiler has no {sanitizer}")
    result = subprocess.run(
        [str(tmp_path / "main")], check=False, capture_output=True, text=True, timeout=100
    )
    if "unexpected memory mapping" in result.stderr:
        pytest.skip("programs with the thread sanitizer of this compiler do not run here")
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr
