"""LatentSeek as a reader of the paper would write it, and as its authors did: the peer of ours.

One question at a time. Every new token is a pass of the transformer over the whole prompt and
chain; there is no cache. After each step all tokens are decoded again and judged again, changed or
not. The four verifiers are asked one after another; they may keep transformers' own cache, as those
of the authors do (`model.generate`).

Prompts, rules of an episode, grading, the wording of verifiers and the weights of their verdicts
are ours, so that the answers can be compared token by token. Decoding and search share nothing with
`latentgym.rollout` and `latentgym.agents`, but the settings. Gradient updates and greedy verifiers
only.

Legend: L searched positions, D width, V vocabulary.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from latentgym.agents.search import verifiers
from latentgym.lm import LatentLM


@dataclass
class Chain:
    """An attempt at an answer.

    Attributes:
        tokens: all that stand behind the prompt.
        own: how many of them the model chose.
        states: last hidden states, each (D,), from which tokens were decoded; only of those that
            stand before the first that the environment inserted.
        log_probs: of the tokens that were decoded.
        info: final info of the episode.
        reward: how good the answer is.
    """

    tokens: list[int] = field(default_factory=list)
    own: int = 0
    states: list[Tensor] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)
    reward: float = 0.0


class PlainLatentSeek:
    """Searches one question after another.

    Args:
        lm: the model.
        env: a single environment.
        config: settings of the search, those of the agent `latentseek`.
        cached_verifiers: let verifiers keep what they have read.

    Attributes:
        positions: forward positions so far.
    """

    def __init__(
        self, lm: LatentLM, env: Any, config: Any, *, cached_verifiers: bool = False
    ) -> None:
        self.lm, self.env, self.config = lm, env.unwrapped, config
        self.cached_verifiers = cached_verifiers
        self.positions = 0
        self._rewards = {
            "psrm": lambda chain: 0.0 if chain.info["score"] >= 1.0 else -1.0,
            "constant": lambda chain: -1.0,
            "confidence": lambda chain: math.expm1(_mean(chain.log_probs)),
            "self": self._self_reward,
        }

    def search(self, index: int) -> list[Chain]:
        """The first answer to a question, and the one after each step."""
        c = self.config
        chains = [self._attempt(index, [])]
        first = chains[0]
        start = int(c.start * first.own)
        end = min(start + min(int(c.ratio * first.own), c.most), len(first.states))
        if start >= end:
            return chains
        z_LD = torch.stack(first.states[start:end]).float().requires_grad_()
        adam = torch.optim.Adam([z_LD], c.lr)
        for _ in range(c.iterations):
            reward = chains[-1].reward
            if reward > c.threshold:
                break
            p_L = self.lm.logits(z_LD.to(self.lm.dtype)).softmax(-1).max(-1).values
            loss = -reward * (p_L + c.eps).log().sum()
            (z_LD.grad,) = torch.autograd.grad(loss, z_LD)
            if c.grad_clip:
                torch.nn.utils.clip_grad_norm_([z_LD], c.grad_clip)
            adam.step()
            with torch.no_grad():
                token_L = self.lm.logits(z_LD.to(self.lm.dtype)).argmax(-1)
            chains.append(self._attempt(index, [*first.tokens[:start], *token_L.tolist()]))
        return chains

    def answer(self, chains: list[Chain]) -> Chain:
        """Which of a question's attempts is its answer."""
        return chains[-1] if self.config.keep == "last" else max(chains, key=lambda c: c.reward)

    @torch.no_grad()
    def _attempt(self, index: int, prefix: list[int]) -> Chain:
        """Answer greedily behind the first tokens, and judge."""
        chain, prompt, given = Chain(), self.env.prompt(index), deque(prefix)
        observation, _ = self.env.reset(options={"index": index})
        answering, over = False, False
        while not over:
            if n := int(observation["inserted_length"]):
                chain.tokens += observation["inserted"][:n].tolist()
                answering = True
                given.clear()
            if given:
                token = given.popleft()
            else:
                state_D = self._read([*prompt, *chain.tokens])
                logits_V = self.lm.logits(state_D)
                token = int(logits_V.argmax())
                chain.log_probs.append(float(logits_V.log_softmax(-1)[token]))
                if not answering:
                    chain.states.append(state_D)
            chain.tokens.append(token)
            chain.own += 1
            observation, _, terminated, truncated, chain.info = self.env.step(token)
            over = terminated or truncated
        chain.reward = self._rewards[self.config.reward](chain)
        return chain

    def _read(self, ids: list[int], cache: DynamicCache | None = None) -> Tensor:
        """The last hidden state behind some tokens, (D,); with a cache, reads what it lacks."""
        new = ids[0 if cache is None else cache.get_seq_length() :]
        self.positions += len(new)
        x_1TD = self.lm.embed(torch.tensor([new], device=self.lm.device))
        mask_1T = torch.ones(1, len(ids), dtype=torch.bool, device=self.lm.device)
        return self.lm.hidden(x_1TD, mask_1T, cache)[0, -1]

    def _self_reward(self, chain: Chain) -> float:
        tokenizer = self.lm.tokenizer
        solution = tokenizer.decode(chain.tokens)
        task = verifiers.TASK.format(question=chain.info["question"], solution=solution)
        checks = {
            name: self._passes(tokenizer.chat("", f"{task}{check}"))
            for name, check in verifiers.CHECKS.items()
        }
        formatted = chain.info.get("reward/format", 1.0) >= 1.0
        return verifiers.self_reward(checks, self.config.verifier, formatted=formatted)

    def _passes(self, prompt: list[int]) -> bool:
        """What one verifier says."""
        settings, tokenizer = self.config.verifier, self.lm.tokenizer
        ids, cache = list(prompt), DynamicCache() if self.cached_verifiers else None

        def write() -> int:
            ids.append(int(self.lm.logits(self._read(ids, cache)).argmax()))
            return ids[-1]

        marked = False
        for _ in range(settings.tokens):
            ended = write() == tokenizer.eos_id
            marked = verifiers.MARKER in tokenizer.decode(ids[len(prompt) :])
            if ended or marked:
                break
        if settings.tokens and not (marked or settings.forced):
            return False
        verdict = ids[-1:] if marked else []
        if not marked:
            ids += tokenizer.encode(f"\n{verifiers.MARKER}")
        for _ in range(verifiers.VERDICT_TOKENS):
            verdict.append(write())
            if verdict[-1] == tokenizer.eos_id:
                break
        return verifiers.verdict(tokenizer.decode(verdict))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else -math.inf
