"""Which thought matters: CoT2's latents and the discrete chain in one architecture, on MNNS.

Trains both from scratch, replaces their thoughts on the test split, and reads them by the logit
lens (`latentgym.analysis`).

python -m benchmarks.causal_map --out runs/causal-map --record benchmarks/records
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latentgym.agents.stored import stored_run
from latentgym.analysis.interventions import INTERVENTIONS
from latentgym.analysis.latents import DEFINITIONS, causal_map
from latentgym.analysis.lens import DEFINITIONS as LENS
from latentgym.analysis.lens import (
    KL_FINAL_LENS,
    KL_LENS_FINAL,
    OVERLAP,
    decode_latents,
    logit_lens,
)
from latentgym.analysis.maps import DEFINITIONS as MAPS
from latentgym.analysis.maps import Reader, linear_maps
from latentgym.analysis.residual import ResidualStream
from latentgym.analysis.sequences import Sequences, of_demonstrations, of_rollouts
from latentgym.evaluation.results import git_commit, versions
from latentgym.evaluation.stats import mean_interval, seed_interval
from latentgym.evaluation.suites.cells import Cell, folder
from latentgym.evaluation.suites.running import run
from latentgym.progress import progress_bar
from latentgym.rollout import Engine, Policy, Rollouts, collect
from latentgym.rollout.targets import with_right_answers
from latentgym.storage import atomic_write

SEEDS = (0, 1, 2)
MODEL = ("--model", "tiny:gpt2:4x2x32", "--steps", "3000", "--save-every", "0")
RUNS = Path("runs/causal-map")
_SEEDS = {
    "lists of three": "mean over seeds of the means over questions, and Student's 95 % interval",
    "lens by layer": "mean over seeds",
}
SHOWN = 2  # questions whose thoughts the record decodes


def cells() -> list[Cell]:
    """The two models; CoT2's width, with twice its layers so that there are some to look at."""
    tokens = ("cot", "latent/MNNS-token", "--preset", "sft-tiny")
    return [
        Cell("models", "cot2", ("train", "mts-grpo", "latent/MNNS-continuous", *MODEL)),
        Cell("models", "discrete", ("train", *tokens, *MODEL)),
    ]


class Trained:
    """A trained model and what it thinks on the test split.

    Args:
        path: of its run.
        seed: of the run.
    """

    def __init__(self, path: Path, seed: int) -> None:
        trained = stored_run(path, seed=seed)
        self.policy: Policy = trained.actor().eval()
        size = len(trained.make_env(1).unwrapped.task)
        env = trained.make_env(size)
        self.task, self.prompt = env.unwrapped.task, env.unwrapped.prompt
        episodes = collect(Engine(self.policy), env, range(size), seed=seed)
        self.accuracy = float(episodes.component("score").mean())
        self.own: Rollouts = episodes.rollouts
        self.right: Rollouts = with_right_answers(episodes, env)
        self.stream = ResidualStream(self.policy.lm)

    def sequences(self, rollouts: Rollouts) -> Sequences:
        """What it reads."""
        return of_rollouts(self.policy, rollouts)


def look(model: Trained) -> dict[str, Any]:
    """All numbers of one model."""
    found: dict[str, Any] = {"accuracy": model.accuracy, "maps": {}}
    for whose, rollouts in (("own", model.own), ("right", model.right)):
        sequences = model.sequences(rollouts)
        for effect, of in (("direct", None), ("total", rollouts)):
            told = causal_map(model.policy, sequences, interventions=INTERVENTIONS, rollouts=of)
            found["maps"][f"{whose} answer, {effect}"] = told
    found["lens"] = logit_lens(model.stream, model.sequences(model.own))
    return found


def decoded(model: Trained) -> list[dict[str, Any]]:
    """The thoughts of the first questions in tokens, beside what they were trained towards."""
    tokenizer, some = model.policy.lm.tokenizer, np.arange(SHOWN)
    sequences = model.sequences(model.own.select(some))
    pieces = tokenizer.pieces()
    rows = decode_latents(model.stream, sequences, tokenizer, top=4)
    for row in rows:
        question, d = model.task.question(row["row"]), model.task.demonstration(row["row"])
        weights, ids = d.weights_TS[row["step"]], d.ids_TS[row["step"]]
        order = np.argsort(-weights, kind="stable")
        row["question"], row["answer"] = question.text, question.gold
        row["taught"] = {pieces[ids[i]]: round(float(weights[i]), 3) for i in order if weights[i]}
        row["nearest"] = _tokens(row["nearest"], "cosine")
        row["lens"] = {k: _tokens(tokens, "probability") for k, tokens in row["lens"].items()}
    return rows


def _tokens(told: Sequence[Mapping[str, Any]], name: str) -> dict[str, float]:
    """Tokens with their numbers; special ones, which have no text, by their ids."""
    return {token["text"] or f"<{token['id']}>": round(token[name], 3) for token in told}


def between(source: Trained, target: Trained) -> dict[str, Any]:
    """Linear maps from one model to the other behind the demonstrations of the test split.

    They are fitted on every second question, and judged on the others.
    """
    readers = []
    for model in (source, target):
        shown = [(model.prompt(i), model.task.demonstration(i)) for i in range(len(model.task))]
        halves = (of_demonstrations(model.policy.lm, shown[part::2]) for part in (0, 1))
        readers.append(Reader(model.stream, *halves))
    told = linear_maps(*readers)
    tables = {name: [_short(row) for row in told[name]] for name in ("error", "relative_error")}
    return {**tables, **{name: told[name] for name in ("band", "best_source", "positions")}}


def summary(looks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The numbers of one agent, over its seeds."""
    accuracy = [look["accuracy"] for look in looks]
    rows = looks[0]["maps"]["own answer, direct"]["rows"]
    mean, low, high = seed_interval(accuracy, rows)
    return {
        "accuracy": _short([100 * x for x in (mean, low, high)]),
        "accuracy_by_seed": _short([100 * x for x in accuracy]),
        "rows": rows,
        "maps": {name: _map([look["maps"][name] for look in looks]) for name in looks[0]["maps"]},
        "lens": {
            "layers": looks[0]["lens"]["layers"],
            **{name: _groups([look["lens"][name] for look in looks]) for name in _LENS},
            "scalars_by_seed": [look["lens"]["scalars"] for look in looks],
        },
    }


def _map(told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A causal map over seeds: means with Student's interval, and the share of changed answers."""
    stored = [each["stored"] for each in told]
    return {
        "stored": {name: _over_seeds(stored, name) for name in ("logp", "probability")},
        **{
            name: [
                {
                    "step": at_step[0]["step"],
                    "logp": _over_seeds(at_step, "logp"),
                    "probability": _over_seeds(at_step, "probability"),
                    "changed": _short(mean_interval([c["changed"] / c["rows"] for c in at_step])),
                }
                for at_step in zip(*(each["map"][name] for each in told), strict=True)
            ]
            for name in told[0]["map"]
        },
    }


def _over_seeds(cells: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return _short(mean_interval([cell[name]["mean"] for cell in cells]))


def _groups(told: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Means of each layer by kind of position, over seeds."""
    return {
        group: _short(map(statistics.fmean, zip(*(t[group]["mean"] for t in told), strict=True)))
        for group in told[0]
    }


def _short(numbers: Iterable[float]) -> list[float]:
    return [round(x, 5) for x in numbers]


_LENS = (KL_FINAL_LENS, KL_LENS_FINAL, OVERLAP)


def main() -> None:
    """Train, look inside, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--out", type=Path, default=RUNS)
    parser.add_argument("--record", type=Path, default=Path("benchmarks/records"))
    o = parser.parse_args()
    torch.set_num_threads(1)
    jobs = [(cell, seed) for cell in cells() for seed in o.seeds]
    with progress_bar("training", len(jobs)) as advance:
        for cell, seed in jobs:
            run(cell, o.out, seed)
            advance(1)
    data: dict[str, Any] = {
        "bench": "causal_map",
        "seeds": o.seeds,
        "definitions": {"causal_map": DEFINITIONS, "lens": LENS, "maps": MAPS, **_SEEDS},
        "agents": {},
    }
    for cell in cells():
        models = [Trained(folder(o.out, cell.name, seed), seed) for seed in o.seeds]
        data["agents"][cell.name] = {
            **summary([look(model) for model in models]),
            "decoded": decoded(models[0]),
            "linear_maps": {
                f"seed {a} to seed {b}": between(models[a], models[b])
                for a, b in ((0, 1), (1, 2), (2, 0))
                if max(a, b) < len(models)
            },
            "command": " ".join(["latentgym", *cell.command(RUNS, o.seeds[0])]),
        }
    data |= {"versions": versions(), "git": git_commit()}
    o.record.mkdir(parents=True, exist_ok=True)
    with atomic_write(o.record / "causal_map.json") as partial:
        partial.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n")
    for name, told in data["agents"].items():
        print(name, "accuracy", told["accuracy"])
        for target, cells_ in told["maps"]["right answer, direct"].items():
            if target != "stored":
                print(f"  {target:12}", [c["probability"][0] for c in cells_])


if __name__ == "__main__":
    main()
