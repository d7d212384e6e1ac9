"""Where the library goes: whole or not at all, and nothing but the named folder is touched."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from robust_build import convolution, samples

import qcc
from qcc import api
from qcc.backends.c import build, emit
from qcc.cli import main
from qcc.ir.errors import QccError, TargetError

Command = Callable[..., Result]


@pytest.fixture(scope="module")
def compiled() -> api.CompiledModel:
    return qcc.compile(convolution(), calibration=samples(convolution()))


@pytest.fixture
def command(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """`command(out, *options)`: qcc compile of a small model."""
    folder = tmp_path_factory.mktemp("model")
    onnx.save(convolution(), folder / "m.onnx")
    np.savez(folder / "c.npz", **samples(convolution()))

    def run(out: Path, *options: str) -> Result:
        arguments = ["--target", "c", "--calib", str(folder / "c.npz"), "-o", str(out), *options]
        return CliRunner().invoke(main, ["compile", str(folder / "m.onnx"), *arguments])

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refuse(compiled: api.CompiledModel, command: Command, out: Path) -> str:
    """The text of the error, the same from both sides."""
    with pytest.raises(QccError) as caught:
        compiled.save(out)
    result = command(out, "--no-build")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"error: {caught.value}\n")
    return str(caught.value)


# ---------------------------------------------------------------- folders that cannot be used
def test_folder_that_is_not_ours(compiled: api.CompiledModel, command: Command, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("all my work")
    assert refuse(compiled, command, tmp_path) == (
        f"{tmp_path} is not empty and was not written by qcc\nhint: name a new or an empty folder"
    )
    assert contents(tmp_path) == {"thesis.tex": b"all my work"}


def test_file_in_the_way(compiled: api.CompiledModel, command: Command, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert refuse(compiled, command, file) == f"{file} is a file\nhint: name a folder for the C library"
    assert refuse(compiled, command, file / "out") == (
        f"cannot write {file / 'out'}: File exists\nhint: name a folder that you may write to"
    )
    assert contents(tmp_path) == {"file": b"mine"}


def test_name_that_the_system_refuses(compiled: api.CompiledModel, command: Command, tmp_path: Path) -> None:
    out = tmp_path / ("a" * 300)
    assert (
        refuse(compiled, command, out)
        == f"{out} cannot be read: File name too long\nhint: name another folder"
    )
    assert contents(tmp_path) == {}


def test_folder_of_the_system(compiled: api.CompiledModel, command: Command) -> None:
    """Nobody, not even root, makes folders in /proc."""
    if not Path("/proc/self").exists():
        pytest.skip("there is no /proc here")
    out = Path("/proc/library")
    assert refuse(compiled, command, out) == (
        f"cannot write {out}: No such file or directory\nhint: name a folder that you may write to"
    )


# ---------------------------------------------------------------- failures on the way
@pytest.mark.parametrize("writes", [0, 1, 4, 9, 12])
def test_full_disk_leaves_the_previous_library(
    compiled: api.CompiledModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    out = tmp_path / "out"
    compiled.save(out)
    before = contents(tmp_path)
    remaining = writes
    write_text, write_bytes = Path.write_text, Path.write_bytes

    def full(method: Callable[..., int]) -> Callable[..., int]:
        def write(self: Path, *arguments: object, **choices: object) -> int:
            nonlocal remaining
            if remaining == 0:
                method(self, *[a[: len(a) // 2] for a in arguments], **choices)  # type: ignore[index, arg-type]
                raise OSError(errno.ENOSPC, "No space left on device")
            remaining -= 1
            return method(self, *arguments, **choices)

        return write

    monkeypatch.setattr(Path, "write_text", full(write_text))
    monkeypatch.setattr(Path, "write_bytes", full(write_bytes))
    for folder in (out, tmp_path / "new"):
        remaining = writes
        with pytest.raises(QccError) as caught:
            compiled.save(folder)
        assert str(caught.value) == (
            f"cannot write {folder}: No space left on device\nhint: name a folder that you may write to"
        )
        assert contents(tmp_path) == before
        assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_failing_rename_leaves_the_previous_library(
    compiled: api.CompiledModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    compiled.save(out)
    before = contents(tmp_path)
    rename = Path.rename

    def refuse_new(self: Path, target: Path) -> Path:
        if self.name.endswith(".new"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_new)
    with pytest.raises(QccError, match="Input/output error"):
        compiled.save(out)
    assert contents(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_error_of_the_caller_leaves_nothing(compiled: api.CompiledModel, tmp_path: Path) -> None:
    def stop(folder: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        emit.emit(compiled.program, tmp_path / "out", emit.EmitOptions(extra=stop))
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- compilers
def no_compilers(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("PATH", path)
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)


def test_no_compiler(
    compiled: api.CompiledModel, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_compilers(monkeypatch, "")
    with pytest.raises(TargetError) as caught:
        compiled.build(compiled.save(tmp_path / "api"))
    ways = "install gcc or clang or pip install ziglang"
    assert str(caught.value) == f"no C compiler for target c is installed\nhint: {ways}"
    result = command(tmp_path / "out")
    assert result.exit_code == 0
    assert result.stderr == f"warning: not built: no compiler for c here ({ways})\n"
    assert not (tmp_path / "out" / "build").exists()


def fake_compiler(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    compiler = folder / "cc"
    compiler.write_text(text)
    compiler.chmod(0o755)
    return compiler


def test_failing_compiler(
    compiled: api.CompiledModel, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("sh") != "/bin/sh" and not Path("/bin/sh").exists():
        pytest.skip("there is no /bin/sh")
    fake_compiler(tmp_path / "bin", "#!/bin/sh\necho 'internal compiler error' >&2\nexit 3\n")
    no_compilers(monkeypatch, str(tmp_path / "bin"))
    out = compiled.save(tmp_path / "out")
    with pytest.raises(TargetError) as caught:
        compiled.build(out)
    first, second = str(caught.value).split("\n")
    assert first.startswith("cc failed with status 3: cc -std=c99 ")
    assert second == "internal compiler error"
    result = command(tmp_path / "cli")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: cc failed with status 3: cc -std=c99 ")
    assert result.stderr.endswith("\ninternal compiler error\n")


def test_compiler_that_is_no_program(
    compiled: api.CompiledModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_compiler(tmp_path / "bin", "\x01\x02\x03")
    no_compilers(monkeypatch, str(tmp_path / "bin"))
    with pytest.raises(TargetError, match=r"^cc cannot be run: Exec format error: cc -std=c99 "):
        compiled.build(compiled.save(tmp_path / "out"))
