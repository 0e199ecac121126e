"""LatentSeek: policy gradient on one question's latents at test time (arXiv 2505.13308).

Nothing is trained. The greedy chain is decoded; z_t, the last hidden states behind its first L
tokens, become free parameters. A step of REINFORCE with the reward R of the whole answer,

    loss = -R * sum_{t <= L} log( softmax(W z_t)[a_t] + eps ),   a_t = argmax_v (W z_t)_v,

moves z; the new argmax tokens are read as words, and the rest of the chain is decoded greedily
behind them. It goes on until R exceeds a threshold. R lies in [-1, 0], so a step pushes away from
the present tokens by how bad the answer is. Only the language-model head W is in the graph: the
latents themselves never enter the transformer.

Questions are searched side by side. What a step leaves as it was is neither decoded nor judged
again, the cache is kept up to the first changed token, and a question that is done makes room for
the next.

Legend: L searched positions, M those of several questions, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latentgym.agents.search import Attempt, Search, VerifierConfig
from latentgym.agents.searching import SearchAgent, SearchConfig, Seeker
from latentgym.episodes.rng import CounterRNG, derive
from latentgym.errors import UsageError
from latentgym.heads import TokenHead
from latentgym.lm.model import LatentLM
from latentgym.options.ranges import Interval, NotNegative, Share
from latentgym.rollout import Policy


@dataclass(frozen=True)
class LatentSeekConfig(SearchConfig):
    """Settings of LatentSeek; the defaults are the paper's for GSM8K."""

    lr: NotNegative = 0.03
    """Of Adam, which is new for every question."""
    ratio: Share = 0.2
    """rho: the share of the first answer's tokens that is searched."""
    start: Share = 0.0
    """The share of the first answer's tokens that stands before the searched ones."""
    most: Interval = 300
    """Most searched tokens."""
    iterations: Interval = 10
    """Most steps."""
    grad_clip: NotNegative = 0.0
    """Largest norm of a question's gradient; 0 for no bound."""
    eps: NotNegative = 1e-8
    """In the logarithm."""
    update: Literal["gradient", "noise"] = "gradient"
    """noise replaces steps by Gaussian noise on the first latents, as a control."""
    sigma: NotNegative = 1.0
    """Standard deviation of the noise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = 0 <= self.start <= 1 and 0 <= self.ratio <= 1
        if not shares or min(self.lr, self.most, self.iterations, self.grad_clip, self.sigma) < 0:
            raise UsageError(
                "latentseek needs ratio and start in [0, 1], and none of lr, most, iterations, "
                "grad_clip and sigma below 0."
            )


class Latents:
    """The latents of one question.

    Args:
        z_LD: last hidden states from which the first chain's searched tokens were decoded.
        before: tokens of the chain that stand before the searched ones.
        lr: of Adam.

    Attributes:
        z_LD: fp32, moved in place; `origin_LD` is what it was at first.
        token_L: the tokens that it stands for, the argmax of its logits.
        changed: how many of them the last step changed.
    """

    def __init__(self, z_LD: Tensor, token_L: npt.NDArray[np.int64], before: list[int], lr: float):
        self.z_LD = z_LD.detach().float().clone().requires_grad_()
        self.origin_LD = self.z_LD.detach().clone()
        self.token_L, self.before = token_L, before
        self.adam = torch.optim.Adam([self.z_LD], lr)
        self.changed = 0

    def move(self, token_L: npt.NDArray[np.int64]) -> None:
        """Take the tokens that the latents stand for now."""
        self.changed = int((token_L != self.token_L).sum())
        self.token_L = token_L

    def scatter(self, sigma: float, seed: int, question: int, step: int) -> None:
        """Put the latents at their origin plus Gaussian noise."""
        length, width = self.origin_LD.shape
        counters = np.full(length, question), np.full(length, step), np.arange(length)
        noise_LD = torch.from_numpy(CounterRNG.at(seed, *counters).normal(width)).to(self.origin_LD)
        with torch.no_grad():
            self.z_LD.copy_(self.origin_LD + sigma * noise_LD)

    def prefix(self) -> list[int]:
        """The tokens that the next attempt begins with."""
        return [*self.before, *self.token_L.tolist()]


def reinforce(
    latents: Sequence[Latents], reward: Sequence[float], lm: LatentLM, eps: float, clip: float
) -> None:
    """One step of policy gradient for each of several questions (the authors' `opt_generation.py`).

    Args:
        latents: of the questions.
        reward: of their present answers.
        lm: the model, of which only the head is used.
        eps: in the logarithm.
        clip: largest norm of a question's gradient; 0 for no bound.
    """
    lengths = [len(each.z_LD) for each in latents]
    z_MD = torch.cat([each.z_LD for each in latents])
    logits_MV = lm.logits(z_MD.to(lm.dtype))
    # Not `amax`, which shares the gradient among equals, and in bf16 many logits are equal.
    p_M = logits_MV.softmax(-1).gather(-1, logits_MV.argmax(-1, keepdim=True)).squeeze(-1)
    reward_M = torch.tensor(reward, device=z_MD.device).repeat_interleave(
        torch.tensor(lengths, device=z_MD.device)
    )
    loss = -(reward_M * (p_M + eps).log()).sum()
    (gradient_MD,) = torch.autograd.grad(loss, z_MD)
    for each, gradient_LD in zip(latents, torch.split(gradient_MD, lengths), strict=True):
        each.z_LD.grad = gradient_LD.contiguous()
        if clip:
            torch.nn.utils.clip_grad_norm_([each.z_LD], clip)
        each.adam.step()


@torch.no_grad()
def tokens_of(latents: Sequence[Latents], lm: LatentLM) -> Iterator[npt.NDArray[np.int64]]:
    """The argmax tokens of each question's latents, int64 (L,)."""
    z_MD = torch.cat([each.z_LD.detach() for each in latents])
    token_M = lm.logits(z_MD.to(lm.dtype)).argmax(-1)
    for token_L in torch.split(token_M, [len(each.z_LD) for each in latents]):
        yield token_L.cpu().numpy()


_MATH = VerifierConfig(format=2.0)
_MATH_EVEN = VerifierConfig(
    calculation=1.0, correctness=1.0, completeness=1.0, understanding=2.0, format=2.0
)
_OFFICIAL = VerifierConfig(
    tokens=4096, forced=False, temperature=0.7, top_p=0.8, official_parsing=True
)


class LatentSeek(SearchAgent[LatentSeekConfig]):
    """Searches each question's first tokens through their latents."""

    name = "latentseek"
    config_class = LatentSeekConfig
    # The paper's settings by task, model and prompt, as far as they are known.
    presets: ClassVar[dict[str, LatentSeekConfig]] = {
        "gsm8k": LatentSeekConfig(),
        "gsm8k-llama3.1-8b": LatentSeekConfig(verifier=VerifierConfig(format=3.0)),
        "gsm8k-qwen2-7b": LatentSeekConfig(verifier=VerifierConfig(format=2.0)),
        "gsm8k-qwen2.5-1.5b": LatentSeekConfig(ratio=0.05, verifier=VerifierConfig(format=2.0)),
        "gsm8k-qwen2.5-1.5b-json": LatentSeekConfig(lr=10.0),
        "gsm8k-qwen2.5-7b": LatentSeekConfig(lr=0.05),
        "gsm8k-qwen2.5-14b": LatentSeekConfig(ratio=0.1),
        "math": LatentSeekConfig(ratio=0.1, verifier=_MATH),
        "math-llama3.1-8b": LatentSeekConfig(ratio=0.1, verifier=_MATH_EVEN),
        "math-qwen2-7b": LatentSeekConfig(ratio=0.1, verifier=_MATH_EVEN),
        "math-qwen2.5-1.5b-json": LatentSeekConfig(ratio=0.05, verifier=_MATH),
        "aime": LatentSeekConfig(),
        "aime-qwen2.5-1.5b-json": LatentSeekConfig(lr=10.0),
        "official": LatentSeekConfig(ratio=0.1, verifier=_OFFICIAL),
        "psrm": LatentSeekConfig(reward="psrm"),
        "confidence": LatentSeekConfig(reward="confidence"),
        "constant": LatentSeekConfig(reward="constant"),
        "noise": LatentSeekConfig(update="noise"),
    }

    def policy(self, lm: LatentLM, *, acting: bool) -> Policy:
        return Policy(lm, TokenHead(temperature=0.0))

    def seeker(self, policy: Policy, env: Any, seed: int) -> Seeker:
        return LatentSeeker(self.config, policy, env, seed)


class LatentSeeker(Seeker):
    """Searches questions through their latents.

    Args:
        config: settings.
        policy, env, seed: see `Seeker`.
    """

    def __init__(self, config: LatentSeekConfig, policy: Policy, env: Any, seed: int) -> None:
        super().__init__(policy, env, seed)
        self.config = config
        self.latents: dict[int, Latents] = {}

    def attempt(self, searches: Sequence[Search]) -> list[Attempt]:
        known = [self.latents.get(s.index) for s in searches]
        return self.decode(searches, prefix=[[] if z is None else z.prefix() for z in known])

    def changed(self, search: Search) -> int:
        latents = self.latents.get(search.index)
        return 0 if latents is None else latents.changed

    def propose(self, searches: Sequence[Search]) -> set[int]:
        unmoved = [s for s in searches if s.steps < self.config.iterations]
        unmoved = self._with_latents(unmoved)
        changed = set[int]()
        # An answer whose tokens are the same would be the same: go on until one has changed.
        while unmoved:
            for group in self._in_memory(unmoved):
                self._step(group)
            changed |= {s.index for s in unmoved if self.latents[s.index].changed}
            unmoved = [
                s for s in unmoved if s.index not in changed and s.steps < self.config.iterations
            ]
        return changed

    def forget(self, search: Search) -> None:
        self.latents.pop(search.index, None)

    def _with_latents(self, searches: Sequence[Search]) -> list[Search]:
        """Give latents to questions that have none yet; the questions with any."""
        spans = {s.index: self._span(s.tries[0].attempt) for s in searches}
        searches = [s for s in searches if len(spans[s.index])]
        new = [s for s in searches if s.index not in self.latents]
        if not new:
            return searches
        sequences = []
        for search in searches:
            # Of those with latents what was read already, so that it is kept.
            last, stop = search.tries[-1].attempt, spans[search.index].stop
            prefix = last.token_T[: min(stop, last.free())].tolist()
            sequences.append([*self.env.unwrapped.prompt(search.index), *prefix])
        self.prefix_cache.read([s.index for s in searches], sequences)
        for search, fresh in zip(searches, self.prefix_cache.fresh_N, strict=True):
            search.read += int(fresh)
        for search in new:
            span, token_T = spans[search.index], search.tries[0].attempt.token_T
            # The state behind each token's predecessor is the one that it was decoded from.
            z_LD = self.prefix_cache.hidden(search.index)[-len(span) - 1 : -1]
            token_L, before = token_T[span.start : span.stop], token_T[: span.start].tolist()
            self.latents[search.index] = Latents(z_LD, token_L, before, self.config.lr)
        return searches

    def _span(self, first: Attempt) -> range:
        """The steps of the first chain that are searched: before the environment responds in it."""
        c, length = self.config, int(first.own_T.sum())
        start = int(c.start * length)
        return range(start, min(start + min(int(c.ratio * length), c.most), first.free()))

    def _step(self, searches: Sequence[Search]) -> None:
        c, latents = self.config, [self.latents[s.index] for s in searches]
        if c.update == "noise":
            for search, each in zip(searches, latents, strict=True):
                each.scatter(c.sigma, derive(self.seed, 6), search.index, search.steps)
        else:
            reinforce(latents, [s.reward for s in searches], self.lm, c.eps, c.grad_clip)
        tokens = tokens_of(latents, self.lm)
        for search, each, token_L in zip(searches, latents, tokens, strict=True):
            each.move(token_L)
            search.steps += 1
            search.gradients += len(token_L)

    def _in_memory(self, searches: Sequence[Search]) -> Iterator[list[Search]]:
        """The searches in groups whose logits fit in memory."""
        most, rows = self.lm.logits_at_once, 0
        group: list[Search] = []
        for search in searches:
            length = len(self.latents[search.index].token_L)
            if group and rows + length > most:
                yield group
                group, rows = [], 0
            group.append(search)
            rows += length
        yield group
