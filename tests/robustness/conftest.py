"""Small hostile models, and a compiler that builds the kernels once. The modules beside this file are importable."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from robust_build import Builder


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """Builds compiled models against kernels that are compiled once."""
    return Builder(tmp_path_factory.mktemp("robust"))
