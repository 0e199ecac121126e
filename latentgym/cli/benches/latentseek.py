"""`latentgym bench latentseek`: the batched search against one question at a time without a cache.

What is measured and how: `latentgym.cli.benches.settings.LatentSeekBench`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from operator import eq
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from latentgym.agents.base import agent_class
from latentgym.agents.run import Run
from latentgym.agents.search import Try, VerifierConfig
from latentgym.cli.benches.plain_latentseek import PlainLatentSeek
from latentgym.cli.benches.settings import ANSWER, LatentSeekBench
from latentgym.evaluation.accounting import ModelSizes, Positions, flops
from latentgym.lm.tiny import vocabulary_of
from latentgym.progress import progress_bar
from latentgym.rollout import Policy
from latentgym.text.tokenizers import Tokenizer

_AGENT, _ENV = "latentseek", "latent/GSM8K-token"
_REWARDS = ("self", "constant")


def run(options: LatentSeekBench) -> dict[str, Any]:
    """Run the benchmark; all figures as plain data.

    Raises:
        UsageError: settings that cannot work.
    """
    options.validate()
    if options.threads:
        torch.set_num_threads(options.threads)
    config = agent_class(_AGENT).config_class(
        lr=options.lr,
        iterations=options.iterations,
        verifier=VerifierConfig(tokens=options.verifier),
    )
    rules: dict[str, Any] = {
        "think": options.new - ANSWER,
        "answer": ANSWER,
        "force_answer": True,
    }
    about = Run(_AGENT, config, _ENV, options.model, rules, dtype="float32")
    policy, env = about.actor(), about.make_env(options.questions)
    words = vocabulary_of(options.model)
    single = gym.make(_ENV, model=words, **rules)
    _ours(policy, env, replace(config, reward="constant", iterations=0), 1)  # packs the weights
    found = {}
    with progress_bar("bench latentseek", len(_REWARDS) * (options.plain + 1)) as advance:
        for reward in _REWARDS:
            judged = replace(config, reward=reward)
            plain = PlainLatentSeek(
                policy.lm, single, judged, cached_verifiers=options.cached_verifiers
            )
            theirs = _plain(plain, options.plain, advance)
            found[reward] = theirs, _ours(policy, env, judged, options.questions)
            advance(1)
    return {
        "bench": "latentseek",
        "settings": asdict(options),
        "model": policy.lm.name,
        "source": env.unwrapped.task.source,
        "device": str(policy.lm.device),
        "dtype": str(policy.lm.dtype),
        "threads": torch.get_num_threads(),
        "questions_per_minute": _both(found, lambda side: side.per_minute),
        "positions_per_question": _both(found, lambda side: side.positions),
        "ratios": {
            **{
                f"latentgym / plain, {reward}": ours.per_minute / theirs.per_minute
                for reward, (theirs, ours) in found.items()
            },
            **{
                f"positions, plain / latentgym, {reward}": theirs.positions / ours.positions
                for reward, (theirs, ours) in found.items()
            },
        },
        "same_answers": {
            reward: sum(map(eq, theirs.tokens, ours.tokens)) / options.plain
            for reward, (theirs, ours) in found.items()
        },
        "forward_positions": {reward: ours.parts for reward, (_, ours) in found.items()},
        "gflop_per_question": {reward: ours.gflop for reward, (_, ours) in found.items()},
        "scaling": {},
    }


@dataclass(frozen=True)
class Side:
    """What one of the two did.

    Attributes:
        per_minute: questions.
        positions: forward positions a question.
        tokens: of the answers, in the order of the questions.
        parts: of the positions, by what they were for; ours alone.
        gflop: a question; ours alone.
    """

    per_minute: float
    positions: float
    tokens: list[list[int]]
    parts: dict[str, float] = field(default_factory=dict)
    gflop: float = 0.0


def _plain(plain: PlainLatentSeek, n: int, advance: Callable[[int], None]) -> Side:
    tokens, started = [], time.perf_counter()
    for index in range(n):
        tokens.append(plain.answer(plain.search(index)).tokens)
        advance(1)
    return Side(60 * n / (time.perf_counter() - started), plain.positions / n, tokens)


def _ours(policy: Policy, env: Any, config: Any, n: int) -> Side:
    tokens: dict[int, list[int]] = {}

    def watch(tried: Try, _: Tokenizer) -> None:
        tokens[tried.attempt.index] = tried.attempt.token_T.tolist()

    agent: Any = agent_class(_AGENT)(config)
    agent.watch = watch
    started = time.perf_counter()
    answers = agent.answer(policy, env, np.arange(n), 0, lambda _: None)
    seconds = time.perf_counter() - started
    positions = sum((a.positions for a in answers), Positions()).scaled(1 / n)
    parts = positions.as_dict()
    context = float(np.mean([a.context for a in answers])) / 2
    return Side(
        60 * n / seconds,
        sum(parts.values()) - positions.gradient,  # a latent that is moved passes the head alone
        [tokens[index] for index in range(n)],
        parts,
        flops(ModelSizes.of(policy.lm), positions, context) / 1e9,
    )


def _both(
    found: Mapping[str, tuple[Side, Side]], figure: Callable[[Side], float]
) -> dict[str, float]:
    return {
        f"{name}, {reward}": figure(side)
        for reward, sides in found.items()
        for name, side in zip(("plain", "latentgym"), sides, strict=True)
    }
