"""report.html in a real browser: it opens without a network, draws what it says, and its tables sort."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import Result

TIMEOUT = 90


@pytest.fixture(scope="session")
def browser() -> str:
    """A browser without a window."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if shutil.which(name):
            return name
    pytest.skip("no browser: chromium is not installed")


def run(browser: str, page: Path, profile: Path, *options: str) -> str:
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={profile}",
        "--enable-logging=stderr",
    ]
    done = subprocess.run(
        [*command, *options, page.as_uri()], capture_output=True, text=True, timeout=TIMEOUT, check=True
    )
    assert "Uncaught" not in done.stderr
    return done.stdout


def test_report_opens_and_draws(browser: str, compiled: tuple[Path, Result], tmp_path: Path) -> None:
    page, picture = compiled[0] / "report.html", tmp_path / "page.png"
    run(browser, page, tmp_path / "profile", "--window-size=1366,1800", f"--screenshot={picture}")
    assert picture.stat().st_size > 50_000  # a blank page takes a few kB


def test_a_click_sorts_a_table(browser: str, compiled: tuple[Path, Result], tmp_path: Path) -> None:
    page = tmp_path / "clicked.html"
    text = (compiled[0] / "report.html").read_text(encoding="utf-8")
    click = '<script>document.querySelector("#layers th:nth-child(6)").click()</script></body>'
    page.write_text(text.replace("</body>", click), encoding="utf-8")
    dom = run(browser, page, tmp_path / "profile", "--dump-dom")
    table = re.search(r'<table id="layers">.*?</table>', dom, re.DOTALL)
    assert table is not None
    rows = re.findall(r"<tr>(.*?)</tr>", table[0].partition("<tbody>")[2], re.DOTALL)
    macs = [int(re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)[5].replace(",", "")) for row in rows]
    assert macs == sorted(macs, reverse=True)
    assert len(set(macs)) > 2
    assert 'aria-sort="descending"' in table[0]
