"""The commands and the code in README.md and docs/ work as they stand there."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from qcc.backends.targets import describe
from qcc.cli import main

CHECKOUT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = ["README.md", *sorted(p.relative_to(CHECKOUT).as_posix() for p in CHECKOUT.glob("docs/*.md"))]


def blocks(document: str, language: str) -> list[str]:
    text = (CHECKOUT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the checkout, to write into."""
    made = tmp_path_factory.mktemp("tour")
    (made / "examples").symlink_to(CHECKOUT / "examples")
    return made


def test_readme_commands_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    lines = [line for block in blocks("README.md", "sh") for line in block.splitlines()]
    assert len(lines) >= 7
    for line in lines:
        program, *arguments = shlex.split(line, comments=True)
        assert program == "qcc"
        done = CliRunner().invoke(main, arguments, prog_name="qcc", catch_exceptions=False)
        assert (done.exit_code, done.stderr) == (0, ""), line
    assert (folder / "build" / "tour" / "report.html").is_file()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_blocks_run(document: str, folder: Path) -> None:
    """One after the other in one process, as a reader would."""
    code = "\n".join(b for b in blocks(document, "python") if "..." not in b)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    if document == "README.md":
        assert done.stdout.startswith("(450, 10)\nTrue (0.99")


def test_shell_lines_of_the_tutorial_run(tmp_path: Path) -> None:
    """In order, each in a process of its own; the first block of Python is my.py, as it says there."""
    (tmp_path / "examples").symlink_to(CHECKOUT / "examples")
    (tmp_path / "my.py").write_text(blocks("docs/tutorial.md", "python")[0])
    lines = [line for block in blocks("docs/tutorial.md", "sh") for line in block.splitlines()]
    shown = {}
    for line in lines:
        program, *arguments = shlex.split(line)
        own = [sys.executable, "-m", "qcc"] if program == "qcc" else [program]
        done = subprocess.run([*own, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        shown[line] = done.stdout, done.stderr
    assert {line.split()[1] for line in lines} >= {"opt", "compile", "explain", "reduce", "verify"}
    changes = next(errors for line, (_, errors) in shown.items() if "--notes" in line)
    assert "+++ after pass 10 (tutorial-sparsify)" in changes
    assert "few input channels: every weight counts" in changes
    assert [p.name for p in (tmp_path / "build" / "dumps").glob("*.qir")] == ["03-calibrate.qir"]
    assert "450 of 450 samples equal" in next(
        out for line, (out, _) in shown.items() if "verify build" in line
    )
    assert {"digits.mlir", "digits.onnx"} <= {p.name for p in (tmp_path / "build" / "sparse").iterdir()}
    assert len((tmp_path / "build" / "small.qir").read_text().splitlines()) < 12


@pytest.mark.slow
def test_figure_of_the_tutorial_on_a_model_of_the_zoo(zoo: ModuleType, tmp_path: Path) -> None:
    entry = zoo.load("ic")
    name = onnx.load(entry.model).graph.input[0].name
    (tmp_path / "examples").mkdir()
    shutil.copy(entry.model, tmp_path / "examples" / "digits.onnx")
    np.savez(tmp_path / "examples" / "digits_calib.npz", **{name: entry.calib[:100]})
    np.savez(tmp_path / "examples" / "digits_test.npz", image=entry.x[:200], label=entry.y[:200])
    code = "\n".join(blocks("docs/tutorial.md", "python")).replace(', {"N": 1}', "")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(re.findall(r"int8 [\d.]+%, float [\d.]+%", done.stdout)) == 3


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    source = CHECKOUT / document
    links = re.findall(r"\]\(([^)#]+)\)", source.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (source.parent / link).exists()] == []


def test_readme_names_every_target_and_folder() -> None:
    from_text = re.findall(
        r"^\| `([^`]+)` \|", (CHECKOUT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert [a.target.name for a in describe() if a.target.name not in from_text] == []
    assert [n for n in from_text if n.endswith("/") and not (CHECKOUT / n).is_dir()] == []
