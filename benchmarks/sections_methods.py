"""Every method in a row: what its paper reports, and what we find from one start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from benchmarks.sections import Cells, suite_cells, table
from benchmarks.sections_suites import gain


class Method(NamedTuple):
    """An agent's row.

    Attributes:
        paper: its arXiv number.
        reports: the paper's own figures, as far as they are known here.
        mnns, chains: its cells in the two suites, or why it has none.
    """

    paper: str
    reports: str
    mnns: str
    chains: str


_NOT_RUN = "not run"
METHODS = {
    "mts-grpo": Method(
        "2505.23648",
        "MNNS: MTS-GRPO from a discrete start, 43.50 → 55.66 %",
        "mts-grpo",
        "mts-grpo",
    ),
    "mts-grpo, supervised": Method(
        "2505.23648",
        "MNNS: continuous supervision (CoT2) 98.94 %, discrete chain 84.92",
        "cot2",
        _NOT_RUN,
    ),
    "coconut": Method(
        "2412.06769",
        "GSM8K, GPT-2: 34.1 %, chain of thought 42.9",
        "coconut",
        "from another start: [its section](#coconut-on-generated-chains)",
    ),
    "colar-grpo": Method(
        "2505.16552",
        "Llama-3.2-1B, four tasks: 48.8 % with 10.0 thoughts, chain of thought 53.6 with 21.4",
        "colar",
        "from another start: [its section](#colar-on-generated-chains)",
    ),
    "hrpo": Method(
        "2505.18454",
        "Qwen2.5-1.5B: GSM8K 72.0 %, MATH 51.8; token GRPO 71.1, 50.2",
        "hrpo",
        "hrpo",
    ),
    "latentr3": Method("2505.19092", "HR@5, Toys: .0821, BIGRec .0701", "latentr3", _NOT_RUN),
    "multiplex": Method(
        "2601.08808",
        "R1-Distill-Qwen-7B, pass@1: MATH-500 78.0 %, AIME 2024 20.6",
        "multiplex",
        "multiplex",
    ),
    "soft-grpo": Method(
        "2511.06411",
        "1.5B to 7B, five tasks, over token GRPO: pass@1 +.13, pass@32 +2.19",
        "soft-grpo",
        "soft-grpo",
    ),
    "soft-tokens": Method(
        "2509.19170",
        "up to 8B: as tokens at pass@1, above them at pass@32 (no figure checked)",
        "soft-tokens",
        "soft-tokens",
    ),
    "tarpo": Method(
        "2606.05859",
        "1.5B / 3B / 7B: 42.36, 53.61, 62.92 %; HRPO 42.16, 53.20, 62.42 (mean of its tasks)",
        "tarpo",
        "tarpo",
    ),
    "soft-thinking": Method(
        "2505.15778",
        "QwQ-32B and others: pass@1 up to +2.48 over chain of thought",
        "soft-thinking",
        "soft-thinking",
    ),
    "swireasoning": Method(
        "2510.05069",
        "mathematics and science, 1.7B to 8B: +1.5 to +2.8 over chain of thought",
        "swireasoning",
        "swireasoning",
    ),
    "ltpo": Method(
        "2510.04182",
        "five tasks, 8B and others (no figure checked)",
        "ltpo-steps-10",
        "ltpo-steps-10",
    ),
    "latentseek": Method(
        "2505.13308",
        "GSM8K, five models: 83.3 %, chain of thought 73.4",
        "latentseek-iterations-4",
        "latentseek-iterations-4",
    ),
    "ctrls": Method("2507.08182", "none checked; no code", "no text that has steps", "ctrls-grpo"),
}
"""Agents of published methods, what they learn from behind a comma where there is a choice."""


def methods() -> str:
    """The methods table."""
    mnns, chains = suite_cells("mnns"), suite_cells("chains")
    rows = [
        [
            f"[{name}](agents/{name.partition(',')[0]}.md)",
            f"[{method.paper}](https://arxiv.org/abs/{method.paper})",
            method.reports,
            _gained(mnns, method.mnns),
            _gained(chains, method.chains),
        ]
        for name, method in METHODS.items()
    ]
    ours = ["MNNS, points over our start", "generated chains, points over our start"]
    return table(["agent", "paper", "it reports", *ours], rows)


def _gained(cells: Cells, name: str) -> str:
    return gain(cells["start"], cells[name]) if name in cells else name


SECTIONS: Mapping[str, Callable[[], str]] = {"methods": methods}
