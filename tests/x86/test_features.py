"""Which kernels this machine gets, and what happens to code for another processor."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qcc.backends.c.build import find_compiler, library_sources
from qcc.backends.c.run import load, load_traced
from qcc.backends.target import find_target
from qcc.backends.targets import availability, host_target
from qcc.backends.x86.features import (
    AVX2,
    AVX512VNNI,
    AVXVNNI,
    OVERRIDE,
    lacking_features,
    parse_features,
    processor_features,
    read_cpuinfo,
)
from qcc.ir.errors import TargetError

WITHOUT_VNNI = "fpu,avx2,avx512f,avx512bw,avx512vl"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("fpu sse4_1 avx512_vnni avx_vnni", {"fpu", "sse41", "avx512vnni", "avxvnni"}),
        ("FPU SSE4.1 AVX512VNNI\n", {"fpu", "sse41", "avx512vnni"}),
        ("avx512f, avx512bw", {"avx512f", "avx512bw"}),
        ("", set()),
    ],
)
def test_features_have_one_spelling(text: str, names: set[str]) -> None:
    assert parse_features(text) == names


def test_cpuinfo_tells_what_all_processors_have() -> None:
    text = "processor\t: 0\nflags\t\t: fpu avx2 avx512_vnni\nbugs\t: spectre\n\nprocessor\t: 1\nflags\t\t: fpu avx2\n"
    assert read_cpuinfo(text) == {"fpu", "avx2"}
    assert read_cpuinfo("processor : 0\nFeatures : fp asimd asimddp\n") == {"fp", "asimd", "asimddp"}
    assert read_cpuinfo("") == frozenset()


def test_override_hides_and_never_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OVERRIDE, "no_such_feature")
    assert processor_features() == frozenset()
    assert lacking_features(AVX512VNNI) == AVX512VNNI
    monkeypatch.delenv(OVERRIDE)
    everything = processor_features()
    monkeypatch.setenv(OVERRIDE, ",".join(sorted(everything)))
    assert processor_features() == everything


def test_host_has_the_best_kernels_of_the_processor() -> None:
    plain = host_target(parse_features("fpu,avx"))
    assert not any("avx" in k.symbol for k in plain.kernels)
    assert plain.features == ()
    for features, present in (
        (AVX512VNNI, frozenset((*AVX512VNNI, *AVXVNNI))),
        (AVXVNNI, frozenset(AVXVNNI)),
        (AVX2, parse_features(WITHOUT_VNNI)),
    ):
        best = host_target(present)
        assert best.features == features
        assert any(features[-1] in k.symbol for k in best.kernels)
        assert set(plain.kernels) < set(best.kernels)
        assert best.kernels == find_target(f"x86-{features[-1]}").kernels
    assert find_target("host").kernels == host_target(processor_features()).kernels


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OVERRIDE, WITHOUT_VNNI)
    if "avx512vl" not in processor_features():  # then it lacks more, and the messages say so
        monkeypatch.setattr("qcc.backends.x86.features._detected", lambda: parse_features(WITHOUT_VNNI))


@pytest.mark.usefixtures("lacking")
@pytest.mark.parametrize("run", [load, load_traced])
def test_library_is_not_loaded_without_the_instructions(
    run: Any, net: Any, layer: Any, emitted: Callable[..., Any]
) -> None:
    folder, program = emitted(net([layer(4, 4)], 1), find_target("x86-avx512vnni"))
    with pytest.raises(TargetError) as caught:
        run(folder, program.target)
    assert str(caught.value) == (
        "target x86-avx512vnni needs avx512vnni, which this processor does not have\n"
        "hint: compile for target host, which uses what this processor has, or run it on one that does have it"
    )
    assert not (folder / "build").exists()


@pytest.mark.usefixtures("lacking")
def test_availability_says_what_the_processor_lacks() -> None:
    found = availability(find_target("x86-avx512vnni"))
    assert not found.runs
    assert found.lacking == ("avx512vnni",)
    assert "run it on a processor with avx512vnni" in found.missing


@pytest.mark.compiler
def test_command_line_builds_and_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OVERRIDE, WITHOUT_VNNI)
    example = Path(__file__).resolve().parents[2] / "examples" / "digits.onnx"
    out = tmp_path / "out"
    qcc = (sys.executable, "-m", "qcc")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [*qcc, *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)

    calib = example.with_name("digits_calib.npz")
    done = run("compile", example, "--calib", calib, "-o", out, "--target", "x86-avx512vnni")
    if "no compiler" in done.stdout + done.stderr:
        pytest.skip("no compiler for x86")
    assert done.returncode == 0, done.stderr
    assert "built, not run: this processor does not have" in " ".join((done.stdout + done.stderr).split())
    done = run("verify", out)
    assert done.returncode == 1
    assert done.stderr.startswith("error: target x86-avx512vnni needs")


@pytest.mark.compiler
def test_emitted_c_refuses_to_compile_without_the_instructions(
    net: Any, layer: Any, emitted: Callable[..., Any]
) -> None:
    target = find_target("x86-avx512vnni")
    compiler = find_compiler(target)
    if compiler is None:
        pytest.skip("no compiler for x86")
    folder, _ = emitted(net([layer(4, 4)], 1), target)
    assert (folder / "qcc_avx512vnni.h").is_file()
    source = next(s for s in library_sources(folder) if "avx512vnni" in s.name)
    command = [*compiler.argv, "-std=c99", "-fsyntax-only", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "this library needs a processor with AVX512-VNNI" in done.stderr
