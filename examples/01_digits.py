"""Compile the digit classifier for this machine, prove it right, and compare it with float.

Writes the C library and report.html into build/digits. Run it with: make demo
"""

from pathlib import Path

import numpy as np

import qcc

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "build" / "digits"


def main() -> None:
    """Compile, build, verify, measure."""
    test = np.load(HERE / "digits_test.npz")
    images, labels = test["image"], test["label"]

    model = qcc.compile(HERE / "digits.onnx", target="host", calibration=HERE / "digits_calib.npz")
    model.save(OUT)
    library = model.build(OUT)

    # every byte of the library's output against the integer interpreter; integers against float
    result = model.verify(library, images, labels)
    model.record_verification(result, "on this machine", OUT)
    accuracy = result.accuracy[0]
    assert accuracy.label_accuracy is not None
    integer, real = accuracy.label_accuracy
    print(f"library = interpreter   {result.equal} of {result.samples} test images, byte for byte")
    print(f"accuracy                int8 {integer:.2%}, float {real:.2%}; SQNR {accuracy.sqnr_db:.1f} dB")

    report = model.report
    proof = report["proof"]
    print(
        f"flash and RAM           {report['constant_bytes']:,} bytes of constants, arena {report['arena_bytes']:,}"
    )
    print(
        f"proved                  {proof['certified']} of {proof['channels']} channels certified, "
        f"sums fit {proof['accumulator_bits']} bits"
    )

    ours, theirs = library.time(images), model.time_float(images)
    print(f"time per image          {ours.median_us:.1f} us (fastest {ours.min_us:.1f})")
    print(f"  onnxruntime float32   {theirs.median_us:.1f} us (fastest {theirs.min_us:.1f}), one thread")
    print(f"library and report      {OUT}, {OUT / 'report.html'}")


if __name__ == "__main__":
    main()
