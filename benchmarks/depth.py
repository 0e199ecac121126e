"""Does a language model use its depth, and do latents? Records of `latentgym analyze depth`.

python -m benchmarks.depth --parts gsm8k explained agents difficulty mnns    # LATENTGYM_DATA

gsm8k: SmolLM2-135M on solutions of GSM8K. explained: which positions of the first of them their
answers depend on. agents: the same model on what three agents think.
difficulty: depth scores against levels of MATH and lengths of generated chains. mnns: the models of
`benchmarks.causal_map`. About an hour and a half on one core; what is found is kept in `RUNS` piece
by piece, so that a killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import causal_map
from latentgym.agents.base import agent_class, preset
from latentgym.agents.run import Run
from latentgym.analysis import LayerSkips, depth_report, logit_lens, of_demonstrations, of_rollouts
from latentgym.analysis.depth import Measure
from latentgym.analysis.pooling import ALL
from latentgym.analysis.residual import Part, ResidualStream
from latentgym.analysis.scores import DEFINITION, against_difficulty, skip_scores
from latentgym.analysis.sequences import Sequences
from latentgym.evaluation.results import git_commit, versions
from latentgym.evaluation.suites.cells import Cell, folder
from latentgym.evaluation.suites.running import run
from latentgym.lm.zoo import SMOLLM2
from latentgym.progress import progress_bar
from latentgym.rollout import Engine, collect
from latentgym.storage import atomic_write

RECORD = Path("benchmarks/records/depth.json")
RUNS = Path("runs/depth")
Look = tuple[Measure, tuple[Part, ...]]
# What is looked at on all questions, and what on few of them.
FULL: tuple[Look, ...] = (
    ("contributions", ()),
    ("lens", ()),
    ("future", ()),
    ("skips", ("block",)),
    ("thoughts", ()),
)
FEW: tuple[Look, ...] = (
    ("skips", ("attention", "mlp")),
    ("local", ()),
)
# Layers of SmolLM2's thirty before which single answers are explained.
EXPLAINED: dict[Measure, tuple[int, ...]] = {
    "gradients": (10, 20),
    "erasure": (0, 5, 10, 15, 20, 25, 29),
}
ONE = 1  # positions at once, that is, one sequence at a time: none is padded
EVERY = (
    3  # layers at which agents' thoughts are seen through the lens: heads cost as much as blocks
)
LONGEST = 176  # tokens of question and solution that depth scores are taken of
BUDGETS = {"think": 32, "answer": 8, "force_answer": True}
AGENTS = {
    "cot": "latent/GSM8K-token",
    "soft-thinking": "latent/GSM8K-continuous",
    "hrpo": "latent/GSM8K-hybrid",
}
_CHAINS = (
    *("train", "cot", "latent/GSM8KAug-token", "-o", "source=generated", "-o", "largest=19"),
    *("-o", "min_operations=1", "-o", "max_operations=4", "--preset", "sft-tiny"),
    *("--model", "tiny:llama:6x4x64", "--steps", "1500", "--save-every", "0"),
)


def policy_of(agent: str, env: str, options: dict[str, Any], **more: Any) -> tuple[Any, Run]:
    """A policy of an agent with its default settings, in float32, and its run."""
    cls = agent_class(agent)
    made = Run(cls.name, preset(cls, None), env, SMOLLM2, options, dtype="float32", **more)
    return made.actor().eval(), made


def kept(name: str, find: Callable[[], Any]) -> Any:
    """What was found under that name before, or is found now and kept."""
    path = RUNS / f"{name}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            partial.write_text(json.dumps(find(), allow_nan=False))
    return json.loads(path.read_text())


def compact(report: dict[str, Any]) -> dict[str, Any]:
    """What the record keeps of a report: four digits, and of tables those of all positions."""
    told = {name: value for name, value in report.items() if name != "definitions"}
    if "lens" in told:
        told["lens"] = {n: value for n, value in told["lens"].items() if n != "definitions"}
    for name in ("skips", "future", "thoughts", "local"):
        if name in told:
            told[name] = _of_all(told[name])
    found: dict[str, Any] = short(told)
    return found


def _of_all(told: dict[str, Any]) -> dict[str, Any]:
    """Effects of skips without the tables [s][l] of single kinds of position."""
    found: dict[str, Any] = {}
    for name, value in told.items():
        if name == "layers":
            found[name] = {ALL: value[ALL]} if ALL in value else {}
        else:
            found[name] = _of_all(value) if isinstance(value, dict) else value
    return found


def short(told: Any) -> Any:
    """Four digits of every number."""
    if isinstance(told, dict):
        return {name: short(value) for name, value in told.items()}
    if isinstance(told, list):
        return [short(value) for value in told]
    return float(f"{told:.4g}") if isinstance(told, float) else told


def _solutions(questions: int) -> tuple[ResidualStream, Callable[[int], Sequences], Any]:
    """SmolLM2-135M, so many first solutions of GSM8K's training split, and their task."""
    policy, made = policy_of("cot", "latent/GSM8K-token", {})
    env = made.make_env(1).unwrapped
    items = [(env.prompt(i), env.demonstration(i)) for i in range(questions)]

    def first(count: int) -> Sequences:
        return of_demonstrations(policy.lm, items[:count])

    return ResidualStream(policy.lm), first, env.task


def gsm8k(questions: int, few: int) -> dict[str, Any]:
    """SmolLM2-135M reading solutions of GSM8K's training split: all `FULL`, few of them `FEW`."""
    stream, first, task = _solutions(questions)

    def look(measure: Measure, parts: Sequence[Part], count: int) -> dict[str, Any]:
        report = depth_report(
            stream,
            first(count),
            measures=[measure],
            parts=parts,
            difficulty={"steps": [task.difficulty(i)["steps"] for i in range(count)]},
            positions_at_once=ONE,
        )
        return compact(report)

    found = [
        kept(
            "-".join(["gsm8k", measure, *parts, str(count)]),
            partial(look, measure, parts, count),
        )
        for looks, count in ((FULL, questions), (FEW, few))
        for measure, parts in looks
    ]
    merged: dict[str, Any] = {**found[0], "source": task.source, "few": few}
    for report in found[1:]:
        for name, value in report.items():
            if name in ("seconds", "scalars", "skips"):
                merged[name] = {**value, **merged.get(name, {})}
            else:
                merged.setdefault(name, value)
    return merged


def explained(questions: int, _: int) -> dict[str, Any]:
    """Which positions the answers of these solutions depend on, and until which layer."""
    stream, first, task = _solutions(questions)

    def look(measure: Measure, layers: Sequence[int]) -> dict[str, Any]:
        report = depth_report(
            stream,
            first(questions),
            measures=[measure],
            layers=layers,
            explained=questions,
            positions_at_once=ONE,
        )
        found: dict[str, Any] = short({measure: report[measure], "seconds": report["seconds"]})
        return found

    found = {
        measure: kept(f"explained-{measure}-{questions}", partial(look, measure, layers))
        for measure, layers in EXPLAINED.items()
    }
    return {
        **{measure: report[measure] for measure, report in found.items()},
        "seconds": {measure: report["seconds"][measure] for measure, report in found.items()},
        "questions": questions,
        "source": task.source,
    }


def agents(questions: int, _: int) -> dict[str, Any]:
    """SmolLM2-135M reading what agents think, none of them trained."""

    def look(agent: str, env_id: str) -> dict[str, Any]:
        policy, made = policy_of(agent, env_id, BUDGETS)
        env = made.make_env(questions)
        episodes = collect(Engine(policy), env, range(questions), seed=0)
        stream, sequences = ResidualStream(policy.lm), of_rollouts(policy, episodes.rollouts)
        some = range(0, len(stream) + 1, EVERY)
        report = depth_report(
            stream,
            sequences,
            measures=["contributions", "thoughts"],
            layers=some[:-1],
            positions_at_once=ONE,
        )
        report["lens"] = logit_lens(stream, sequences, layers=some, positions_at_once=ONE)
        return {**compact(report), "env": env_id, "source": env.unwrapped.task.source}

    found = {
        agent: kept(f"agents-{agent}-{questions}", partial(look, agent, env_id))
        for agent, env_id in AGENTS.items()
    }
    return {"agents": found, "budgets": BUDGETS}


def difficulty(questions: int, per_level: int) -> dict[str, Any]:
    """Depth scores of questions against how hard they are."""
    found = {
        "MATH": kept(f"math-{per_level}", partial(_of_maths, per_level)),
        "generated chains": kept("generated-chains", _of_chains),
    }
    return {**found, "definition": DEFINITION}


def _of_maths(per_level: int) -> dict[str, Any]:
    """SmolLM2-135M on the first problems of each level of MATH that are short enough."""
    policy, made = policy_of("cot", "latent/MATH-token", {})
    env = made.make_env(1).unwrapped
    chosen: dict[float, list[int]] = {}
    for i in range(len(env.task)):
        level, items = env.task.difficulty(i).get("level"), env.prompt(i)
        length = len(items) + len(env.demonstration(i).ids_TS)
        if (
            level is not None
            and length <= LONGEST
            and len(chosen.setdefault(level, [])) < per_level
        ):
            chosen[level].append(i)
    maths = [(i, level) for level, numbers in sorted(chosen.items()) for i in numbers]
    return {**_scores(policy, env, maths), "source": env.task.source}


def _of_chains() -> dict[str, Any]:
    """A model of six layers on the chains of operations that it has learnt."""
    cell = Cell("models", "chains", _CHAINS)
    run(cell, RUNS, 0)
    trained = causal_map.Trained(folder(RUNS, cell.name, 0), 0)
    chains = [(i, trained.task.difficulty(i)["steps"]) for i in range(min(200, len(trained.task)))]
    return {
        **_scores(trained.policy, _Env(trained), chains),
        "accuracy": trained.accuracy,
        "command": " ".join(["latentgym", *cell.command(RUNS, 0)]),
    }


class _Env:
    """Prompts and demonstrations of a trained model's task."""

    def __init__(self, trained: causal_map.Trained) -> None:
        self.prompt, self.demonstration = trained.prompt, trained.task.demonstration


def _scores(policy: Any, env: Any, asked: list[tuple[int, float]]) -> dict[str, Any]:
    items = [(env.prompt(i), env.demonstration(i)) for i, _ in asked]
    sequences = of_demonstrations(policy.lm, items)
    effects = LayerSkips(ResidualStream(policy.lm), sequences, ONE, outputs=False).everywhere()
    levels = [level for _, level in asked]
    return {
        how: against_difficulty(skip_scores(effects.per_sequence(how)).tolist(), levels)
        for how in ("mean", "max")
    }


def mnns(questions: int, _: int) -> dict[str, Any]:
    """CoT2's latents and the discrete chain's tokens in the same architecture, three seeds."""
    found: dict[str, Any] = {}
    for cell in causal_map.cells():
        looks = []
        for seed in causal_map.SEEDS:
            run(cell, causal_map.RUNS, seed)
            model = causal_map.Trained(folder(causal_map.RUNS, cell.name, seed), seed)
            sequences = model.sequences(model.own.select(np.arange(0, len(model.own), 4)))
            report = depth_report(
                model.stream,
                sequences,
                measures=["contributions", "thoughts"],  # too short for a future
                seed=seed,
            )
            looks.append({**compact(report), "accuracy": model.accuracy})
        found[cell.name] = looks
    return {"seeds": list(causal_map.SEEDS), "models": found}


PARTS: dict[str, tuple[Callable[[int, int], dict[str, Any]], int, int]] = {
    "gsm8k": (gsm8k, 20, 3),
    "explained": (explained, 3, 0),
    "agents": (agents, 20, 0),
    "difficulty": (difficulty, 0, 8),
    "mnns": (mnns, 0, 0),
}


def main() -> None:
    """Look, and write the record, part by part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--record", type=Path, default=RECORD)
    o = parser.parse_args()
    data: dict[str, Any] = json.loads(o.record.read_text()) if o.record.exists() else {}
    with progress_bar("parts", len(o.parts)) as advance:
        for name in o.parts:
            part, questions, few = PARTS[name]
            told = part(questions, few)
            data[name] = {**told, "versions": versions(), "git": git_commit()}
            o.record.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(o.record) as path:
                # A line for each part: with one for each number it would be twenty thousand.
                lines = (f'"{k}": {json.dumps(v, allow_nan=False)}' for k, v in data.items())
                path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
            advance(1, name)


if __name__ == "__main__":
    main()
