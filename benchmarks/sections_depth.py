"""The tables of docs/analysis.md."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.sections import table

_RECORD = Path(__file__).parent / "records" / "depth.json"
_EVERY = 3  # layers of a deep model that the table shows
_THOUGHTS = {"cot": "chain", "soft-thinking": "latent", "hrpo": "hybrid"}
_READ = ("prompt", "chain", "answer")  # kinds of position in a demonstration
_OF_MNNS = {"cot2": ("CoT2", "latent"), "discrete": ("discrete chain", "chain")}


def record(part: str) -> Mapping[str, Any]:
    """The numbers of a part."""
    found: Mapping[str, Any] = json.loads(_RECORD.read_text())[part]
    return found


def gsm8k() -> str:
    """SmolLM2 by layer, on GSM8K's solutions."""
    told = record("gsm8k")
    added, lens = told["contributions"], told["lens"]
    outputs = {
        "output, skipped": told["skips"]["block"],
        "future output": told["future"],
        "answer, thoughts skipped": told["thoughts"],
    }
    columns = {
        "norm of h": added["norm_h"]["all"],
        "the same, first position in": added["norm_h"]["with_first"],
        "block / h": added["relative_block"]["all"],
        "cos(block, h)": added["cosine_block"]["all"],
        "KL(lens ‖ final)": lens["kl_lens_final"]["all"],
        "top-5 overlap": lens["overlap"]["all"],
        **{name: effects["output"]["all"] for name, effects in outputs.items()},
    }
    last = told["blocks"] - 1
    layers = [*range(0, last, _EVERY), last]
    rows = [
        [str(layer), *(f"{c['mean'][layer]:.3g}" for c in columns.values())] for layer in layers
    ]
    return table(["layer", *columns], rows)


def explained() -> str:
    """Which positions single answers depend on, and until which layer."""
    told = record("explained")
    rows = []
    for layer in sorted({each["layer"] for each in told["gradients"]}):
        found = [each for each in told["gradients"] if each["layer"] == layer]
        shares = (_spread([_share(each, kind) for each in found]) for kind in _READ)
        steps, errors = ([each[key] for each in found] for key in ("steps", "completeness_error"))
        exact = f"{min(steps)} to {max(steps)} steps, {100 * max(errors):.1f} % missing at most"
        rows.append([f"gradients before layer {layer}, share of the sum", *shares, exact])
    for at, layer in enumerate(told["erasure"]["layers"]):
        cells = []
        for kind in _READ[:-1]:
            each = [_erased(row, at, kind) for row in told["erasure"]["by_sequence"]]
            cells.append(_spread(each))
        last = _spread([row["effect"][at][-1] for row in told["erasure"]["by_sequence"]])
        rows.append([f"erased before layer {layer}", *cells, "", f"last position: {last}"])
    header = ["mean of 3 questions [least, greatest]", "question", "solution", "answer", ""]
    return table(header, rows)


def _share(told: Mapping[str, Any], kind: str) -> float:
    pairs = zip(told["value"], told["kinds"], strict=True)
    return float(sum(value for value, k in pairs if k == kind) / told["change"])


def _erased(told: Mapping[str, Any], at: int, kind: str) -> float:
    """The mean effect of a kind's positions, the last before the answer left out."""
    pairs = list(zip(told["effect"][at], told["kinds"], strict=True))[:-1]
    return statistics.fmean(effect for effect, k in pairs if k == kind)


def _halves(numbers: Sequence[float | None]) -> str:
    """Means of the lower and the upper half of the layers, those that were looked at."""
    middle = len(numbers) // 2
    halves = (numbers[:middle], numbers[middle:])
    means = [statistics.fmean(x for x in half if x is not None) for half in halves]
    return " / ".join(f"{mean:.3g}" for mean in means)


def agents() -> str:
    """SmolLM2 on what three agents think: lower and upper half of its layers."""
    rows = []
    for agent, kind in _THOUGHTS.items():
        told = record("agents")["agents"][agent]
        added, lens = told["contributions"], told["lens"]
        for group in ("prompt", kind, "answer"):
            rows.append(
                [
                    agent,
                    group,
                    str(told["positions"].get(group, 0)),
                    _halves(added["norm_h"][group]["mean"]),
                    _halves(added["relative_block"][group]["mean"]),
                    _halves(added["cosine_block"][group]["mean"]),
                    _halves(lens["overlap"][group]["mean"][:-1]),  # the last is a check
                    _halves(told["thoughts"]["output"]["all"]["mean"]) if group == kind else "",
                ]
            )
    header = ["agent", "positions of", "n", "norm of h", "block / h", "cos(block, h)"]
    return table([*header, "top-5 overlap", "answer, thoughts skipped"], rows)


def mnns() -> str:
    """CoT2's latents against the discrete chain, by layer."""
    rows = []
    for name, (label, kind) in _OF_MNNS.items():
        looks = record("mnns")["models"][name]
        added = [look["contributions"] for look in looks]
        measures = {
            "block / h, thoughts": [x["relative_block"][kind]["mean"] for x in added],
            "cos(block, h), thoughts": [x["cosine_block"][kind]["mean"] for x in added],
            "norm of h, thoughts": [x["norm_h"][kind]["mean"] for x in added],
            "answer, thoughts skipped": [x["thoughts"]["output"]["all"]["mean"] for x in looks],
        }
        for title, by_seed in measures.items():
            cells = [_spread(seeds) for seeds in zip(*by_seed, strict=True)]
            rows.append([label, title, *cells])
    return table(["", "mean of 3 seeds [least, greatest]", *(f"layer {i}" for i in range(4))], rows)


def _spread(numbers: Sequence[float]) -> str:
    mean = statistics.fmean(numbers)
    return f"{mean:.2f} [{min(numbers):.2f}, {max(numbers):.2f}]"


def difficulty() -> str:
    """Depth scores against difficulty."""
    told, skips = record("difficulty"), record("gsm8k")["skips"]
    steps = {how: skips[f"depth_score_{how}"]["against"]["steps"] for how in ("mean", "max")}
    shown = {
        "MATH": ("level", told["MATH"]),
        "GSM8K": ("step", steps),
        "generated chains": ("operation", told["generated chains"]),
    }
    rows = []
    for name, (unit, scores) in shown.items():
        for how in ("mean", "max"):
            found = scores[how]
            groups = ", ".join(
                f"{g['difficulty']:g}: {g['score']:.2f} ({g['questions']})" for g in found["groups"]
            )
            low, high = found["slope_ci95"]
            slope = f"{found['slope']:+.3f} [{low:+.3f}, {high:+.3f}]"
            rows.append([name, how, groups, f"{slope} layers per {unit}"])
    return table(
        ["", "over positions", "depth score by difficulty (questions)", "slope [95 %]"], rows
    )


SECTIONS = {
    "depth-gsm8k": gsm8k,
    "depth-explained": explained,
    "depth-agents": agents,
    "depth-mnns": mnns,
    "depth-difficulty": difficulty,
}
