"""Pictures of analyses: of models and sequences of any shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from latentgym.analysis import depth_report, plots
from latentgym.analysis.outliers import outliers
from latentgym.analysis.plots import depth
from latentgym.analysis.plots.base import from_zero_or_log
from latentgym.analysis.residual import PARTS, ResidualStream
from latentgym.analysis.sequences import Sequences
from latentgym.lm import load_model
from latentgym.text.tokenizers import ByteTokenizer


@pytest.mark.filterwarnings("error")
def test_a_model_of_one_block_is_drawn(random_sequences: Callable[..., Sequences]) -> None:
    lm = load_model("tiny:llama:1x2x16", tokenizer=ByteTokenizer(), dtype="float32")
    stream, sequences = ResidualStream(lm), random_sequences(lm)
    report = depth_report(stream, sequences, difficulty={"steps": [1.0, 2.0, 2.0]})
    told: dict[str, Any] = {**report, "outliers": outliers(stream, sequences)}
    drawn = plots.draw(told, "svg")
    # Nothing is behind the only block, so that there is no effect on a later one.
    assert set(plots.CAPTIONS) - drawn.keys() == {"causal-map", "skips", "parts", "difficulty"}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("measure", "parts", "pictures"),
    [
        ("skips", ["block"], {"skips", "outputs"}),
        ("skips", ["mlp"], {"parts", "outputs"}),
        ("future", PARTS, {"skips", "outputs"}),
        ("local", PARTS, {"skips"}),
        ("thoughts", PARTS, {"outputs"}),
        ("lens", PARTS, {"lens"}),
    ],
)
def test_a_measure_is_drawn_without_the_others(
    measure: Any, parts: Any, pictures: set[str], random_sequences: Callable[..., Sequences]
) -> None:
    lm = load_model("tiny:llama:2x2x16", tokenizer=ByteTokenizer(), dtype="float32")
    sequences = random_sequences(lm)
    report = depth_report(ResidualStream(lm), sequences, measures=[measure], parts=parts)
    assert len({*report.get("skips", {})} & {*PARTS}) == (measure == "skips")
    assert plots.draw(report).keys() == pictures


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1.0, 2.0, 3.0], "linear"),
        ([17.0, 0.3, 0.3, 0.4], "log"),
        ([17.0, 0.0, 0.3], "symlog"),
        ([17.0, 0.0, 0.0], "linear"),
        ([float("nan")], "linear"),
    ],
)
def test_one_large_layer_does_not_press_the_others_flat(values: list[float], scale: str) -> None:
    axes = Figure().subplots()
    axes.plot(values)
    from_zero_or_log(axes)
    assert axes.get_yscale() == scale
    assert scale == "log" or axes.get_ylim()[0] == 0


@pytest.mark.parametrize(("layers", "numbered"), [(3, 3), (12, 0)])
def test_a_heat_map_shows_its_effects(layers: int, numbered: int) -> None:
    """However large, but for the few largest; with numbers where there is room."""
    rng = np.random.default_rng(0)
    table = np.full((layers, layers), np.nan)
    table[np.triu_indices(layers, 1)] = rng.uniform(2, 4, layers * (layers - 1) // 2)
    large = table.copy()
    large[0, 1] = 1e6
    told = {"mean": table.tolist(), "max": large.tolist()}
    figure = depth.skips({"local": {"layers": {"all": told}}})
    means, maxima = (axes for axes in figure.axes if axes.get_title())
    assert means.images[0].get_clim()[0] == 0 and 2 < means.images[0].get_clim()[1] <= 4
    assert layers < 12 or maxima.images[0].get_clim()[1] < 1e6
    assert len(means.texts) == numbered
