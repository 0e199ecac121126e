"""Next-item recommendation: LatentR3, its ablations and the classical baselines, from scratch.

`shop` is a generated bookshop whose customers follow a known law, so that the best possible figures
are known; `movielens` and `cds` are real purchases ($LATENTGYM_DATA). Every model is small, is
trained from scratch, and reads and writes the words of the titles.

    NAME-sft       the title, without a latent (BIGRec's way)
    NAME-pause     with a learned vector in the latent's place: the same cost, no thought
    NAME-hidden    the last hidden state as the latent (without RATT)
    NAME-ratt      stage 1 of LatentR3 (without RL)
    NAME-r3        stage 2 behind it: LatentR3
    NAME-score     stage 2 by the score function of the noise
    NAME-group     stage 2 without the batch advantage

python -m benchmarks.recommendation --parts shop --record benchmarks/records
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.suite import main
from latentgym.evaluation.suite import Cell

MODEL = "tiny:qwen2:2x4x64"
RL_STEPS = 200
BASELINES = ("popularity", "cooccurrence", "sasrec")
_RL = ("--preset", "rl-tiny")
_SFT = ("--preset", "sft-tiny", "--model", MODEL)


@dataclass(frozen=True)
class Data:
    """Where purchases come from, and how long is trained on them.

    Attributes:
        task: of the environment's id.
        options: of the environment.
        steps: supervised ones.
        ablations: whether the paper's ablations and the controls are run.
    """

    task: str
    steps: int
    options: tuple[str, ...] = ()
    ablations: bool = False


PARTS = {
    "shop": Data(
        "MovieLens",
        1500,
        ("-o", "source=generated", "-o", "items=100", "-o", "customers=3000"),
        ablations=True,
    ),
    "movielens": Data("MovieLens", 400),
    "cds": Data("AmazonCDs", 400),
}


def cells() -> Iterator[Cell]:
    """The figures of each part."""
    for part, data in PARTS.items():
        yield from _cells(part, data)


def _cells(part: str, data: Data) -> Iterator[Cell]:
    words, hybrid = (f"latent/{data.task}-{family}" for family in ("token", "hybrid"))

    def train(agent: str, env: str, steps: int, *more: str) -> tuple[str, ...]:
        return (
            "train",
            agent,
            env,
            *data.options,
            "--steps",
            str(steps),
            "--save-every",
            "0",
            *more,
        )

    for name in BASELINES:
        yield Cell(part, f"{part}-{name}", ("baseline", name, words, *data.options))
    yield Cell(part, f"{part}-sft", train("cot", words, data.steps, *_SFT))
    ratt = f"{part}-ratt"
    yield Cell(part, ratt, train("latentr3", hybrid, data.steps, *_SFT))
    reinforced = train("latentr3", hybrid, RL_STEPS, *_RL)
    yield Cell(part, f"{part}-r3", reinforced, start=ratt, curve=True)
    for thought in ("hidden", "pause") if data.ablations else ("pause",):
        again = train("latentr3", hybrid, data.steps, *_SFT, "--thought", thought)
        yield Cell(part, f"{part}-{thought}", again)
    if data.ablations:
        score = (*reinforced, "--estimator", "score")
        yield Cell(part, f"{part}-score", score, start=ratt, curve=True)
        group = (*reinforced, "--rl.advantage", "group_norm")
        yield Cell(part, f"{part}-group", group, start=ratt, curve=True)
        for control in ("zero", "shuffle", "noise"):
            acting = ("eval", "latentr3", hybrid, *data.options, "--control", control)
            yield Cell(part, f"{part}-r3-{control}", acting, start=f"{part}-r3")


if __name__ == "__main__":
    main("recommendation", __doc__, list(cells()), Path("runs/recommendation"), seeds=range(5))
