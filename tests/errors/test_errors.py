"""Each tests/errors/*.qir is wrong in one way; what the user reads then is in tests/golden/errors."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qcc.ir.errors import QccError
from qcc.ir.parser import parse_graph
from qcc.ir.verifier import verify

FILES = sorted(Path(__file__).parent.glob("*.qir"))
ARRAYS = {"weights": np.zeros(20, np.float32)}


@pytest.mark.parametrize("path", FILES, ids=[p.stem for p in FILES])
def test_wrong_text_gives_its_message(path: Path, golden: Callable[[str, str], None]) -> None:
    with pytest.raises(QccError) as caught:
        verify(parse_graph(path.read_text(encoding="utf-8"), ARRAYS, path.name))
    golden(f"errors/{path.stem}.txt", f"{type(caught.value).__name__}: {caught.value}\n")


def test_every_message_belongs_to_a_file() -> None:
    stored = Path(__file__).parent.parent / "golden" / "errors"
    assert sorted(p.stem for p in stored.glob("*.txt")) == [p.stem for p in FILES]
