"""The engines that the benchmarks compare with: virtual environments, one for those that get along.

    python benchmarks/install_peers.py build/peers          # then: python benchmarks/x86.py --peers build/peers
    python benchmarks/install_peers.py build/peers --arm    # then: python benchmarks/arm.py --peers build/peers
    python benchmarks/install_peers.py build/avx2 --isa avx2   # then: x86.py --target x86-avx2 --peers build/avx2

About 3 GB, most of it TensorFlow, which converts models for LiteRT and is not timed, and with --arm another 0.4 GB. Run it
again to bring them up to date.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import emulated
import isa_limit

ENVIRONMENTS = {
    "core": ("onnx", "onnxruntime", "openvino", "nncf"),
    "litert": ("ai-edge-litert",),
    "tensorflow": ("tensorflow-cpu", "onnx"),
}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--arm", is_flag=True, help="Only the engines for 64-bit Arm, for qemu-aarch64; on Debian.")
@click.option(
    "--isa",
    type=click.Choice(sorted(isa_limit.ISAS)),
    help="Only onnxruntime, which will use no newer instructions than these.",
)
def main(folder: Path, arm: bool, isa: str | None) -> None:
    """Make the environments in FOLDER, with the newest versions that pip finds."""
    if arm:
        emulated.install(folder / "aarch64")
        return
    if isa is not None:
        isa_limit.install(folder / "onnxruntime", isa)
        return
    for name, packages in ENVIRONMENTS.items():
        python = folder / name / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder / name)], check=True)
        command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--upgrade", *packages]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
