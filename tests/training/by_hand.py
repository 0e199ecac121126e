"""What tests of policy gradients share: chains, half of them rewarded, and written-out means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from latentgym.heads import GaussianHead, MultiTokenHead, PolicyHead, TokenHead
from latentgym.lm import load_model
from latentgym.registry import make_vector_env
from latentgym.rewards import Grade
from latentgym.rollout import Episodes, Policy
from latentgym.training import GRPO

HEADS: dict[str, tuple[Callable[[], PolicyHead], str]] = {
    "words": (TokenHead, "token"),
    "several tokens": (lambda: MultiTokenHead(3), "continuous"),
    "vectors": (lambda: GaussianHead(16, 8), "hybrid"),
}


class Kept(GRPO):
    """Remembers its episodes."""

    def _answered(self, *args: Any) -> Episodes:
        self.episodes = super()._answered(*args)
        return self.episodes


def grade(index: int, completion: str, answer: str) -> Grade:
    """Half of all texts earn a reward."""
    return Grade(float(sum(map(ord, completion)) % 2), answer, "ok", {"correct": 0.0})


def policy_and_env(name: str, rows: int, **options: Any) -> tuple[Policy, Any]:
    """Of a head; chains of which some end by themselves, and others are cut off."""
    head, family = HEADS[name]
    options = {"think": 9, "answer": 5, **options}
    env = make_vector_env(f"latent/GSM8K-{family}", rows, source="sample", **options)
    env.unwrapped.task.grade = grade
    tokenizer = env.unwrapped.task.tokenizer
    lm = load_model("tiny:llama:1x2x16", tokenizer=tokenizer, mixed_precision=True)
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.mul_(4)
        lm.table_VD[tokenizer.eos_id] *= 4  # likely here and there, so that chains end
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Policy(lm, head()), env


def written_mean(rows: list[tuple[Tensor, Tensor]], kind: str) -> Tensor:
    """The mean of what each row's actions give, with which of them are thoughts."""
    if kind == "token":
        return torch.cat([each for each, _ in rows]).mean()
    if kind == "sequence":
        return torch.stack([each.mean() for each, _ in rows]).mean()
    if kind == "sum":
        return torch.stack([each.sum() for each, _ in rows]).mean()
    parts = [(each[thought], each[~thought]) for each, thought in rows]
    return torch.stack([sum(p.mean() for p in both if len(p)) for both in parts]).mean()
