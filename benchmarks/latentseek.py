"""LatentSeek and its rivals at test time: SmolLM2-135M on GSM8K, MATH-500 and AIME 2024.

The table of the paper (chain of thought, best of 3, self-reward, the oracle PSRM), rivals at equal
cost, controls, and the oracle's accuracy against its iterations. A model of this size and chains of
this length can be searched on two cores: verdicts are asked for at once, weights are bfloat16, and
searches stop after five steps or three. Figures of the paper beside them are the means of its six
models (arXiv 2505.13308 v1). Wants `$LATENTGYM_DATA`.

python -m benchmarks.latentseek --out runs/latentseek --record benchmarks/records
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.suite import main
from latentgym.evaluation.suite import Cell

_MODEL = ("--model", "smollm2-135m", "--dtype", "bfloat16", "--batch", "128")
_JUDGE = ("--verifier.tokens", "0")
# Task, options, questions, rho, steps, and the paper's CoT, BoN-3, self and PSRM.
_TASKS = {
    "gsm8k": ("GSM8K", ("format=boxed", "think=96"), 200, 0.2, 5, (65.01, 71.30, 73.02, 87.10)),
    "json": ("GSM8K", ("format=json", "think=96"), 40, 0.2, 3, (58.25, 59.19, 71.74, 87.20)),
    "math": ("MATH500", ("format=boxed", "think=96"), 100, 0.1, 3, (53.37, 53.80, 56.73, 73.60)),
    "aime": ("AIME2024", ("format=boxed", "think=128"), 30, 0.2, 3, (3.33, 4.45, 8.33, 12.78)),
}


def cells() -> Iterator[Cell]:
    """All figures."""
    for part, (task, options, questions, ratio, steps, paper) in _TASKS.items():
        rules = [word for option in options for word in ("-o", option)]

        def ask(agent: str, *settings: str, limit: int = questions) -> tuple[str, ...]:
            env = ("eval", agent, f"latent/{task}-token", *rules, "--limit", str(limit))  # noqa: B023
            return (*env, *_MODEL, *settings)

        def seek(*settings: str, most: int = steps, limit: int = questions) -> tuple[str, ...]:
            bounds = ("--ratio", str(ratio), "--iterations", str(most))  # noqa: B023
            return ask("latentseek", *bounds, *settings, limit=limit)

        cot, bon, self_reward, psrm = paper
        yield Cell(part, f"{part}-cot", ask("cot"), cot)
        yield Cell(part, f"{part}-bon3", ask("best-of-n", *_JUDGE), bon)
        yield Cell(part, f"{part}-self", seek(*_JUDGE), self_reward)
        yield Cell(part, f"{part}-psrm", seek("--reward", "psrm"), psrm)
        if part == "gsm8k":
            yield Cell("rivals", "reflection", ask("self-reflection"))
            voting = ("--preset", "self-consistency", "--samples", "21")
            yield Cell("rivals", "self-consistency", ask("cot", *voting, limit=60))
            yield Cell("controls", "constant", seek("--reward", "constant"))
            yield Cell("controls", "confidence", seek("--reward", "confidence"))
            noise = ("--update", "noise", "--sigma", "1.0")
            yield Cell("controls", "noise", seek(*_JUDGE, *noise))
            yield Cell("controls", "noise-psrm", seek("--reward", "psrm", *noise))
            yield Cell("curve", "psrm-64", seek("--reward", "psrm", most=64, limit=24))


if __name__ == "__main__":
    main("latentseek", __doc__, list(cells()), Path("runs/latentseek"), seeds=(0,))
