"""qcc.passes: see docs/architecture.md."""

if __name__ != "qcc.passes":
    raise ImportError("import this package as qcc.passes")
