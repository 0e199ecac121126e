"""`latentgym bench dynamics`: an environment with a model inside, beside the engine and n copies.

What is measured and how: `latentgym.cli.benches.settings.DynamicsBench`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from statistics import median
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv

from latentgym.cli.benches.settings import DynamicsBench
from latentgym.heads import MixtureHead, TokenHead
from latentgym.lm import load_model
from latentgym.lm.tiny import vocabulary_of
from latentgym.progress import progress_bar
from latentgym.registry import make_vector_env
from latentgym.rollout import Engine, Policy, collect
from latentgym.wrappers import LatentDynamics

_ENV = "latent/RG_chain_sum-continuous"

Play = Callable[[], None]


def run(options: DynamicsBench) -> dict[str, Any]:
    """Run the benchmark; all figures as plain data."""
    if options.threads:
        torch.set_num_threads(options.threads)
    words = vocabulary_of(options.model)
    made = {"think": options.think, "answer": 1, "exact_thoughts": True, "size": 256}
    task = make_vector_env(_ENV, 1, model=words, **made).unwrapped.task
    lm = load_model(options.model, tokenizer=task.tokenizer, dtype="float32")
    spent: dict[str, list[float]] = {}
    with progress_bar("bench dynamics", options.rounds * len(options.rows)) as advance:
        for n in options.rows:
            plays = _plays(lm, words, made, n, options)
            for play in plays.values():
                play()  # packs the weights
            for _ in range(options.rounds):
                for name, play in plays.items():
                    started = time.perf_counter()
                    play()
                    spent.setdefault(f"{name}, {n} rows", []).append(time.perf_counter() - started)
                advance(1)
    each = {
        name: int(name.split(", ")[1].split()[0]) * options.think / median(seconds)
        for name, seconds in spent.items()
    }
    return {
        "bench": "dynamics",
        "settings": asdict(options),
        "model": lm.name,
        "device": str(lm.device),
        "dtype": str(lm.dtype),
        "threads": torch.get_num_threads(),
        "steps_per_second": each,
        "ratios": dict(_ratios(spent)),
        "scaling": {},
    }


def _plays(
    lm: Any, words: str | None, made: dict[str, Any], n: int, options: DynamicsBench
) -> dict[str, Play]:
    """What plays n episodes, by name."""
    index = np.arange(n)
    below = make_vector_env(_ENV, n, model=words, **made)
    inside = LatentDynamics(below.unwrapped, lm, k=options.k)
    head = MixtureHead(top_k=options.k)
    engine = Engine(Policy(lm, head, TokenHead(temperature=0.0)))

    def environment() -> None:
        inside.reset(options={"index": index})
        _until_over(inside)

    def ours() -> None:
        collect(engine, below, index, seed=0)

    plays: dict[str, Play] = {"environment": environment, "engine": ours}
    if n in options.copies:
        singles = SyncVectorEnv([lambda: _single(lm, words, made, options)] * n)

        def copies() -> None:
            singles.reset(seed=0)
            _until_over(singles)

        plays["copies"] = copies
    return plays


def _single(lm: Any, words: str | None, made: dict[str, Any], options: DynamicsBench) -> gym.Env:
    return gym.make(_ENV, model=words, dynamics=lm, k=options.k, **made)


def _until_over(env: Any) -> None:
    action, over = np.zeros(env.action_space.shape, dtype=np.float32), np.zeros(env.num_envs, bool)
    while not over.all():
        _, _, terminated, truncated, _ = env.step(action)
        over |= terminated | truncated


def _ratios(spent: dict[str, list[float]]) -> Any:
    for name, seconds in spent.items():
        who, rows = name.split(", ")
        if who != "environment":
            ours = spent[f"environment, {rows}"]
            yield (
                f"environment / {who}, {rows}",
                median(theirs / own for theirs, own in zip(seconds, ours, strict=True)),
            )
