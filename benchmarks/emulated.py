"""A Python for 64-bit Arm with engines in it, which qemu-aarch64 runs on any machine.

The interpreter and its libraries are Debian's arm64 packages, unpacked into a folder (nothing is installed, and root is not
needed); the engines are PyPI's aarch64 wheels. Debian only: Ubuntu keeps arm64 packages on other servers.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SYSTEM_PACKAGES = ("python3", "libstdc++6")
ENGINES = ("ai-edge-litert", "onnxruntime")

# The part number that the kernel shows for a processor: engines choose kernels by it. QEMU's "max" has none of its own:
# Neoverse V1 is the first of Arm's with 8-bit matrix products.
_PARTS = {"cortex-a53": 0xD03, "cortex-a76": 0xD0B, "max,sme=off": 0xD40}
_CPUINFO = """processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part:#x}
CPU revision\t: 0
"""


@dataclass(frozen=True)
class Emulated:
    """The environment in ``folder``: ``root/``, which stands for the file system, and ``site/``, the engines."""

    folder: Path

    @property
    def root(self) -> Path:
        """Absolute, as QEMU wants it."""
        return self.folder.absolute() / "root"

    @property
    def site(self) -> Path:
        """Of the wheels."""
        return self.folder.absolute() / "site"

    @property
    def python(self) -> Path | None:
        """The interpreter; None where it was not installed."""
        return next(iter(sorted(self.root.glob("usr/bin/python3.*[0-9]"))), None)

    def versions(self) -> dict[str, str]:
        """Of the distributions in ``site``, by their names with underscores."""
        found = (path.stem.split("-") for path in self.site.glob("*.dist-info"))
        return {name: version for name, version, *_ in found}

    def run(
        self, cpu: str, arguments: Sequence[str], options: Sequence[str] = (), paths: Sequence[Path] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run the interpreter on a processor of QEMU; ``options``: of QEMU; ``paths``: of modules, besides the engines'."""
        self._describe(cpu)
        python = self.python
        assert python is not None
        modules = os.pathsep.join(map(str, (*paths, self.site)))
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": modules, "PYTHONDONTWRITEBYTECODE": "1"}
        environment |= {"OPENBLAS_NUM_THREADS": "1"}  # numpy's, not the engine's
        command = ["qemu-aarch64", *options, "-L", str(self.root), "-cpu", cpu, str(python), *arguments]
        return subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=900,
        )

    def _describe(self, cpu: str) -> None:
        """One processor, in the files of the kernel that engines read: QEMU looks for all files in ``root`` first."""
        kernel = self.root / "sys" / "devices" / "system" / "cpu"
        kernel.mkdir(parents=True, exist_ok=True)
        for name in ("possible", "present", "online"):
            (kernel / name).write_text("0\n", encoding="ascii")
        (self.root / "proc").mkdir(exist_ok=True)
        text = _CPUINFO.format(part=_PARTS.get(cpu, _PARTS["cortex-a53"]))
        (self.root / "proc" / "cpuinfo").write_text(text, encoding="ascii")


def install(folder: Path) -> None:
    """Make or renew the environment in ``folder``. Raises CalledProcessError when a command fails."""
    environment = Emulated(folder)
    for package in _download_packages(folder.absolute() / "apt"):
        environment.root.mkdir(parents=True, exist_ok=True)
        subprocess.run(["dpkg-deb", "-x", str(package), str(environment.root)], check=True)
    ask = "import platform, sys; print(*sys.version_info[:2], platform.libc_ver()[1].split('.')[1])"
    done = environment.run("cortex-a53", ["-c", ask])
    if done.returncode != 0:
        raise RuntimeError(f"the interpreter for Arm does not run: {done.stderr.strip()[-300:]}")
    major, minor, library = done.stdout.split()
    platforms = [f"--platform=manylinux_2_{n}_aarch64" for n in range(int(library), 16, -1)]
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--upgrade"]
    wheels = ["--target", str(environment.site), "--only-binary=:all:", f"--python-version={major}.{minor}"]
    subprocess.run([*pip, *wheels, *platforms, "--platform=manylinux2014_aarch64", *ENGINES], check=True)


def _download_packages(folder: Path) -> list[Path]:
    """Debian's arm64 packages, with all they depend on, by apt-get in folders of its own."""
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").write_text("", encoding="ascii")  # nothing is installed
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "Dir::State": folder,
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Debug::NoLocking": "true",
    }
    apt = ["apt-get", "-q", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))]
    subprocess.run([*apt, "update"], check=True)
    choose = ["install", "--yes", "--no-install-recommends", "--download-only"]
    subprocess.run([*apt, *choose, *SYSTEM_PACKAGES], check=True)
    return sorted((folder / "cache" / "archives").glob("*.deb"))
