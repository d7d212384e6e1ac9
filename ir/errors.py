"""The errors a user can meet: one class per phase, each with a place, a reason and a way out."""

from __future__ import annotations

from qcc.ir.location import Location


class QccError(Exception):
    """A failure the user can act on.

    ``message`` says what, expected and got; ``location`` says where; ``hint`` says what to do.
    The command line prints it without a traceback and exits with status 1.
    """

    def __init__(self, message: str, location: Location | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.location = location
        self.hint = hint

    def __str__(self) -> str:
        lines = [f"{self.location}: {self.message}" if self.location else self.message]
        if self.location is not None and self.location.excerpt:
            lines.append(self.location.excerpt)
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


class ImportModelError(QccError):
    """The ONNX file cannot be read, or holds what qcc does not support."""


class ParseError(QccError):
    """Text (IR or pipeline) that does not follow its grammar."""


class VerifyError(QccError):
    """A graph breaks a rule of its stage, or a compiled library differs from its meaning."""


class PassError(QccError):
    """A pass cannot do its work on this graph."""


class TargetError(QccError):
    """A target cannot be emitted, built or run here."""
