"""What the pages show of the suite `chains`: all methods on generated chains, from one start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from benchmarks.sections import suite_cells, table
from benchmarks.sections_suites import every_method, with_controls
from latentgym.evaluation.stats import mean_interval

CHAINS = {
    "start": "supervised chain, stopped early: the start of all others",
    "votes-samples-16": "votes of 16",
    "latentseek-iterations-4": "LatentSeek, 4 iterations",
    "soft-thinking": "Soft Thinking, no training",
    "cold-stop": "Soft Thinking with cold stop",
    "swireasoning": "SwiReasoning, no training",
    "ltpo-steps-0": "LTPO, no steps",
    "ltpo-steps-10": "LTPO, 10 steps",
    "token-grpo": "GRPO over tokens",
    "hrpo": "HRPO",
    "tarpo": "TARPO",
    "mts-grpo": "MTS-GRPO (CoT2)",
    "multiplex": "Multiplex Thinking",
    "soft-grpo": "SofT-GRPO",
    "soft-tokens": "Soft Tokens",
    "ctrls-elbo": "CTRLS-style, bound alone",
    "ctrls-grpo": "CTRLS-style, then policy gradient",
    "ctrls-length": "CTRLS-style, states from length alone",
    "ctrls-one": "CTRLS-style, one state",
    "ctrls-prefix": "CTRLS-style, a prefix of one vector",
}
"""Cells of `chains` that are no controls, with what they are called."""
HEADLINE = ("start", "votes-samples-16", "soft-thinking", "swireasoning")
HEADLINE += ("token-grpo", "hrpo", "tarpo", "mts-grpo", "multiplex", "soft-grpo")
HEADLINE += ("soft-tokens", "ctrls-grpo")
"""Those of them in the picture; LTPO, which breaks all chains, would be as wide as all others."""
_SAMPLED = {
    "sampled": "the start, plain sampling",
    "ctrls-elbo-sampled": "CTRLS-style, bound alone",
    "ctrls-grpo-sampled": "CTRLS-style, then policy gradient",
    "ctrls-one-sampled": "one state",
    "ctrls-prefix-sampled": "a prefix of one vector",
}
_HEATS = (0.5, 0.7)


def chains_sampled() -> str:
    """Twenty samples a question, as the paper of CTRLS evaluates."""
    cells = suite_cells("chains")
    rows = [
        [f"{label}, T = {heat}", *_sampled(cells[f"{name}-{heat}"], cells[f"sampled-{heat}"])]
        for heat in _HEATS
        for name, label in _SAMPLED.items()
        if f"{name}-{heat}" in cells
    ]
    header = ["20 samples a question, 3 seeds", "pass@1 %", "pass@20 %", "less plain sampling"]
    return table([*header, "different answers %", "different texts %"], rows)


def _sampled(cell: dict[str, Any], plain: dict[str, Any]) -> list[str]:
    some, all_20 = (f"{cell['pass_at_k'][f'pass@{k}']:.1f}" for k in (1, 20))
    ours, theirs = (which["pass_at_k_by_seed"]["pass@20"] for which in (cell, plain))
    less = [own - its for own, its in zip(ours, theirs, strict=True)]
    beside = "" if cell is plain else "{:+.1f} [{:+.1f}, {:+.1f}]".format(*mean_interval(less))
    share = [cell["samples"][f"samples/different_{kind}"] for kind in ("answers", "texts")]
    return [some, all_20, beside, *(f"{100 * value:.1f}" for value in share)]


SECTIONS: Mapping[str, Callable[[], str]] = {
    "chains": partial(every_method, "chains", "generated chains", CHAINS, apart=True),
    "chains-controls": partial(with_controls, "chains", CHAINS),
    "chains-sampled": chains_sampled,
}
