"""Agents that search at test time: attempts at a question, each judged, until one is good enough.

A search method says how an attempt is made and what is tried next (`Seeker`). The rest is here:
questions are searched side by side, and one that is done makes room for the next.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from latentgym import rollout
from latentgym.agents.base import Agent
from latentgym.agents.search.attempts import Attempt, attempts_of
from latentgym.agents.search.search import Search, Try
from latentgym.agents.search.sources import check_source, is_oracle, reward_source
from latentgym.agents.search.verifiers import VerifierConfig
from latentgym.evaluation.answers import Answer, Answered
from latentgym.system.options.ranges import Number
from latentgym.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class SearchConfig:
    """What all searches have settings for."""

    reward: str = "self"
    """What judges an answer: self (the model's own verifiers), psrm (the gold answer: an upper
    bound, marked as such), confidence, constant, or module:function of your own."""
    threshold: Number = -0.2
    """An answer whose reward is above it is good enough."""
    keep: Literal["last", "best"] = "last"
    """Answer with the last attempt, or with the first of the greatest reward."""
    verifier: VerifierConfig = field(default_factory=VerifierConfig)

    @property
    def enough(self) -> float:
        """The reward above which a search stops."""
        return self.threshold

    def __post_init__(self) -> None:
        check_source(self.reward)


Config = TypeVar("Config", bound=SearchConfig)


class Seeker(ABC):
    """How one method searches some questions.

    Args:
        policy: that makes attempts.
        env: grades them.
        seed: of all random numbers.

    Attributes:
        engine, prefix_cache: what attempts are made with; the cache keeps what was read of each.
    """

    def __init__(self, policy: rollout.Policy, env: Any, seed: int) -> None:
        self.lm, self.env, self.seed = policy.lm, env, seed
        self.engine = rollout.Engine(policy, record_log_probs=True)
        self.prefix_cache = rollout.PrefixCache(policy.lm)

    @abstractmethod
    def attempt(self, searches: Sequence[Search]) -> list[Attempt]:
        """An attempt at each question."""

    @abstractmethod
    def propose(self, searches: Sequence[Search]) -> set[int]:
        """Take steps; the numbers of the questions that have something new to try then.

        Args:
            searches: those whose last attempt was not good enough.
        """

    def changed(self, search: Search) -> int:
        """How many of a question's searched tokens the last step changed; 0 where none are."""
        return 0

    def forget(self, search: Search) -> None:
        """The search of a question is over."""
        return None

    def decode(
        self,
        searches: Sequence[Search],
        *,
        prompts: Sequence[Sequence[int]] | None = None,
        prefix: Sequence[Sequence[int]] | None = None,
    ) -> list[Attempt]:
        """The next attempt at each question: what the policy says behind a prompt.

        Args:
            searches: of the questions; how many tries there were is the counter behind the random
                numbers.
            prompts, prefix: see `collect`.
        """
        number = np.array([len(s.tries) for s in searches])
        episodes = rollout.collect(
            self.engine,
            self.env,
            [s.index for s in searches],
            seed=self.seed,
            first_sample=number,
            prompts=prompts,
            prefix=prefix,
            prefix_cache=self.prefix_cache,
        )
        return attempts_of(
            episodes,
            number.tolist(),
            read_N=self.prefix_cache.fresh_N,
            prefix_N=None if prefix is None else [len(tokens) for tokens in prefix],
        )


class SearchAgent(Agent[Config]):
    """Base of agents that search at test time.

    Attributes:
        watch: told each try as soon as it is judged, with the tokenizer that reads it.
    """

    families = ("token", "hybrid")
    searches = True
    watch: Callable[[Try, Tokenizer], None] | None = None

    @abstractmethod
    def seeker(self, policy: rollout.Policy, env: Any, seed: int) -> Seeker:
        """What searches questions of an environment."""

    def answering(self) -> Any:
        return self.config  # it only answers

    @property
    def oracle(self) -> bool:
        return is_oracle(self.config.reward)

    def answer(
        self,
        policy: rollout.Policy,
        env: Any,
        questions: npt.NDArray[np.int64],
        seed: int,
        answered: Answered,
    ) -> list[Answer]:
        c, rows = self.config, env.unwrapped.num_envs
        seeker = self.seeker(policy, env, seed)
        seeker.engine = replace(seeker.engine, keep_thoughts=self.keep_thoughts)
        judge = reward_source(c.reward, policy.lm, c.verifier)
        # Questions of like length go together, so that little is padded.
        lengths = [len(env.unwrapped.prompt(int(index))) for index in questions]
        waiting = deque(int(questions[place]) for place in np.argsort(lengths, kind="stable"))
        active: dict[int, Search] = {}
        done: dict[int, Answer] = {}
        while waiting or active:
            new = [waiting.popleft() for _ in range(min(len(waiting), rows - len(active)))]
            active |= {index: Search(index) for index in new}
            searches = list(active.values())
            attempts = seeker.attempt(searches)
            verdicts = judge(attempts, seed)
            for search, attempt, verdict in zip(searches, attempts, verdicts, strict=True):
                changed = seeker.changed(search)
                search.tries.append(Try(search.steps, changed, attempt, verdict))
                if self.watch is not None:
                    self.watch(search.tries[-1], policy.lm.tokenizer)
            going_on = seeker.propose([s for s in searches if s.reward <= c.enough])
            over = [search for search in searches if search.index not in going_on]
            for search in over:
                seeker.forget(active.pop(search.index))
                done[search.index] = self._answer(search, env)
            if over:
                answered([done[search.index] for search in over])
        return [done[int(index)] for index in questions]

    def _answer(self, search: Search, env: Any) -> Answer:
        chosen = len(search.tries) - 1 if self.config.keep == "last" else search.best()
        attempt = search.tries[chosen].attempt
        thoughts, base = attempt.token_T[attempt.thought_T], env.unwrapped
        return Answer(
            index=search.index,
            info=attempt.info,
            thoughts=base.task.tokenizer.decode(thoughts.tolist()),
            positions=search.positions(),
            context=attempt.context,
            samples=(float(attempt.info["score"]),),
            metrics=search.metrics(chosen, self.config.threshold),
            trace=[each.as_dict() for each in search.tries],
            steps=attempt.steps,
            segments=rollout.segments(
                base.protocol,
                base.task.tokenizer.decode,
                attempt.token_T,
                ~attempt.own_T,
                base.task.tool_call_start,
            ),
            truncated=attempt.truncated,
            prompt_hash=attempt.prompt_hash,
        )
