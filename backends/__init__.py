"""qcc.backends: see docs/architecture.md."""

if __name__ != "qcc.backends":
    raise ImportError("import this package as qcc.backends")
