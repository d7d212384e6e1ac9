"""Virtual environments for the engines that benchmarks/x86.py compares with, one for those that get along.

    python benchmarks/install_peers.py build/peers
    python benchmarks/x86.py --peers build/peers

About 3 GB, most of it TensorFlow, which converts models for LiteRT and is not timed. Run it again to bring them up to date.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

ENVIRONMENTS = {
    "core": ("onnx", "onnxruntime", "openvino", "nncf"),
    "litert": ("ai-edge-litert",),
    "tensorflow": ("tensorflow-cpu", "onnx"),
}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Make the environments in FOLDER, with the newest versions that pip finds."""
    for name, packages in ENVIRONMENTS.items():
        python = folder / name / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder / name)], check=True)
        command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--upgrade", *packages]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
