"""Tuning: TVM's meta-schedule tuner measures the schedules that a step may have, here or on machines behind an RPC tracker.

The choices are those of the schedules (``choose``, and the alternatives of a ``Template``). TVM's evolutionary search
draws from them, none twice; its runners measure; its JSONDatabase keeps the results. What is measured is the function as the
library has it, called by one with TVM's convention.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tvm
from tvm import s_tir
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule

from qcc.backends.c.build import link_shared
from qcc.backends.target import Generated, Progress, Target, Tuning
from qcc.backends.tvm.compile import assembly_of, entry_of
from qcc.backends.tvm.intrinsics import register_intrinsics
from qcc.backends.tvm.isa import Isa
from qcc.backends.tvm.records import Records
from qcc.backends.tvm.schedules import template
from qcc.ir.errors import TargetError

KERNEL, ENTRY = "kernel", "main"
BATCH = 16  # trials that are built, then measured
POPULATION = 64  # schedules drawn for a batch; more than a step has, for most
EVALUATION = {"number": 1, "repeat": 3, "min_repeat_ms": 20, "enable_cpu_cache_flush": False}
SESSION_SECONDS, CONNECT_SECONDS = 60, 10
SEED = 1


def tune_functions(
    target: Target, functions: Sequence[Generated], isa: Isa, tuning: Tuning, progress: Progress
) -> None:
    """Measure what ``tuning.file`` does not know of these functions, and add it.

    Raises TargetError where a step can be neither built nor measured, or no machine answers.
    """
    register_intrinsics()
    records = Records.open(tuning.file, isa)
    found = {}
    for function in functions:
        plain, schedules = template(function, isa)
        module = tvm.IRModule({ENTRY: plain.with_attr("global_symbol", ENTRY)})
        if records.best(module) is None and _has_choice(module, schedules):
            found[records.database.commit_workload(module)] = (function.symbol, schedules)
    if not found:
        return
    tasks = [
        _task(workload.mod, name, schedules, records.target) for workload, (name, schedules) in found.items()
    ]
    errors: list[str] = []
    with tempfile.TemporaryDirectory(prefix="qcc-tune-") as folder:
        meta_schedule.tune_tasks(
            tasks=tasks,
            task_weights=[1.0] * len(tasks),
            work_dir=folder,
            max_trials_global=tuning.trials * len(tasks),
            max_trials_per_task=tuning.trials,
            num_trials_per_iter=min(BATCH, tuning.trials),
            builder=_Builder(target, isa, Path(folder), lambda n: progress("tuning tiles", n, 0)),
            runner=_runner(tuning.rpc),
            database=records.database,
            cost_model=meta_schedule.cost_model.RandomModel(),
            measure_callbacks=[meta_schedule.measure_callback.AddToDatabase(), _Errors(errors)],
            task_scheduler="round-robin",
            module_equality="anchor-block",
        )
    for task in tasks:
        if records.best(task.mod) is None:
            reason = errors[0].strip().splitlines()[-1] if errors else "no schedule was found"
            raise TargetError(f"no schedule of {task.task_name} could be measured: {reason}")


def _has_choice(module: Any, schedules: Sequence[Any]) -> bool:
    if len(schedules) > 1:
        return True
    schedule = s_tir.Schedule(module)
    schedules[0](schedule)
    return any(i.kind.name.startswith("Sample") for i in schedule.trace.insts)


def _task(module: Any, name: str, schedules: Sequence[Any], target: Any) -> Any:
    def spaces(schedule: Any) -> list[Any]:
        copies = [schedule.copy() for _ in schedules]
        for copy, apply in zip(copies, schedules, strict=True):
            apply(copy)
        return copies

    space = meta_schedule.space_generator.ScheduleFn(spaces, sch_rules=[], postprocs=[], mutator_probs={})
    search = meta_schedule.search_strategy.EvolutionarySearch(
        population_size=POPULATION, init_min_unmeasured=1, genetic_num_iters=1, genetic_max_fail_count=1
    )
    return meta_schedule.TuneContext(
        module,
        target=target,
        space_generator=space,
        search_strategy=search,
        task_name=name,
        rand_state=SEED,
        num_threads=1,
    )


def _runner(rpc: tuple[str, int, str] | None) -> Any:
    """Of this machine, or of those that a tracker has under a key: as many at once as there are."""
    config = meta_schedule.runner.EvaluatorConfig(**EVALUATION)
    if rpc is None:
        return meta_schedule.runner.LocalRunner(timeout_sec=SESSION_SECONDS, evaluator_config=config)
    host, port, key = rpc
    where = meta_schedule.runner.RPCConfig(host, port, key, session_timeout_sec=SESSION_SECONDS)
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()  # TVM would try for a minute
        count = where.count_num_servers(allow_missing=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise TargetError(
            f"no machine {key!r} answers at {host}:{port}",
            hint="python -m tvm.exec.query_rpc_tracker tells which ones a tracker has",
        ) from error
    return meta_schedule.runner.RPCRunner(where, config, max_workers=count)


@derived_object
class _Builder(meta_schedule.builder.PyBuilder):  # type: ignore[misc]
    """Shared libraries, linked by the compiler of the target, one after the other."""

    def __init__(self, target: Target, isa: Isa, folder: Path, progress: Any) -> None:
        super().__init__()
        self.target, self.isa, self.folder, self.progress, self.count = target, isa, folder, progress, 0

    def build(self, build_inputs: Sequence[Any]) -> list[Any]:
        """One result for each."""
        return [self._build(given.mod) for given in build_inputs]

    def _build(self, module: Any) -> Any:
        folder = self.folder / str(self.count)
        folder.mkdir()
        self.progress(self.count)
        self.count += 1
        function = module[ENTRY]
        texts = {
            KERNEL: assembly_of(
                tvm.IRModule({KERNEL: function.with_attr("global_symbol", KERNEL)}), self.isa
            ),
            ENTRY: entry_of(function, ENTRY, KERNEL, self.isa),
        }
        sources = [folder / f"{name}.s" for name in texts]
        for source, text in zip(sources, texts.values(), strict=True):
            source.write_text(text, encoding="utf-8")
        try:
            library = link_shared(sources, self.target, folder / f"trial{self.count}.so")
        except TargetError as error:
            return meta_schedule.builder.BuilderResult(None, error.message)
        return meta_schedule.builder.BuilderResult(str(library), None)


@derived_object
class _Errors(meta_schedule.measure_callback.PyMeasureCallback):  # type: ignore[misc]
    """Keeps what builder and runner say of trials that failed."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__()
        self.messages = messages

    def apply(
        self, task_scheduler: Any, task_id: int, measure_candidates: Any, builder_results: Any, runner_results: Any
    ) -> None:  # fmt: skip
        """Called for each batch."""
        for result in (*builder_results, *runner_results):
            if result.error_msg is not None:
                self.messages.append(str(result.error_msg))
