"""LTPO: thought vectors in the prompt, moved at test time by the model's own confidence.

"Thinking on the Fly: Test-Time Reasoning Enhancement via Latent Thought Policy Optimization"
(arXiv 2510.04182). Behind the prompt stand k vectors x, at first embeddings of a filler token. A
Gaussian policy around them is improved by REINFORCE without a baseline, one candidate a step:

    x' = x + sigma n,   R = -mean over thought positions and their ten likeliest tokens of log p
    x += lr R (x' - x) / sigma^2,   sigma *= decay

Nothing is decoded on the way; the answer is decoded once, behind the vectors of the best step.
Deviations: docs/agents/ltpo.md.

Legend: Q questions, P prompt positions, k thought vectors, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from latentgym import heads, rollout
from latentgym.agents.answering import make_answer
from latentgym.agents.base import Agent
from latentgym.episodes.rng import derive
from latentgym.errors import UsageError
from latentgym.evaluation.accounting import Positions
from latentgym.evaluation.answers import Answer, Answered
from latentgym.system.options.ranges import Number, Positive, PositiveShare, Size, SizeOrZero

if TYPE_CHECKING:
    from torch import Tensor

    from latentgym.lm import LatentLM

_PURPOSE = 11  # of the random numbers


@dataclass(frozen=True)
class LTPOConfig:
    """Settings of LTPO; the defaults are those of the authors' script."""

    k: Size = 8
    """Thought vectors."""
    steps: SizeOrZero = 10
    """Candidates that are tried; 0 leaves filler tokens in the prompt."""
    sigma: Positive = 4.0
    """Standard deviation of the policy at first; the authors' program has .1 by default."""
    decay: PositiveShare = 0.9
    """Of sigma, every step."""
    lr: Number = 0.04
    """Learning rate."""
    top: Size = 10
    """Likeliest tokens of a position in the reward."""
    keep: Literal["mean", "candidate", "last"] = "mean"
    """Of the best step: the mean after its update, as the authors have it, or the candidate that
    earned the reward; or the last mean."""
    filler: SizeOrZero | None = None
    """Id of the token whose embedding the vectors begin as; none takes the padding token."""


@dataclass
class Found:
    """What a search has found.

    Attributes:
        given_QkD: the vectors to answer behind.
        start_Q, best_Q: reward of the first candidate and of the best.
        step_Q: the step of the best, from 0.
    """

    given_QkD: Tensor
    start_Q: Tensor
    best_Q: Tensor
    step_Q: Tensor


class LTPO(Agent[LTPOConfig]):
    """Moves thought vectors in the prompt towards confidence, then answers."""

    name = "ltpo"
    families = ("token",)
    config_class = LTPOConfig
    presets: ClassVar[dict[str, LTPOConfig]] = {
        "paper": LTPOConfig(),
        "program": LTPOConfig(k=10, sigma=0.1, decay=0.99, lr=0.03),
    }

    def policy(self, lm: LatentLM, *, acting: bool) -> rollout.Policy:
        return rollout.Policy(lm, heads.TokenHead(temperature=0.0))

    def answering(self) -> Any:
        return self.config  # it only answers

    def answer(
        self,
        policy: rollout.Policy,
        env: Any,
        questions: npt.NDArray[np.int64],
        seed: int,
        answered: Answered,
    ) -> list[Answer]:
        base = env.unwrapped
        if base.task.choices is not None:
            raise UsageError(f"{self.name} answers in words; use another agent for rankings.")
        engine = rollout.Engine(policy, keep_thoughts=self.keep_thoughts)
        # Questions of like length go together, so that little is padded.
        lengths = [len(base.prompt(int(index))) for index in questions]
        suffix = len(policy.prompt_suffix)
        engine.check_room(max(lengths) + suffix, base.protocol, self.config.k)  # then search
        order = np.argsort(lengths, kind="stable")
        done: dict[int, Answer] = {}
        for places in np.split(order, range(base.num_envs, len(order), base.num_envs)):
            some = questions[places]
            found = search(policy, [base.prompt(int(i)) for i in some], some, self.config, seed)
            episodes = rollout.collect(engine, env, some, seed=seed, given_QkD=found.given_QkD)
            batch = [
                self._answer(base.task, int(index), episodes, row, found)
                for row, index in enumerate(some)
            ]
            done |= zip(places.tolist(), batch, strict=True)
            answered(batch)
        return [done[place] for place in range(len(questions))]

    def _answer(
        self, task: Any, index: int, episodes: rollout.Episodes, row: int, found: Found
    ) -> Answer:
        answer = make_answer(task, index, episodes, np.array([row]), row)
        c, read = self.config, answer.positions.prompt - self.config.k
        # The prompt is read once for all candidates, and these with the head at every position.
        spent = Positions(verifier_prompt=read if c.steps else 0.0, discarded=float(c.steps * c.k))
        metrics = {
            "ltpo/start": float(found.start_Q[row]),
            "ltpo/reward": float(found.best_Q[row]),
            "ltpo/step": float(found.step_Q[row]),
        }
        return replace(answer, positions=answer.positions + spent, metrics=metrics)


def search(
    policy: rollout.Policy,
    prompts: Sequence[Sequence[int]],
    questions: npt.NDArray[np.int64],
    c: LTPOConfig,
    seed: int,
) -> Found:
    """Move the vectors of some questions, side by side.

    Args:
        policy: whose model reads them.
        prompts: token ids.
        questions: their numbers, a counter behind the random numbers.
        c: settings.
        seed: of the random numbers.

    Raises:
        UsageError: there is no such filler, or vectors or rewards are not finite.
    """
    import torch

    from latentgym.heads.rng import CounterRNG
    from latentgym.lm.mode import mode

    lm, counts = policy.lm, np.asarray(questions, dtype=np.int64)
    filler = lm.tokenizer.pad_id if c.filler is None else c.filler
    if filler >= lm.vocab_size:
        raise UsageError(f"--filler {filler} is no token of {lm.name}; give a smaller id.")
    rng = CounterRNG.of_rows(derive(seed, _PURPOSE), counts, np.zeros_like(counts), lm.device)
    with torch.no_grad(), mode(policy, training=False):
        ids_Qk = torch.full((len(prompts), c.k), filler, device=lm.device)
        x = lm.embed(ids_Qk).float()
        best = torch.full((len(prompts),), -torch.inf, device=lm.device)
        start, step_Q, kept = torch.zeros_like(best), torch.zeros_like(best), x.clone()
        confidence = Confidence(lm, [list(p) + list(policy.prompt_suffix) for p in prompts], c.top)
        sigma = c.sigma
        for step in range(c.steps):
            drawn = rng.at_step(torch.full_like(rng.key_B, step)).normal(x[0].numel())
            noise = drawn.to(x).view_as(x)
            candidate = x + sigma * noise
            reward_Q = confidence(candidate)
            # (x' - x) / sigma^2 is noise / sigma, which grows as sigma decays; where the candidate
            # has the same number as x, nothing was tried, and nothing moves.
            moved = x + c.lr * reward_Q[:, None, None] * noise / sigma
            x = torch.where(candidate == x, x, moved)
            better = reward_Q > best
            chosen = candidate if c.keep == "candidate" else x
            kept = torch.where(better[:, None, None], chosen, kept)
            best = torch.where(better, reward_Q, best)
            step_Q = torch.where(better, float(step), step_Q)
            start = reward_Q if step == 0 else start
            sigma *= c.decay
        given = x if c.keep == "last" else kept
        if not given.isfinite().all() or (c.steps and not best.isfinite().all()):
            raise UsageError(
                "the search left the numbers that a model can read; give --sigma and --lr lower, "
                "or fewer --steps."
            )
    return Found(given, start, best, step_Q)


class Confidence:
    """How sure a model is behind thought vectors, whose prompts are read once.

    Args:
        lm: the model.
        prompts: token ids of Q prompts.
        top: likeliest tokens of a position that count.
    """

    def __init__(self, lm: LatentLM, prompts: Sequence[Sequence[int]], top: int) -> None:
        from transformers.cache_utils import DynamicCache

        from latentgym.lm.model import left_pad

        self.lm, self.top = lm, min(top, lm.vocab_size)
        ids_QP, self._mask_QP = left_pad([*map(list, prompts)], lm.tokenizer.pad_id, lm.device)
        self._width, self._cache = ids_QP.shape[1], DynamicCache()
        lm.hidden(lm.embed(ids_QP), self._mask_QP, self._cache)

    def __call__(self, x_QkD: Tensor) -> Tensor:
        """Minus the mean log-probability of the likeliest tokens behind each vector, (Q,)."""
        from torch import nn

        mask_QT = nn.functional.pad(self._mask_QP, (0, x_QkD.shape[1]), value=True)
        x_QkD = x_QkD.to(self.lm.table_VD.dtype)
        hidden_QkD = self.lm.hidden(x_QkD, mask_QT, self._cache)
        self._cache.crop(self._width)
        logp_QkV = self.lm.logits(hidden_QkD).log_softmax(-1)
        mean_Q: Tensor = logp_QkV.topk(self.top, dim=-1).values.mean((-1, -2))
        return -mean_Q
