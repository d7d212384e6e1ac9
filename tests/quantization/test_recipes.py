"""Recipes against the tools they follow: onnxruntime's calibrators, recorded results of PyTorch, rules in closed form."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

import qcc
from qcc.cli import main
from qcc.driver import quantize_pipeline
from qcc.ir.errors import QccError
from qcc.ir.graph import Graph
from qcc.ir.qspec import QSpec
from qcc.options import CompileOptions
from qcc.passes.calibrate import observer_names
from qcc.passes.observers import DefaultOptions, equal_bins, ranges_of, shrunk_bins
from qcc.passes.statistics import FEW, TensorStatistics
from qcc.recipes import OPTIONS, RECIPES, USUAL_CORRECTIONS

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MODEL, CALIB = EXAMPLES / "digits.onnx", EXAMPLES / "digits_calib.npz"
Floats = NDArray[np.float32]


def statistics_of(*batches: Floats) -> TensorStatistics:
    statistics = TensorStatistics()
    for x in batches:
        statistics.extend(x)
        statistics.tally(x)
        statistics.end_batch()
    return statistics


def spec(text: str) -> DefaultOptions:
    return DefaultOptions(spec=QSpec.parse(text))


# ---------------------------------------------------------------------- NNCF
@pytest.mark.parametrize("cut", [1, 3, 12])
def test_mean_extremes_do_not_depend_on_the_cut_into_batches(cut: int) -> None:
    x = np.random.default_rng(5).laplace(size=(12, 7, 5)).astype(np.float32)
    rows = x.reshape(12, -1).astype(np.float64)
    statistics = statistics_of(*np.split(x, cut))
    mean = rows.min(axis=1).mean(), rows.max(axis=1).mean()
    assert ranges_of(statistics, "mean-min-max") == pytest.approx(mean, rel=1e-12)
    reach = np.abs(rows).max(axis=1).mean()
    for text in ("activations=symmetric", "activations=by-sign"):
        assert ranges_of(statistics, "mean-min-max", spec(text)) == pytest.approx((-reach, reach), rel=1e-12)


def test_mean_extremes_of_parts_merge_and_layers_drop() -> None:
    x = np.random.default_rng(6).normal(size=(8, 50)).astype(np.float32)
    apart, other = TensorStatistics(), TensorStatistics()
    for number, (statistics, part) in enumerate(((apart, x[:3]), (other, x[3:]))):
        statistics.extend(part)
        statistics.tally(part, number)
    apart.merge(other)
    lows, highs = x.min(axis=1).astype(np.float64), x.max(axis=1).astype(np.float64)
    assert apart.mean_extremes()[:2] == pytest.approx((lows.mean(), highs.mean()), rel=1e-12)
    apart.keep_layers(1)
    assert apart.mean_extremes()[:2] == pytest.approx((lows[3:].mean(), highs[3:].mean()), rel=1e-12)


def test_samples_may_span_several_rows() -> None:
    x = np.arange(24, dtype=np.float32).reshape(6, 4) - 8
    statistics = TensorStatistics()
    statistics.tally(x, 0, 2)
    assert statistics.mean_extremes() == ((-8 + 4) / 2, (3 + 15) / 2, (8 + 15) / 2)


def test_mean_extremes_of_what_is_never_negative_reach_zero() -> None:
    statistics = TensorStatistics(never_negative=True)
    statistics.tally(np.array([[1, 3], [2, 5]], np.float32))
    assert ranges_of(statistics, "mean-min-max", spec("activations=by-sign")) == (0.0, 4.0)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (-5.0, 2.0), (0.0, 3.0), (1.0, 4.0), (-2.0, 0.0)])
def test_by_sign_is_the_symmetric_range_of_nncf(low: float, high: float) -> None:
    """fake_quantize.py, symmetric_range: [-h * 256 / 254, h] for what may be negative, else [0, h]; 256 levels."""
    reach = max(-low, high)
    input_low = -reach * 256 / 254 if low < 0 else 0.0
    qparams = QSpec(activations="by-sign").activation(low, high)
    assert qparams.scale[0] == pytest.approx((reach - input_low) / 255, rel=1e-7)
    assert qparams.zero_point == (0 if low < 0 else -128)


# ---------------------------------------------------------------------- PyTorch
# scale and zero_point of HistogramObserver(reduce_range=True) in PyTorch 2.13.0, less 64: our codes start at -64
RECORDED = {
    "gauss": (0.06453274935483932, 62 - 64),
    "laplace": (0.1666973978281021, 62 - 64),
    "uniform": (0.03148028627038002, 32 - 64),
    "relu": (0.03251880034804344, 0 - 64),
    "outlier": (0.07093756645917892, 59 - 64),
}


def drawn(name: str) -> Floats:
    rng, count = np.random.default_rng(11), 200_000
    x = {
        "gauss": lambda: rng.normal(size=count),
        "laplace": lambda: rng.laplace(size=count),
        "uniform": lambda: rng.uniform(-1, 3, size=count),
        "relu": lambda: np.maximum(rng.normal(size=count), 0),
        "outlier": lambda: np.append(rng.normal(size=count), 100.0),
    }[name]()
    return x.astype(np.float32)


@pytest.mark.parametrize("name", RECORDED)
def test_the_histogram_search_finds_the_scales_of_pytorch(name: str) -> None:
    low, high = ranges_of(statistics_of(drawn(name)[:, None]), "histogram")
    qparams = QSpec.parse(RECIPES["pytorch"].qspec).activation(low, high)
    scale, zero_point = RECORDED[name]
    assert qparams.scale[0] == pytest.approx(scale, rel=2e-7)
    assert qparams.zero_point == zero_point


def direct_search(histogram: NDArray[np.float64]) -> tuple[int, int]:
    """HistogramObserver._non_linear_param_search, line by line, and its error bin by bin."""
    bins, c_sum = len(histogram), np.cumsum(histogram)
    total, alpha, beta, start, end, norm_min = c_sum[-1], 0.0, 1.0, 0, bins - 1, np.inf
    while alpha < beta:
        next_alpha, next_beta = alpha + 1e-5, beta - 1e-5
        left, right = start, end
        while left < end and c_sum[left] < np.float32(next_alpha * total):
            left += 1
        while right > start and c_sum[right] > np.float32(next_beta * total):
            right -= 1
        next_start, next_end = start, end
        if left - start > end - right:
            next_start, alpha = left, next_alpha
        else:
            next_end, beta = right, next_beta
        if (next_start, next_end) == (start, end):
            continue
        norm = direct_error(histogram, next_start, next_end)
        if norm > norm_min:
            break
        norm_min, start, end = norm, next_start, next_end
    return start, end


def direct_error(histogram: NDArray[np.float64], start: int, end: int) -> float:
    def norm(begin: float, end: float) -> float:
        return (end**3 - begin**3) / 3

    width, error = (end - start + 1) / 256, 0.0
    for number, density in enumerate(histogram):
        begin = float(number - start)
        first = min(max(begin // width, 0), 255)
        last = min(max((begin + 1) // width, 0), 255)
        error += density * norm(begin - (first + 0.5) * width, width / 2)
        error += density * (last - first - 1) * norm(-width / 2, width / 2)
        error += density * norm(-width / 2, begin + 1 - (last * width + width / 2))
    return error


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from([257, 300, 512]))
def test_the_search_is_that_of_pytorch_line_by_line(seed: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    distance = np.abs(np.arange(bins) - rng.uniform(0, bins))
    histogram = np.floor(rng.exponential(1e5, size=bins) * np.exp(-distance / rng.uniform(5, 40)))
    histogram[int(rng.integers(bins))] += 1e4
    assert shrunk_bins(histogram) == direct_search(histogram)


def test_equal_bins_are_the_histogram() -> None:
    x = drawn("laplace")
    found = equal_bins(statistics_of(x[:, None]), 64)
    assert found.sum() == pytest.approx(len(x))
    np.testing.assert_allclose(found, np.histogram(x, 64)[0], atol=0.01 * len(x) / 64)


# ---------------------------------------------------------------------- TensorFlow Lite; onnxruntime's calibrators
class Samples(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, arrays: Floats) -> None:
        self._feeds = iter([{"image": x[None]} for x in arrays])

    def get_next(self) -> dict[str, Floats] | None:
        return next(self._feeds, None)


def theirs(folder: Path, method: CalibrationMethod, **extra: object) -> dict[str, tuple[float, float]]:
    """By tensor, the range that a calibrator of onnxruntime chooses."""
    calibrator = create_calibrator(
        str(MODEL),
        augmented_model_path=str(folder / "augmented.onnx"),
        calibrate_method=method,
        extra_options=extra,
    )
    calibrator.collect_data(Samples(np.load(CALIB)["image"]))
    data = calibrator.compute_data().data
    return {name: tuple(float(np.ravel(end)[0]) for end in d.range_value) for name, d in data.items()}  # type: ignore[misc]


@cache
def compiled(**choices: Any) -> qcc.CompiledModel:
    return qcc.compile(MODEL, calibration=CALIB, warn=lambda message: None, **choices)


def annotated(**choices: Any) -> Graph:
    graph = compiled(**choices).compilation.annotated
    assert graph is not None
    return graph


def test_tflite_has_the_extremes_of_onnxruntime(tmp_path: Path) -> None:
    """scale = (max - min) / 255, zero_point = -128 - min / scale: the 8-bit specification, for activations."""
    found = theirs(tmp_path, CalibrationMethod.MinMax)
    matched = 0
    for value in annotated(recipe="tflite").values():
        qparams = value.type.qparams
        if value.is_constant or qparams is None or value.name not in found or value.name == "probabilities":
            continue
        low, high = min(found[value.name][0], 0.0), max(found[value.name][1], 0.0)
        assert qparams.scale[0] == pytest.approx((high - low) / 255, rel=1e-6)
        assert qparams.zero_point == round(-128 - low / qparams.scale[0])
        matched += 1
    assert matched >= 4


def test_percentiles_are_those_of_onnxruntime(tmp_path: Path) -> None:
    found = theirs(tmp_path, CalibrationMethod.Percentile, num_bins=2048, percentile=99.9, symmetric=False)
    graph = compiled(observer="observer=percentile p=99.9", corrections=False).compilation.annotated
    assert graph is not None
    matched = 0
    for value in graph.values():  # of larger ones the histogram counts only some elements
        if value.range is not None and value.name in found and value.type.elements <= FEW:
            low, high = found[value.name]
            # a width of theirs, 2 / 2048 of the largest magnitude, and one of ours
            step = 2e-3 * max(-low, high)
            assert value.range == pytest.approx((min(low, 0.0), max(high, 0.0)), abs=step)
            matched += 1
    assert matched >= 3


@pytest.mark.parametrize("recipe", ["tflite", "pytorch"])
def test_weights_are_the_largest_of_each_channel_in_127_steps(recipe: str) -> None:
    graph, seen = annotated(recipe=recipe), 0
    for node in graph.nodes:
        index = node.op.quant_rule().weight
        if index is None:
            continue
        weight = node.input(index)
        qparams = weight.type.qparams
        assert weight.data is not None
        assert qparams is not None
        assert qparams.axis is not None
        rows = np.moveaxis(np.abs(weight.data), qparams.axis, 0).reshape(weight.data.shape[qparams.axis], -1)
        np.testing.assert_allclose(qparams.scale, rows.max(axis=1) / 127, rtol=1e-6)
        seen += 1
    assert seen >= 2


def test_tensorrt_is_symmetric() -> None:
    """But for what an integer algorithm dictates, the result of the softmax."""
    values = [v for v in annotated(recipe="tensorrt").values() if v.type.qparams is not None]
    assert {v.name for v in values if v.type.qparams.zero_point != 0} == {"probabilities"}  # type: ignore[union-attr]


# ---------------------------------------------------------------------- recipes as options
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_sets_its_options_and_is_reported(name: str) -> None:
    recipe = RECIPES[name]
    QSpec.parse(recipe.qspec)
    assert recipe.observer.removeprefix("observer=").split()[0] in observer_names()
    made = compiled(recipe=name)
    options, report = made.compilation.options, made.report["options"]
    assert {n: getattr(options, n) for n in OPTIONS} == recipe.options
    assert report["recipe"] == name
    assert report["observer"] == recipe.observer
    assert report["qspec"] == recipe.qspec
    assert report["rounding"] == recipe.rounding
    assert report["residuals"] == recipe.residuals
    assert report["corrections"] == list(options.chosen_corrections)


def test_without_a_recipe_none_is_reported() -> None:
    assert "recipe" not in compiled().report["options"]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (
            "auto",
            [
                "fuse-epilogues,equalize,migrate-scales,calibrate{observer=auto},match-grid,widen,choose-qparams",
                ",correct-bias,round-weights,",
            ],
        ),
        ("tflite", ["fuse-epilogues{residuals=false},calibrate", "plan-accumulators{rounding=tflite}"]),
        (
            "openvino",
            [
                "fuse-epilogues,calibrate{observer=mean-min-max outputs=min-max qspec=",
                "},correct-bias,quantize-ops",
            ],
        ),
    ],
)
def test_a_recipe_is_a_pipeline(name: str, parts: list[str]) -> None:
    text = quantize_pipeline(CompileOptions(recipe=name))
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"recipe": "coreml"}, "unknown recipe 'coreml'"),
        ({"recipe": "tflite", "observer": "observer=mse"}, "recipe tflite has observer 'observer=min-max', not 'observer=mse'"),
        ({"recipe": "tflite", "qspec": "a_bits=6"}, "recipe tflite has qspec '', not 'a_bits=6'"),
        ({"recipe": "tflite", "rounding": "onnx"}, "recipe tflite has rounding 'tflite', not 'onnx'"),
        ({"recipe": "pytorch", "corrections": ("equalize",)}, "recipe pytorch has corrections off, not equalize"),
        ({"recipe": "openvino", "corrections": False}, "recipe openvino has corrections correct-bias, not off"),
        ({"recipe": "tensorrt", "residuals": False}, "recipe tensorrt has residuals on, not off"),
        ({"recipe": "auto", "precision": "float32"}, "recipe auto is of no use: float32 chooses no ranges"),
        ({"corrections": ("correct-all",)}, "unknown correction 'correct-all'"),
    ],
)  # fmt: skip
def test_what_contradicts_a_recipe_is_an_error(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(QccError) as caught:
        CompileOptions(**choices)
    assert caught.value.message == message
    assert caught.value.hint


def test_what_agrees_with_a_recipe_may_be_said_too() -> None:
    assert CompileOptions(
        recipe="tensorrt", observer="observer=kl outputs=min-max every=true"
    ) == CompileOptions(recipe="tensorrt")


def test_corrections_keep_their_order() -> None:
    options = CompileOptions(corrections=("round-weights", "equalize"))
    assert options.chosen_corrections == ("equalize", "round-weights")
    assert CompileOptions(corrections=True).chosen_corrections == USUAL_CORRECTIONS


# ---------------------------------------------------------------------- at the command line
def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="qcc", catch_exceptions=False)


def test_the_command_line_takes_a_recipe(tmp_path: Path) -> None:
    arguments = ("compile", MODEL, "--calib", CALIB, "-o", tmp_path / "out", "--no-build")
    result = call(*arguments, "--recipe", "tflite", "--observer", "min-max")
    assert result.exit_code == 0, result.stderr
    assert "recipe     tflite" in result.stdout


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--recipe", "tensorrt", "--observer", "min-max"), "every=true', not 'observer=min-max'"),
        (("--recipe", "tensorrt", "--observer", "percentile", "--percentile", "99"), "not 'observer=percentile p=99.0'"),
        (("--recipe", "tflite", "--rounding", "ties_up"), "recipe tflite has rounding 'tflite', not 'ties_up'"),
        (("--recipe", "auto", "--no-corrections"), "recipe auto has corrections on, not off"),
        (("--recipe", "pytorch", "--qspec", ""), "recipe pytorch has qspec 'a_bits=7', not ''"),
    ],
)  # fmt: skip
def test_an_option_that_contradicts_is_refused_even_with_its_default(
    given: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    result = call("compile", MODEL, "--calib", CALIB, "-o", tmp_path / "out", *given)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_recipe_is_refused(tmp_path: Path) -> None:
    result = call("compile", MODEL, "-o", tmp_path / "out", "--recipe", "coreml")
    assert result.exit_code == 2
    assert "'coreml' is not one of 'auto', 'tensorrt', 'tflite', 'openvino', 'pytorch'" in result.stderr


def test_the_command_recipes_shows_all() -> None:
    result = call("recipes")
    assert result.exit_code == 0
    for name in RECIPES:
        assert f"\n{name} " in result.stdout
    assert "--observer kl, calibrate: outputs=min-max" in result.stdout
