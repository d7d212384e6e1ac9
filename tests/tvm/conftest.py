"""What the tests of the TVM targets share; all of them need TVM."""

from importlib.util import find_spec

import pytest
from planned_steps import emitted, layer, net, strict

from qcc.backends.target import Target, find_target
from qcc.backends.x86.features import lacking_features

__all__ = ["emitted", "layer", "net", "strict"]  # fixtures


@pytest.fixture(autouse=True)
def _needs_tvm() -> None:
    if find_spec("tvm") is None:
        pytest.skip("TVM is not installed")


@pytest.fixture
def vnni() -> Target:
    """The target for AVX512-VNNI; skips where its code cannot run."""
    target = find_target("tvm:x86-avx512vnni")
    lacking = lacking_features(target.features)
    if lacking:
        pytest.skip(f"this processor lacks {', '.join(lacking)}")
    return target
