"""qcc.ir: see docs/architecture.md."""

if __name__ != "qcc.ir":
    raise ImportError("import this package as qcc.ir")
