"""The rollout engine: batched decoding of tokens and thoughts behind one cache.

One cache carries a row from its prompt through its thoughts into its answer. Each distinct prompt
is read once for its whole group; the base model runs on the newest position only; markers are
matched on ids; finished rows are compacted away; every draw is a function of (seed, question,
sample, step). The episode's rules come from the environment as a `Protocol`.

Legend: Q prompts, G rows per prompt, N rows in all, B rows still in the batch, D width, k
embeddings given after a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentgym.episodes.protocol import Protocol
from latentgym.errors import UsageError
from latentgym.rollout.policy import Policy
from latentgym.rollout.prefix_cache import PrefixCache
from latentgym.rollout.rollouts import IntArray, Rollouts
from latentgym.rollout.session import Session
from latentgym.text.lengths import SHORTER

_LOOK_EVERY = 8


@dataclass(frozen=True)
class Engine:
    """Settings of the rollout; none of them changes its result.

    Attributes:
        policy: what is rolled out.
        share_prompts: read each prompt once for its group, not once per row.
        compact_every: drop finished rows every so many steps; 0 keeps them to the end.
        record_log_probs: keep the log-probability of each action as it was sampled.
        look_every: the host looks every so many steps whether any row goes on, and waits for the
            device then; 0 looks at each step on a CPU, which costs nothing, and at every eighth
            elsewhere.
        compile: decode with steps that `torch.compile` has taken as a whole; None does so where
            the model is set to (`LatentLM.compiled`). Compiling takes a minute or so for each
            number of rows and capacity of the cache; it is for GPUs.
        keep_thoughts: keep so many of the heaviest tokens of a thought to look at, of the first
            `MOST_STEPS` thoughts of a row; 0 keeps none.

    Raises:
        UsageError: a number below 0.
    """

    policy: Policy
    share_prompts: bool = True
    compact_every: int = 8
    record_log_probs: bool = False
    look_every: int = 0
    compile: bool | None = None
    keep_thoughts: int = 0

    def __post_init__(self) -> None:
        for name in ("compact_every", "look_every", "keep_thoughts"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is a number from 0 on, not {getattr(self, name)}.")

    def steps_between_looks(self, device: torch.device) -> int:
        """How many steps are made before the host looks at them."""
        waits = device.type != "cpu" or self.compiled
        return self.look_every or (_LOOK_EVERY if waits else 1)

    @property
    def compiled(self) -> bool:
        """Whether steps are compiled."""
        return self.policy.lm.compiled if self.compile is None else self.compile

    def start(
        self,
        prompts: Sequence[Sequence[int]],
        protocol: Protocol,
        *,
        seed: int,
        group_size: int = 1,
        question_Q: Sequence[int] | IntArray | None = None,
        first_sample: int | IntArray = 0,
        prefix: Sequence[Sequence[int]] | None = None,
        prefix_cache: PrefixCache | None = None,
        noise_free: int = 0,
        given_QkD: Tensor | None = None,
    ) -> Session:
        """Begin rollouts; `Session.run` takes them to where the environment must respond.

        Args:
            prompts: token ids of the Q prompts; the policy's prompt suffix is read behind each.
            protocol: the rules of the episode.
            seed: of all random numbers.
            group_size: rows per prompt, G.
            question_Q: number of each question, the counter behind its random numbers; default
                0 .. Q-1.
            first_sample: number of the first of the G samples, one for all questions or (Q,).
            prefix: the first actions of every row of a prompt, given instead of sampled: token ids,
                for each of the Q prompts. What stands behind the end of an episode, or behind the
                point where the environment responds, is left out. For thoughts in tokens only.
            prefix_cache: reads the prompts, known by their question, and their prefix; it may have
                read some of it before.
            noise_free: samples of a lower number think without Gaussian noise.
            given_QkD: k input embeddings that all rows of a prompt read after it, such as latents
                that are searched for at test time. They are no actions, and take no budget.

        Raises:
            UsageError: steps are to be compiled of a model whose blocks are not known; no prompts,
                an empty one, one too long for the model's positions, a prefix
                of latent thoughts, or given embeddings that do not fit the prompts or the model.
        """
        if self.compiled and not self.policy.lm.lean:
            raise UsageError(
                f"steps are compiled of models with the blocks of Llama or Qwen2, and "
                f"{self.policy.lm.architecture} has others; leave compile out."
            )
        lists = [[*map(int, prompt), *self.policy.prompt_suffix] for prompt in prompts]
        if not lists or not all(lists):
            raise UsageError("a rollout needs at least one prompt, and every prompt a token.")
        given = 0 if given_QkD is None else self._given(given_QkD, len(lists), prefix_cache)
        self.check_room(max(map(len, lists)), protocol, given)
        if prefix is not None and not self.policy.thinks_in_tokens:
            raise UsageError(
                "only thoughts in tokens can have a prefix; these thoughts are latent."
            )
        question = np.arange(len(lists)) if question_Q is None else np.asarray(question_Q)
        session = Session(
            self, lists, protocol, seed, group_size, question, first_sample, noise_free, given_QkD
        )
        session.begin(prefix, prefix_cache)
        return session

    def check_room(self, longest: int, protocol: Protocol, given: int = 0) -> None:
        """Make sure that the model has positions for a rollout.

        Args:
            longest: tokens of the longest prompt, with the policy's suffix.
            protocol: whose budgets there is to be room for.
            given: embeddings that are read after each prompt.

        Raises:
            UsageError: it has not.
        """
        limit = self.policy.lm.max_positions
        if limit is not None and longest + given + protocol.max_steps > limit:
            vectors = f", {given} vectors" if given else ""
            fewer = ", or give fewer vectors" if given else ""
            raise UsageError(
                f"a prompt of {longest} tokens{vectors} and {protocol.max_steps} steps do not fit "
                f"the model's {limit} positions; {SHORTER}{fewer}."
            )

    def _given(self, given_QkD: Tensor, prompts: int, prefix_cache: PrefixCache | None) -> int:
        """How many embeddings are given to each prompt.

        Raises:
            UsageError: they do not fit, or would have to be in a prefix cache.
        """
        fits = given_QkD.dim() == 3 and len(given_QkD) == prompts
        if not fits or given_QkD.shape[2] != self.policy.lm.hidden_size:
            raise UsageError(
                f"embeddings that are given after {prompts} prompts are ({prompts}, k, "
                f"{self.policy.lm.hidden_size}), not {tuple(given_QkD.shape)}."
            )
        if prefix_cache is not None:
            raise UsageError(
                "a prefix cache knows tokens alone; give embeddings or a cache, not both."
            )
        return int(given_QkD.shape[1])

    def rollout(
        self,
        prompts: Sequence[Sequence[int]],
        protocol: Protocol,
        *,
        seed: int,
        group_size: int = 1,
        question_Q: Sequence[int] | IntArray | None = None,
        first_sample: int = 0,
        given_QkD: Tensor | None = None,
    ) -> Rollouts:
        """Whole episodes in which the environment never speaks in between; see `start`."""
        session = self.start(
            prompts,
            protocol,
            seed=seed,
            group_size=group_size,
            question_Q=question_Q,
            first_sample=first_sample,
            given_QkD=given_QkD,
        )
        session.run()
        return session.finish()
