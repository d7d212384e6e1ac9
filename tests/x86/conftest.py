"""The nets of these tests, and the target whose kernels they are for."""

import pytest
from planned_steps import emitted, layer, net, strict

from qcc.backends.target import Target, find_target
from qcc.backends.x86.features import lacking_features

__all__ = ["emitted", "layer", "net", "strict"]  # fixtures


@pytest.fixture
def vnni() -> Target:
    """The AVX512-VNNI target; skips where its code cannot run."""
    target = find_target("x86-avx512vnni")
    lacking = lacking_features(target.features)
    if lacking:
        pytest.skip(f"this processor lacks {', '.join(lacking)}")
    return target
