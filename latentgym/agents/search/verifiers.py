"""Self-reward: the model checks its own answer with four questions (LatentSeek).

Each verifier is asked about one aspect, may reason, and says True or False behind a marker. The
reward is minus the weight of the failed checks over the weight of all (the authors'
`rewards/reward.py`). Question and solution are read once for all four, and of a solution that has
changed only what stands behind the change. The wording is ours; the aspects and weights are theirs.

Legend: N attempts, 4 rows each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from latentgym import heads, rollout
from latentgym.agents.search.attempts import Attempt
from latentgym.agents.search.rewards import RewardSource, Verdict
from latentgym.episodes.protocol import Budget, Protocol, StopMatcher
from latentgym.errors import UsageError
from latentgym.evaluation.accounting import Positions
from latentgym.system.options.ranges import NotNegative, PositiveShare, SizeOrZero
from latentgym.text.tokenizers import require_words

if TYPE_CHECKING:
    from latentgym.lm import LatentLM

MARKER = "FINAL VERIFICATION ANSWER IS:"
VERDICT_TOKENS = 8
# What the four have in common stands first, so that it is read once.
TASK = (
    "Question:\n{question}\n\nProposed solution:\n{solution}\n\nExplain your verdict briefly, then "
    f'write "{MARKER} True" or "{MARKER} False".\n'
)
CHECKS = {
    "calculation": "Is every calculation of the proposed solution right?",
    "correctness": "Is the final answer of the proposed solution right?",
    "completeness": "Does the proposed solution answer all that is asked, with one final answer?",
    "understanding": "Does the proposed solution understand the question and all its conditions?",
}
_WORDS = re.compile(r"true|false", re.IGNORECASE)


@dataclass(frozen=True)
class VerifierConfig:
    """Settings of the self-reward; the weights are the authors'."""

    calculation: NotNegative = 2.0
    """Weight of the check of calculations."""
    correctness: NotNegative = 1.0
    """Weight of the check of the final answer."""
    completeness: NotNegative = 2.0
    """Weight of the check that everything is answered."""
    understanding: NotNegative = 1.0
    """Weight of the check that the question is understood."""
    format: NotNegative = 0.0
    """Subtracted, over the weight of the four, where the answer is not in the form asked for."""
    tokens: SizeOrZero = 512
    """Most tokens of a verifier's reasoning; 0 asks for the verdict at once."""
    forced: bool = True
    """Ask for the verdict when the tokens run out, instead of counting the check as failed."""
    temperature: NotNegative = 0.0
    """Of the verifiers; 0 is greedy. The authors sample, with the model's own settings."""
    top_p: PositiveShare = 1.0
    """Of the verifiers."""
    official_parsing: bool = False
    """Read the verdict as the authors do: behind the last marker of the whole text, the prompt
    included, and with "true" looked for before "false"."""

    def weights(self) -> dict[str, float]:
        """Of the four checks by name."""
        return {name: getattr(self, name) for name in CHECKS}


class SelfReward(RewardSource):
    """Four verifiers, played by the model itself.

    Args:
        lm: the model.
        config: settings.

    Raises:
        UsageError: the model's tokenizer knows no text, or the settings make no sense.
    """

    def __init__(self, lm: LatentLM, config: VerifierConfig) -> None:
        require_words(
            lm.tokenizer, "the self-reward", "choose --reward psrm, confidence or constant"
        )
        weights = config.weights()
        if min(weights.values()) < 0 or sum(weights.values()) <= 0 or config.tokens < 0:
            raise UsageError(
                "the weights and tokens of verifiers cannot be negative, and one weight must be "
                "above 0."
            )
        self.lm, self.config = lm, config
        head = heads.TokenHead(config.temperature, top_p=config.top_p)
        self._engine = rollout.Engine(rollout.Policy(lm, head))
        self._reading = rollout.PrefixCache(lm)
        marker = None if config.official_parsing else StopMatcher(MARKER, lm.tokenizer.pieces())
        self._protocol = Protocol(
            think=Budget(config.tokens),
            answer=Budget(VERDICT_TOKENS),
            marker=marker,
            eos=lm.tokenizer.eos_ids,
            force_answer=config.forced and not config.official_parsing,
            forced_prompt=tuple(lm.tokenizer.encode(f"\n{MARKER}")),
        )

    def __call__(self, attempts: Sequence[Attempt], seed: int) -> list[Verdict]:
        from latentgym.rollout.prefix_cache import common

        asked = [self._prompts(attempt) for attempt in attempts]
        shared = [ids[: min(common(ids, other) for other in rest)] for ids, *rest in asked]
        session = self._engine.start(
            shared,
            self._protocol,
            seed=seed,
            group_size=len(CHECKS),
            question_Q=[attempt.index for attempt in attempts],
            first_sample=np.array([attempt.number * len(CHECKS) for attempt in attempts]),
            prefix_cache=self._reading,
        )
        fresh_N = self._reading.fresh_N
        # Without reasoning the marker stands behind the question at once.
        at_once = [] if self.config.tokens else list(self._protocol.forced_prompt)
        ends = [
            [*prompt[len(begin) :], *at_once]
            for begin, prompts in zip(shared, asked, strict=True)
            for prompt in prompts
        ]
        session.insert(np.arange(len(ends)), ends)
        session.run()
        rollouts = session.finish()
        passed = [
            self._passed(prompt, rollouts, row)
            for row, prompt in enumerate(prompt for prompts in asked for prompt in prompts)
        ]
        drawn_N = rollouts.thoughts_N + rollouts.tokens_N
        cost = np.stack([rollouts.length_N - drawn_N, drawn_N]).reshape(2, -1, len(CHECKS)).sum(-1)
        return [
            self._verdict(
                attempt,
                dict(zip(CHECKS, passed[i * len(CHECKS) :], strict=False)),
                Positions(
                    verifier_prompt=float(fresh_N[i] + cost[0, i]), verifier=float(cost[1, i])
                ),
            )
            for i, attempt in enumerate(attempts)
        ]

    def _prompts(self, attempt: Attempt) -> list[list[int]]:
        """What the four verifiers read; they have the beginning in common."""
        tokenizer = self.lm.tokenizer
        solution = tokenizer.decode(attempt.token_T.tolist())
        task = TASK.format(question=attempt.info["question"], solution=solution)
        return [tokenizer.chat("", f"{task}{check}") for check in CHECKS.values()]

    def _verdict(self, attempt: Attempt, checks: dict[str, bool], cost: Positions) -> Verdict:
        formatted = attempt.info.get("reward/format", 1.0) >= 1.0
        reward = self_reward(checks, self.config, formatted=formatted)
        return Verdict(reward, cost, checks)

    def _passed(self, prompt: list[int], rollouts: rollout.Rollouts, row: int) -> bool:
        decode = self.lm.tokenizer.decode
        if self.config.official_parsing:
            return official_verdict(decode(prompt) + decode(rollouts.action_tokens(row).tolist()))
        # Plain are the tokens behind the marker, and the last one of the marker itself.
        verdict_T = rollouts.token_NT[row][rollouts.kind_NT[row] == rollout.StepKind.TOKEN]
        return verdict(decode(verdict_T.tolist()))


def self_reward(
    checks: Mapping[str, bool], config: VerifierConfig, *, formatted: bool = True
) -> float:
    """Minus the failed weights over all weights of the four checks; the format comes on top."""
    weights = config.weights()
    failed = sum(weight for name, weight in weights.items() if not checks[name])
    missing = 0.0 if formatted else config.format
    return -(failed + missing) / sum(weights.values())


def verdict(answer: str) -> bool:
    """What stands first behind the marker, True or False; neither counts as False."""
    found = _WORDS.search(answer)
    return found is not None and found.group().lower() == "true"


def official_verdict(text: str) -> bool:
    """As the authors read it: behind the text's last marker, "true" before "false"."""
    _, marker, answer = text.lower().rpartition(MARKER.lower())
    return bool(marker) and "true" in answer
