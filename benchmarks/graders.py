"""Where our graders differ from math-verify alone, and who is right.

Every gold answer of the mathematical data sets is written in other ways that must be right and in
ways that must be wrong (`latentgym.testing.right_variants`, `wrong_variants`), and both judge each.
Wants `$LATENTGYM_DATA`; takes half an hour on one core for all of them.

python -m benchmarks.graders --record benchmarks/records
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latentgym.data import DATASETS, load
from latentgym.envs.maths import KINDS
from latentgym.evaluation.results import git_commit, versions
from latentgym.progress import progress_bar
from latentgym.rewards import Grader
from latentgym.rewards.sandbox import Sandbox
from latentgym.storage import atomic_write
from latentgym.testing import right_variants, wrong_variants

RIGHT, WRONG = "right", "wrong"


def prepare(setting: str) -> None:
    """The job that asks math-verify alone: see `latentgym.rewards.sandbox`."""
    run("", "1", "1")


def run(setting: str, *request: str) -> str:
    """Its verdict as it comes, "equal" or "different"; what it cannot read is different."""
    from math_verify import parse, verify

    gold, answer = (parse(f"${text}$", parsing_timeout=None) for text in request)
    return "equal" if verify(gold, answer, timeout_seconds=None) else "different"


def pairs(gold: str) -> Iterator[tuple[str, str, str]]:
    """What is right of an answer, how it came about, and the answer."""
    yield RIGHT, "the gold answer itself", gold
    for truth, variants in ((RIGHT, right_variants(gold)), (WRONG, wrong_variants(gold))):
        for name, answer in variants:
            yield truth, name, answer


def compared(gold: str, grader: Grader, alone: Sandbox, counts: Counter[Any]) -> None:
    """Count the verdicts on all variants of a gold answer."""
    for truth, name, answer in pairs(gold):
        ours = RIGHT if grader.alone(answer, gold).score else WRONG
        theirs = RIGHT if alone.call("", gold, answer) == "equal" else WRONG
        counts[truth, name, "pairs"] += 1
        counts[truth, name, "ours"] += ours != truth
        counts[truth, name, "math-verify"] += theirs != truth


def main() -> None:
    """Judge everything and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", type=Path, default=Path("benchmarks/records"))
    parser.add_argument("--every", type=int, default=1, help="look at each of so many gold answers")
    o = parser.parse_args()
    golds = {
        (question.gold, name)
        for name in KINDS
        for split in DATASETS[name].splits
        for question in load(DATASETS[name], split)
    }
    by_grader = sorted({(gold, KINDS[name].grader.numeric): name for gold, name in golds}.items())
    found, by_grader = len(by_grader), by_grader[:: o.every]
    counts: Counter[Any] = Counter()
    alone = Sandbox(job="benchmarks.graders", timeout=2.0)
    with progress_bar("graders", len(by_grader)) as advance:
        for (gold, _), name in by_grader:
            compared(gold, KINDS[name].grader, alone, counts)
            advance(1)
    rows = [
        {
            "truth": truth,
            "variant": name,
            **{key: counts[truth, name, key] for key in ("pairs", "ours", "math-verify")},
        }
        for truth, name in dict.fromkeys(key[:2] for key in counts)
    ]
    sizes = {"golds": len(by_grader), "of": found}
    record = {**sizes, "rows": rows, "versions": versions(), "git": git_commit()}
    o.record.mkdir(parents=True, exist_ok=True)
    with atomic_write(o.record / "graders.json") as path:
        path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
