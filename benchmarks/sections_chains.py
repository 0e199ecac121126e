"""What the pages show of the suite `chains`: all methods on generated chains, from one start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from benchmarks.sections import suite_cells, table
from benchmarks.sections_suites import MNNS, every_method, more, with_controls

_AS_IT_IS = ("start", "votes-samples-16", "latentseek-iterations-4", "soft-thinking")
_AS_IT_IS += ("swireasoning", "ltpo-steps-0", "ltpo-steps-10")
_LEARNERS = ("token-grpo", "hrpo", "tarpo", "mts-grpo", "multiplex", "soft-grpo", "soft-tokens")
CHAINS = {
    **{name: MNNS[name] for name in _AS_IT_IS},
    "cold-stop": "Soft Thinking with cold stop",
    **{name: MNNS[name] for name in _LEARNERS},
    "ctrls-elbo": "CTRLS-style, bound alone",
    "ctrls-grpo": "CTRLS-style, then policy gradient",
    "ctrls-length": "CTRLS-style, states from length alone",
    "ctrls-one": "CTRLS-style, one state",
    "ctrls-prefix": "CTRLS-style, a prefix of one vector",
}
"""Cells of `chains` that are no controls, with what they are called."""
HEADLINE = ("start", "votes-samples-16", "soft-thinking", "swireasoning")
HEADLINE += (*_LEARNERS, "ctrls-grpo")
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
    beside = "" if cell is plain else "{:+.1f} [{:+.1f}, {:+.1f}]".format(*more(ours, theirs))
    share = [cell["samples"][f"samples/different_{kind}"] for kind in ("answers", "texts")]
    return [some, all_20, beside, *(f"{100 * value:.1f}" for value in share)]


SECTIONS: Mapping[str, Callable[[], str]] = {
    "chains": partial(every_method, "chains", "generated chains", CHAINS, apart=True),
    "chains-controls": partial(with_controls, "chains", CHAINS),
    "chains-sampled": chains_sampled,
}
