"""What tuning has found: schedules by what they compute, in the files of TVM's JSONDatabase."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvm.s_tir import meta_schedule

from qcc.backends.tvm.compile import target_of
from qcc.backends.tvm.isa import Isa
from qcc.ir.errors import TargetError

# Steps with the same sums are one workload, whatever their constants and what follows in the same function.
EQUALITY = "anchor-block"
INVALID_SECONDS = 1e9  # a trial that failed has 1e10
OTHER_FILE = "name another one with --tune-file"


@dataclass(frozen=True)
class Records:
    """A database of schedules, and the processor that they are for. ``file``: of schedules; see ``workloads_of``."""

    file: Path
    database: Any
    target: Any

    @classmethod
    def open(cls, file: Path, isa: Isa) -> Records:
        """The records in ``file``, which is made where it is missing. Raises TargetError where it holds something else."""
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            for path in (workloads_of(file), file):
                path.open("a", encoding="utf-8").close()
        except OSError as error:
            raise TargetError(f"cannot write {file}: {error.strerror}", hint=OTHER_FILE) from error
        require_records(file)
        paths = str(workloads_of(file)), str(file)
        try:
            database = meta_schedule.database.JSONDatabase(*paths, module_equality=EQUALITY)
        except (RuntimeError, ValueError) as error:  # such as a tensor intrinsic that there is no more
            raise _unfit(file) from error
        return cls(file, database, target_of(isa))

    def best(self, module: Any) -> Any:
        """The fastest record of what ``module`` computes on this processor, None where there is none."""
        if not self.database.has_workload(module):
            return None
        workload = self.database.commit_workload(module)
        ranked = self.database.get_top_k(workload, len(self.database))
        return next((r for r in ranked if self._is_valid(r)), None)

    def _is_valid(self, record: Any) -> bool:
        is_same = str(record.target) == str(self.target)
        return is_same and all(float(s) < INVALID_SECONDS for s in record.run_secs)

    def schedule(self, schedule: Any) -> bool:
        """Schedule as the best record does; False where there is none. Raises TargetError where it does not fit."""
        record = self.best(schedule.mod)
        if record is None:
            return False
        try:
            record.trace.apply_to_schedule(schedule, remove_postproc=False)
        except (RuntimeError, ValueError) as error:
            raise _unfit(self.file) from error
        return True


def _unfit(file: Path) -> TargetError:
    return TargetError(
        f"{file} has a schedule that does not fit: another version has made it",
        hint="remove the file, and tune again",
    )


def workloads_of(file: Path) -> Path:
    """The second file of a database: what the records in ``file`` are for."""
    return file.with_name(f"{file.stem}_workloads{file.suffix}")


def require_records(file: Path) -> None:
    """Raise TargetError where ``file`` is no database, or its workloads are missing: TVM crashes on some that are not."""
    try:
        workloads, records = ([json.loads(line) for line in p.open("rb")] for p in (workloads_of(file), file))
        is_database = all(len(w) == 2 and isinstance(w, list) for w in workloads) and all(
            isinstance(r, list) and len(r) == 2 and r[0] in range(len(workloads)) for r in records
        )
    except (OSError, ValueError, TypeError):
        is_database = False
    if not is_database:
        raise TargetError(
            f"{file} and {workloads_of(file).name} are no records of TVM's tuner",
            hint=f"remove them, or {OTHER_FILE}",
        )
