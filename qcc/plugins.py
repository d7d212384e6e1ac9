"""Plugins: Python files of the user's own that register passes, ops, calibrators or targets."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from pathlib import Path

from qcc.ir.errors import QccError
from qcc.ir.location import Location

_LOADED: dict[Path, bytes] = {}  # files that were run, and what they held


def load_plugin(path: Path) -> None:
    """Run a Python file; one that was run already, and is the same, is left alone.

    Raises QccError with the line of the file where it fails.
    """
    if not path.is_file():
        raise QccError(f"plugin {path} does not exist", hint="name a Python file")
    resolved = path.resolve()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise QccError(f"plugin {path} cannot be read: {error.strerror}") from None
    if _LOADED.get(resolved) == content:
        return
    # a name of its own for each file: files of one name in two folders must not take each other's place
    name = f"qcc_plugin_{hashlib.sha256(str(resolved).encode()).hexdigest()[:8]}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise QccError(f"plugin {path} is not a Python file", hint="its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # code of the user's: it may raise anything
        del sys.modules[name]
        raise _failure(path, error) from error
    _LOADED[resolved] = content


def _failure(path: Path, error: Exception) -> QccError:
    if isinstance(error, SyntaxError):
        line, text = error.lineno or 0, error.msg
    else:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path.absolute()]
        line, text = (frames[-1].lineno or 0 if frames else 0), str(error)
    source = path.read_text(encoding="utf-8", errors="replace").splitlines()
    excerpt = f"  {source[line - 1].strip()}" if 0 < line <= len(source) else ""
    message = f"the plugin failed: {type(error).__name__}: {text}"
    return QccError(message, Location(str(path), line, 1, excerpt=excerpt))
