"""Static quantization by onnxruntime: per-channel s8 weights, u8 activations, QDQ nodes."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import version_converter
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from engines.base import Job

PER_CHANNEL_OPSET = 13  # the first one whose QuantizeLinear has an axis
Array = NDArray[Any]


def prepare(job: Job) -> None:
    """Write the model quantized with MinMax ranges."""
    quantize(Path(job.model), job.samples(), Path(job.prepared))


def prepare_percentile(job: Job) -> None:
    """Write the model quantized with Percentile ranges, of 99.999 %."""
    quantize(Path(job.model), job.samples(), Path(job.prepared), CalibrationMethod.Percentile)


def quantize(
    model: Path,
    samples: Sequence[Array],
    result: Path,
    method: CalibrationMethod = CalibrationMethod.MinMax,
) -> None:
    """The QDQ model of ``model`` as ``result``; each sample has a leading 1."""
    logging.disable(logging.WARNING)  # it advises pre-processing, which is done here
    onnxruntime.set_default_logger_severity(3)
    proto = onnx.load(model)
    if max(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")) < PER_CHANNEL_OPSET:
        proto = version_converter.convert_version(proto, PER_CHANNEL_OPSET)
    with tempfile.TemporaryDirectory() as folder:
        source, prepared = Path(folder) / "source.onnx", Path(folder) / "prepared.onnx"
        onnx.save(proto, source)
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(result),
            Samples(proto.graph.input[0].name, samples),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=method,
        )
    logging.disable(logging.NOTSET)


class Samples(CalibrationDataReader):
    """Hands out calibration samples one by one."""

    def __init__(self, name: str, samples: Sequence[Array]) -> None:
        self._feeds = iter([{name: x} for x in samples])

    def get_next(self) -> dict[str, Array] | None:
        """The next sample, None after the last."""
        return next(self._feeds, None)
