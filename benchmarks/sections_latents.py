"""The tables of docs/analysis-latents.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.sections import table
from latentgym.analysis.lens import KL_FINAL_LENS, KL_LENS_FINAL, OVERLAP

_RECORD = Path(__file__).parent / "records" / "causal_map.json"
AGENTS = {"cot2": ("CoT2", "latent"), "discrete": ("discrete chain", "chain")}
REPLACED = {
    "zero": "zero vector",
    "mean": "mean of all thoughts",
    "swap": "another question's",
    "nearest": "nearest token",
    "nearest@0.5": "halfway to the nearest token",
    "zero@0.5": "halved",
}


def agents() -> Mapping[str, Any]:
    """The record's numbers by agent."""
    found: Mapping[str, Any] = json.loads(_RECORD.read_text())["agents"]
    return found


def _interval(numbers: Sequence[float], digits: int = 3) -> str:
    mean, low, high = (f"{x:.{digits}f}" for x in numbers)
    # No sign before what rounds to nothing.
    mean, low, high = (x.lstrip("-") if not float(x) else x for x in (mean, low, high))
    return f"{mean} [{low}, {high}]"


def accuracies() -> str:
    """What the two answer."""
    rows = [
        [label, _interval(told["accuracy"], 1), f"{told['rows']}"]
        for name, (label, _) in AGENTS.items()
        for told in [agents()[name]]
    ]
    return table(
        ["4 layers, width 32, 3,000 steps", "accuracy %, 3 seeds [95 %]", "questions"], rows
    )


def _causal(effect: str) -> str:
    rows = []
    for name, (label, _) in AGENTS.items():
        told = agents()[name]["maps"][f"right answer, {effect}"]
        for key, replaced in REPLACED.items():
            rows.append([label, replaced, *(_interval(c["probability"]) for c in told[key])])
    steps = len(agents()["cot2"]["maps"][f"right answer, {effect}"]["zero"]) - 1
    return table(["", "replaced by", *(f"thought {t + 1}" for t in range(steps)), "all"], rows)


def direct() -> str:
    """Direct effects on the probability of the right answer."""
    return _causal("direct")


def total() -> str:
    """Total effects."""
    return _causal("total")


def lens() -> str:
    """The logit lens at thoughts and at all positions."""
    rows = []
    for name, (label, kind) in AGENTS.items():
        told = agents()[name]["lens"]
        for group, where in (("all", "all positions"), (kind, "thoughts")):
            for key, title in (
                (KL_LENS_FINAL, "KL(lens ‖ final)"),
                (KL_FINAL_LENS, "KL(final ‖ lens)"),
                (OVERLAP, "top-5 overlap"),
            ):
                rows.append([label, where, title, *(f"{x:.2f}" for x in told[key][group])])
    layers = agents()["cot2"]["lens"]["layers"]
    return table(["", "", "", *(f"h_{layer}" for layer in layers)], rows)


def scalars() -> str:
    """Where the lens comes near, by seed."""
    rows = []
    for name, (label, kind) in AGENTS.items():
        seeds = [told[kind] for told in agents()[name]["lens"]["scalars_by_seed"]]
        below = [each["first_kl_below_half"] for each in seeds]
        for title, found in (
            ("KL(lens ‖ final) below half of its largest", [b[KL_LENS_FINAL] for b in below]),
            ("KL(final ‖ lens) below half of its largest", [b[KL_FINAL_LENS] for b in below]),
            ("top-5 overlap above .3", [each["first_overlap_above"] for each in seeds]),
        ):
            rows.append([label, title, *(_layer(each) for each in found)])
    return table(["", "first layer, at thoughts", *(f"seed {s}" for s in range(len(seeds)))], rows)


def _layer(found: Mapping[str, Any]) -> str:
    return "none" if found["l"] is None else f"{found['l']} ({found['depth']:.2f})"


def decoded() -> str:
    """The thoughts of one question in tokens."""
    rows = []
    for name, (label, _) in AGENTS.items():
        for row in agents()[name]["decoded"]:
            if row["row"] == 0:
                lenses = [_tokens(row["lens"][layer]) for layer in ("2", "4")]
                taught, near = _tokens(row["taught"]), _tokens(row["nearest"])
                rows.append([label, str(row["step"] + 1), taught, near, *lenses])
    header = ["", "thought", "taught", "nearest embeddings", "lens of h_2", "lens of h_4"]
    return table(header, rows)


def _tokens(told: Mapping[str, float], least: float = 0.05) -> str:
    return ", ".join(f"{text} {x:.2f}" for text, x in told.items() if x >= least)


def bands() -> str:
    """Linear maps between seeds."""
    rows = []
    for name, (label, _) in AGENTS.items():
        for pair, told in agents()[name]["linear_maps"].items():
            band = told["band"]
            numbers = (f"{band[k]:.2f}" for k in ("inside", "outside", "ratio"))
            rows.append([label, pair, *numbers, ", ".join(map(str, told["best_source"]))])
    header = ["", "", "error at equal depth", "elsewhere", "ratio", "best source of h_0 .. h_4"]
    return table(header, rows)


SECTIONS = {
    "latents-accuracy": accuracies,
    "latents-direct": direct,
    "latents-total": total,
    "latents-lens": lens,
    "latents-scalars": scalars,
    "latents-decoded": decoded,
    "latents-maps": bands,
}
