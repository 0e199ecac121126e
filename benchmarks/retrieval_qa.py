"""Answers of SmolLM2-135M with and without passages, on real questions and a real Lucene index.

The model answers at once, greedily and in at most 16 tokens, behind 0, 1, 3 or 5 passages (of up to
128 tokens each) that BM25 finds for the question: exact match and F1 with SQuAD's normalisation.
The answer is asked for in a sentence, as a model of this size goes on from `####`, which begins
headings, with the number 1. Wants `$LATENTGYM_DATA`.

python -m benchmarks.retrieval_qa --out runs/retrieval-qa --record benchmarks/records
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.suite import main
from latentgym.evaluation.suite import Cell

SETS = {
    "NQ": "test",
    "TriviaQA": "test",
    "HotpotQA": "dev",
    "2WikiMultihopQA": "dev",
    "Bamboogle": "test",
}
LIMIT = {"Bamboogle": 125}
PASSAGES = (0, 1, 3, 5)
AT_ONCE = ("-o", "think=0", "-o", "force_answer=true", "-o", "answer=16", "-o", "format=sentence")
ASKED = (
    "-o",
    "system=Answer the question in as few words as possible.",
    "-o",
    "passage_tokens=128",
)


def cells() -> Iterator[Cell]:
    """Each set with each number of passages."""
    for passages in PASSAGES:
        for task, split in SETS.items():
            argv = (
                *("eval", "cot", f"latent/{task}-token", "--model", "smollm2-135m"),
                *("--dtype", "bfloat16", "--split", split, "--limit", str(LIMIT.get(task, 300))),
                *(*AT_ONCE, *ASKED, "-o", f"passages={passages}"),
            )
            yield Cell(task, f"{task}-{passages}", argv)


if __name__ == "__main__":
    main("retrieval_qa", __doc__, list(cells()), Path("runs/retrieval-qa"), seeds=(0,))
