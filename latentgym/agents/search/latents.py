"""The search through latents: what LatentSeek moves, and by which gradient.

Questions are searched side by side. What a step leaves as it was is neither decoded nor judged
again, the cache is kept up to the first changed token, and a question that is done makes room for
the next.

Legend: L searched positions, M those of several questions, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latentgym.agents.search.agent import Seeker
from latentgym.agents.search.attempts import Attempt
from latentgym.agents.search.search import Search
from latentgym.episodes.rng import derive
from latentgym.heads.rng import CounterRNG
from latentgym.lm import LatentLM
from latentgym.rollout import Policy

if TYPE_CHECKING:
    from latentgym.agents.latentseek import LatentSeekConfig


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
        noise_LD = CounterRNG.at(seed, *counters).normal(width).to(self.origin_LD)
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
        """The steps of the first chain that are searched: before the environment speaks in it."""
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
