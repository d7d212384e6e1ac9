"""onnx's own runner on ``qcc.onnx_backend``, all of it: ``pytest tests/onnx_suite/official.py``, or a part with ``-k``.

Every model that the backend can compile is compiled to C, built and run, the light classifiers included. What it refuses is
skipped, and ``-rs`` tells the reasons: onnx's runner would count it as passed.
"""

import unittest
from collections.abc import Sequence
from typing import Any

from onnx.backend.test import BackendTest
from onnx.backend.test.runner import BackendIsNotSupposedToImplementIt

from qcc.ir import interpreter
from qcc.onnx_backend import Array, QccBackend, QccBackendRep, Specialized


class SkippingRep(QccBackendRep):
    """A refusal is a skipped test."""

    def run(self, inputs: Sequence[Any] | dict[str, Any], **kwargs: Any) -> tuple[Array, ...]:
        """As before; raises SkipTest."""
        try:
            return super().run(inputs, **kwargs)
        except BackendIsNotSupposedToImplementIt as refusal:
            raise unittest.SkipTest(str(refusal)) from None


class InterpretedRep(SkippingRep):
    """The interpreter in place of compiled libraries."""

    def outputs(self, special: Specialized) -> dict[str, Array]:
        """Of the graph as it was imported."""
        return interpreter.run(special.graph, special.samples())


class Skipping(QccBackend):
    """In C."""

    representation = SkippingRep


class Interpreted(QccBackend):
    """In the interpreter: the whole suite takes seconds."""

    representation = InterpretedRep


def runner(backend: type[QccBackend], *patterns: str) -> BackendTest:
    """onnx's runner for the tests whose names one of ``patterns`` finds; for all without any."""
    made = BackendTest(backend, __name__)
    for pattern in patterns:
        made.include(pattern)
    return made


def run(made: BackendTest) -> unittest.TestResult:
    """The result of all its tests."""
    result = unittest.TestResult()
    made.test_suite.run(result)
    return result


globals().update(runner(Skipping).test_cases)
