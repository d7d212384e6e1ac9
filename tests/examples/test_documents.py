"""The commands and the code in README.md and docs/ work as they stand there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

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
