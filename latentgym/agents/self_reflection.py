"""Self-reflection: the model reads its own answer again and improves it, in text.

A rival of LatentSeek at test time (arXiv 2505.13308 v2, table 1). The conversation goes on with a
request to look for mistakes and answer anew; the wording is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from latentgym import heads, rollout
from latentgym.agents.search import Attempt, Search, SearchAgent, SearchConfig, Seeker
from latentgym.errors import UsageError
from latentgym.system.options.ranges import Interval
from latentgym.text.tokenizers import require_words

if TYPE_CHECKING:
    from latentgym.lm import LatentLM

REQUEST = (
    "Look for mistakes in your answer. Then solve the problem again, without them, and give the "
    "final answer in the same form as before."
)


@dataclass(frozen=True)
class SelfReflectionConfig(SearchConfig):
    """Settings of self-reflection."""

    reward: str = "constant"
    """What decides that an answer is good enough: constant (nothing does, all rounds are made),
    self, psrm (the gold answer: an upper bound, marked as such), confidence, or module:function."""
    rounds: Interval = 1
    """Most second thoughts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds < 0:
            raise UsageError("the rounds of self-reflection cannot be below 0.")


class SelfReflection(SearchAgent[SelfReflectionConfig]):
    """Answers, and asks itself to improve on it."""

    name = "self-reflection"
    config_class = SelfReflectionConfig
    presets: ClassVar[dict[str, SelfReflectionConfig]] = {"paper": SelfReflectionConfig()}

    def policy(self, lm: LatentLM, *, acting: bool) -> rollout.Policy:
        return rollout.Policy(lm, heads.TokenHead(temperature=0.0))

    def seeker(self, policy: rollout.Policy, env: Any, seed: int) -> Seeker:
        return ReflectingSeeker(self.config.rounds, policy, env, seed)


class ReflectingSeeker(Seeker):
    """Goes on with the conversation about each question.

    Args:
        rounds: most second thoughts.
        policy, env, seed: see `Seeker`.

    Attributes:
        talk: the conversation about each question so far, token ids.

    Raises:
        UsageError: the model's vocabulary has no text, or a conversation becomes too long for it.
    """

    def __init__(self, rounds: int, policy: rollout.Policy, env: Any, seed: int) -> None:
        super().__init__(policy, env, seed)
        require_words(
            self.lm.tokenizer, "self-reflection", "choose a language model or another agent"
        )
        self.rounds = rounds
        self.talk: dict[int, list[int]] = {}

    def attempt(self, searches: Sequence[Search]) -> list[Attempt]:
        for search in searches:
            self.talk.setdefault(search.index, list(self.env.unwrapped.prompt(search.index)))
        self._require_room(searches)
        return self.decode(searches, prompts=[self.talk[s.index] for s in searches])

    def _require_room(self, searches: Sequence[Search]) -> None:
        """Raise `UsageError` where the model cannot read a conversation and answer once more."""
        limit, steps = self.lm.max_positions, self.env.unwrapped.protocol.max_steps
        longest = max(searches, key=lambda search: len(self.talk[search.index]))
        needed = len(self.talk[longest.index]) + steps
        if limit is not None and longest.steps and needed > limit:
            raise UsageError(
                f"after {longest.steps} rounds a conversation and its answer may take {needed} "
                f"positions, but the model has {limit}; lower --rounds or the budgets."
            )

    def propose(self, searches: Sequence[Search]) -> set[int]:
        going_on = [s for s in searches if s.steps < self.rounds]
        tokenizer = self.lm.tokenizer
        for search in going_on:
            answer = search.tries[-1].attempt.token_T.tolist()
            # The conversation closes it in its own way.
            if answer and answer[-1] in tokenizer.eos_ids:
                answer.pop()
            self.talk[search.index] += [*answer, *tokenizer.follow_up(REQUEST)]
            search.steps += 1
        return {s.index for s in going_on}

    def forget(self, search: Search) -> None:
        del self.talk[search.index]
