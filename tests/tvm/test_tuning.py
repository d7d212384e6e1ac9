"""Tiles that TVM's tuner chooses: the same bytes, on this machine and on one behind a tracker; results that are kept."""

import copy
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import Emitted
from float_layers import Net as FloatNet
from planned_steps import Layer, Net, blocks, random_layers

import qcc
from qcc.backends.c.build import build_program as build_executable
from qcc.backends.c.build import find_compiler, find_runner, run_program
from qcc.backends.c.emit import EmitOptions, emit
from qcc.backends.c.run import load
from qcc.backends.c.views import Views
from qcc.backends.program import Program, build_program
from qcc.backends.target import Scripts, Target, Tuning, find_target
from qcc.backends.tvm import generate
from qcc.backends.x86.features import lacking_features
from qcc.ir import interpreter
from qcc.ir.errors import QccError, TargetError
from qcc.options import CompileOptions

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NEEDED = pytest.mark.skipif(
    any(find_spec(name) is None for name in generate.TUNER_NEEDS), reason="needs psutil and cloudpickle"
)
pytestmark = [pytest.mark.compiler, NEEDED]
KEY = "qcc-test"


@pytest.fixture(scope="module")
def net() -> Net:
    """Two convolutions with the same sums, one of them with a residual operand, and a dense layer."""
    layers = [
        Layer(8, 32, (3, 3), size=(4, 4), pads=(1, 1, 1, 1)),
        Layer(8, 32, (3, 3), size=(4, 4), pads=(1, 1, 1, 1), residual="add"),
        Layer(32, 48, size=None, rows=4),
    ]
    return Net(layers, 1)


@pytest.fixture
def program(net: Net, vnni: Target) -> Program:
    return build_program(net.graph, vnni, "layers")


def tune(program: Program, tuning: Tuning) -> list[str]:
    """What was reported while tuning."""
    told: list[str] = []
    target = program.target
    assert target.tune is not None
    target.tune(target, Views(program).generated, tuning, lambda what, done, total: told.append(what))
    return told


def records(file: Path) -> list[Any]:
    """Workload, choices and seconds of each trial."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [(workload, trace[1], seconds) for workload, (trace, seconds, *_) in lines]


def check(program: Program, samples: Any, folder: Path, file: Path | None) -> str:
    """The library equals the interpreter; its kernels."""
    emit(program, folder, EmitOptions(scripts=Scripts(tuned=file)))
    got = load(folder, program.target).run(samples)
    for name, y in interpreter.run(program.graph, samples).items():
        np.testing.assert_array_equal(got[name], y)
    return (folder / "layers_kernels.s").read_text()


@pytest.fixture(scope="module")
def measured(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of two trials of each."""
    target = find_target("tvm")
    if lacking_features(target.features):
        pytest.skip("this processor lacks AVX512-VNNI")
    file = tmp_path_factory.mktemp("measured") / "kept" / "tvm.json"
    told = tune(build_program(net.graph, target, "layers"), Tuning(file, trials=2))
    assert len(told) == len(records(file)) == 4  # two kinds of sums
    return file


@pytest.fixture
def copied(measured: Path, tmp_path: Path) -> Path:
    """A database of one's own."""
    return Path(shutil.copytree(measured.parent, tmp_path / "copied")) / measured.name


def test_tuned_tiles_compute_the_same(copied: Path, program: Program, net: Net, tmp_path: Path) -> None:
    found = records(copied)
    assert {workload for workload, _, _ in found} == {0, 1}
    assert len({(w, str(choices)) for w, choices, _ in found}) > 2
    assert all(0 < s < 1 for _, _, seconds in found for s in seconds)
    check(program, net.samples(3), tmp_path / "tuned", copied)
    before = copied.read_bytes()
    assert tune(program, Tuning(copied, trials=3)) == []
    assert copied.read_bytes() == before


def test_formulas_have_nothing_to_choose(vnni: Target, tmp_path: Path) -> None:
    """Reductions and sums beside a pool that has: they are compiled as ever."""
    net = FloatNet(6)
    x = net.input(1, 6, 7, 24)
    mean = net.emit("reduce_mean", net.emit("add", x, x, output="sum"), axes=(1, 2), output="mean")
    net.emit("softmax", mean, axis=3, output="softmax")
    for op in ("avg_pool2d", "max_pool2d"):
        net.emit(op, x, kernel=(3, 3), output=op)
    samples = net.plan()
    program = build_program(net.graph, vnni, "layers")
    file = tmp_path / "tvm.json"
    tune(program, Tuning(file, trials=2))
    assert {workload for workload, _, _ in records(file)} == {0}
    check(program, samples, tmp_path / "tuned", file)


def test_the_fastest_record_decides(copied: Path, program: Program, net: Net, tmp_path: Path) -> None:
    """Each schedule that was tried is made the fastest one."""
    lines = [json.loads(line) for line in copied.read_text().splitlines()]
    texts = set()
    for choice in range(2):
        changed = copy.deepcopy(lines)
        for workload in (0, 1):
            [line for line in changed if line[0] == workload][choice][1][1] = [1e-9]
        copied.write_text("".join(json.dumps(line) + "\n" for line in changed))
        texts.add(check(program, net.samples(3), tmp_path / f"{choice}", copied))
    assert len(texts) > 1


@pytest.fixture
def tracker() -> Iterator[str]:
    """HOST:PORT:KEY of a tracker on this machine that has one server."""
    if find_spec("tornado") is None:
        pytest.skip("tornado, for TVM's tracker, is not installed")
    from tvm.rpc.server import Server  # noqa: PLC0415
    from tvm.rpc.tracker import Tracker  # noqa: PLC0415

    tracker = Tracker(host="127.0.0.1", port=9190, port_end=9290, silent=True)
    server = Server(
        host="127.0.0.1", port=9390, port_end=9490, tracker_addr=("127.0.0.1", tracker.port), key=KEY, silent=True
    )  # fmt: skip
    yield f"127.0.0.1:{tracker.port}:{KEY}"
    server.terminate()
    tracker.terminate()


def test_machines_behind_a_tracker_measure(tracker: str, vnni: Target, tmp_path: Path) -> None:
    """The whole way of a user; the results then serve a compilation that measures nothing."""
    data = np.load(EXAMPLES / "digits_calib.npz")["image"][:8]
    file = tmp_path / "tvm.json"
    choices = {"target": vnni.name, "calibration": data, "tune_file": file}
    tuned = qcc.compile(EXAMPLES / "digits.onnx", tune=True, tune_rpc=tracker, tune_trials=2, **choices)
    assert all(0 < s < 1 for _, _, seconds in records(file) for s in seconds)
    before = file.read_bytes()
    read = qcc.compile(EXAMPLES / "digits.onnx", **choices)
    assert file.read_bytes() == before
    texts = []
    for name, compiled in (("tuned", tuned), ("read", read)):
        folder = compiled.save(tmp_path / name)
        assert compiled.verify(compiled.build(folder), data).exact
        texts.append((folder / "digits_kernels.s").read_text())
    assert texts[0] == texts[1]


def drawn(schedule: Any, candidates: Sequence[int], preferred: int) -> Any:
    """One at random, as a tuner draws it."""
    return schedule.sample_categorical(list(candidates), [1 / len(candidates)] * len(candidates))


@pytest.mark.qemu
@pytest.mark.parametrize("isa", ["dotprod", "i8mm"])
def test_tiles_of_a_board_compute_the_same(
    isa: str, emitted: Emitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records of schedules drawn at random, one for each step, as if a board had measured them; the library runs under QEMU."""
    from tvm import s_tir  # noqa: PLC0415
    from tvm.s_tir import meta_schedule  # noqa: PLC0415

    from qcc.backends.tvm.isa import ISAS  # noqa: PLC0415
    from qcc.backends.tvm.records import Records  # noqa: PLC0415
    from qcc.backends.tvm.schedules import template  # noqa: PLC0415

    target = find_target(f"tvm:arm-neon-{isa}")
    if find_compiler(target) is None or find_runner(target) is None:
        pytest.skip(f"no compiler or emulator for {target.name}")
    net = Net(random_layers(Layer, np.random.default_rng(22), 16), 22)
    usual, program = emitted(net, target)
    machine = next(i for i in ISAS if target.name == f"tvm:{i.name}")
    records = Records.open(tmp_path / "board.json", machine)
    rng = np.random.default_rng(1)
    with monkeypatch.context() as patched:
        patched.setattr("qcc.backends.tvm.dot.choose", drawn)
        for seed, function in enumerate(Views(program).generated, 1):
            plain, schedules = template(function, machine)
            schedule = s_tir.Schedule(plain, seed=seed)
            workload = records.database.commit_workload(schedule.mod)
            schedules[rng.integers(len(schedules))](schedule)
            arguments = meta_schedule.arg_info.ArgInfo.from_prim_func(plain)
            records.database.commit_tuning_record(
                meta_schedule.database.TuningRecord(
                    schedule.trace, workload, [1.0], records.target, arguments
                )
            )
    folder, vectors = tmp_path / "tuned", blocks(program, net.samples(3))
    emit(program, folder, EmitOptions(vectors=vectors, scripts=Scripts(tuned=records.file)))
    assert (folder / "layers_kernels.s").read_text() != (usual / "layers_kernels.s").read_text()
    text = run_program(build_executable(folder, target, [folder / "test_main.c"]), target)
    assert text == "layers: 3 of 3 test vectors passed\n"


def test_tracker_without_machines_is_told(tracker: str, program: Program, tmp_path: Path) -> None:
    for port in (int(tracker.split(":")[1]), 1):
        with pytest.raises(TargetError, match=f"no machine 'board' answers at 127[.]0[.]0[.]1:{port}"):
            tune(program, Tuning(tmp_path / "tvm.json", ("127.0.0.1", port, "board"), 2))


def test_kernels_that_cannot_be_built_are_told(program: Program, tmp_path: Path) -> None:
    broken = replace(program, target=replace(program.target, flags=("-mno-such-thing",)))
    with pytest.raises(
        TargetError, match=r"no schedule of layers_step_y\d could be measured: .*no-such-thing"
    ):
        tune(broken, Tuning(tmp_path / "tvm.json", trials=1))


@pytest.mark.parametrize("content", ["hello\n", '{"format": "qcc tuning 1"}\n', "[7, [[], [1.0], {}, []]]\n"])
def test_other_files_are_left_alone(content: str, program: Program, tmp_path: Path) -> None:
    file = tmp_path / "tvm.json"
    file.write_text(content)
    with pytest.raises(TargetError, match=r"tvm\.json and tvm_workloads\.json are no records"):
        tune(program, Tuning(file, trials=1))
    assert file.read_text() == content
    (tmp_path / "a file").write_text("")
    with pytest.raises(TargetError, match="cannot write"):
        tune(program, Tuning(tmp_path / "a file" / "tvm.json", trials=1))


@pytest.mark.parametrize("name", ["qcc.dot.vpdpbusd", '"sums"'])
def test_schedules_of_another_version_are_told(
    name: str, copied: Path, program: Program, net: Net, tmp_path: Path
) -> None:
    copied.write_text(copied.read_text().replace(name, name.replace("s", "z")))
    with pytest.raises(TargetError, match="has a schedule that does not fit"):
        check(program, net.samples(3), tmp_path / "out", copied)


def test_missing_parts_of_the_tuner_are_told(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "TUNER_NEEDS", ("no_such_module",))
    with pytest.raises(TargetError, match="the tuner of TVM needs no_such_module"):
        tune(program, Tuning(tmp_path / "tvm.json"))


def test_options() -> None:
    with pytest.raises(QccError, match="an RPC tracker is for tuning a target tvm"):
        CompileOptions(target="c", tune=True, tune_rpc="host:9190:board")
    for text in ("host", "host:port:key", "host:9190:", ":9190:key"):
        with pytest.raises(QccError, match="is no tracker"):
            CompileOptions(target="tvm", tune=True, tune_rpc=text)
    options = CompileOptions(target="tvm", tune=True, tune_rpc="host:9190:rpi4:64")
    assert options.tracker == ("host", 9190, "rpi4:64")
    with pytest.raises(QccError, match=r"none\.json does not exist"):
        qcc.compile(EXAMPLES / "digits.onnx", target="tvm", tune_file=Path("none.json"))
    arm = find_target("tvm:arm-neon-dotprod").name
    with pytest.raises(TargetError, match="cannot be tuned here") as caught:
        qcc.compile(EXAMPLES / "digits.onnx", target=arm, tune=True)
    assert "--tune-rpc" in str(caught.value)
