"""Settings of group-relative policy optimisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from latentgym.errors import UsageError, did_you_mean
from latentgym.system.options.ranges import (
    Interval,
    NotNegative,
    Share,
    Size,
    SizeOrZero,
    check_ranges,
    check_rows,
)
from latentgym.training.rewards import load_rewards
from latentgym.training.stage import MakeEnv

if TYPE_CHECKING:
    from latentgym.episodes.protocol import Protocol
    from latentgym.rollout import Policy
    from latentgym.training.grpo import GRPO
    from latentgym.training.rewards import Rewards

CLEAN = "clean_batch"
"""The advantage estimator for which each group's first sample thinks without noise."""

ADVANTAGES: Mapping[str, str] = {
    "group_norm": "(r - mean) / (sample std + 1e-9), GRPO as in OpenRLHF",
    "group_norm_trl": "(r - mean) / (sample std + 1e-4), as in TRL and HRPO",
    "group_norm_population": "with the population std, floored at 1e-12, as in CoT2's code",
    "dr_grpo": "r - mean",
    "rloo": "r - mean of the others",
    "batch": "r - mean of the batch, over its norm",
    CLEAN: "r - mean of the groups' first samples, without noise, over its norm, as in LatentR3",
}
"""Advantage estimators, (Q, G) rewards r to (Q, G) advantages: names and what they compute."""

OVER_BATCHES = ("batch", CLEAN)
"""Those that compare episodes beyond their group."""

KL_ESTIMATORS: Mapping[str, str] = {
    "k1": "log r",
    "k2": "(log r)^2 / 2",
    "k3": "1 / r - 1 + log r",
}
"""Estimators of KL(policy || reference) from r = policy / reference (Schulman, 2020)."""

MEANS: Mapping[str, str] = {
    "token": "over all actions of a step alike",
    "sequence": "over the actions of each row, then over rows",
    "phase": "over each row's thoughts and over its answer apart, added up, then over rows",
    "sum": "each row's sum, then over rows",
}
"""How the losses of actions become one: names and what they mean."""


DUAL = 3.0
"""Of `dual_clip`, how many times the advantage a loss may be."""

LOSSES: Mapping[str, str] = {
    "clip": "PPO's, each action's ratio within the two bounds",
    "dual_clip": f"the same, at most {DUAL:g} times a negative advantage",
    "gspo": "one ratio a row, the geometric mean of those of its actions",
    "cispo": "log-probabilities weighted by ratios that are cut off above, none left out",
}
"""What a policy gradient minimises: names and what they are, in `training.surrogates`."""


KEEP, MASK, PENALTY = TRUNCATED = ("keep", "mask", "penalty")
"""What becomes of episodes that were cut off, see `training.overlong`."""


def check_advantage(kind: str) -> None:
    """Raise `UsageError` if there is no advantage estimator of that name."""
    if kind not in ADVANTAGES:
        raise UsageError(f"no advantage estimator {kind!r}; {did_you_mean(kind, ADVANTAGES)}")


@dataclass(frozen=True)
class GRPOConfig:
    """Settings of the policy gradient."""

    prompts: Size = 16
    """Questions per step."""
    group_size: Size = 8
    """Episodes per question."""
    updates: Size = 1
    """Passes over each rollout; each takes one optimiser step per mini-batch."""
    mini_batches: Size = 1
    """Optimiser steps per pass."""
    micro_batch: Size = 64
    """Most rows replayed at once."""
    micro_tokens: SizeOrZero = 0
    """Most positions replayed at once, padding among them; 0 for as many as the rows have."""
    advantage: str = "group_norm"
    """Estimator: group_norm, group_norm_trl, group_norm_population, dr_grpo, rloo or batch."""
    dynamic_sampling: SizeOrZero = 0
    """Most further rollouts of a step, of other questions in the place of those whose episodes all
    earned the same (DAPO); 0 learns from what was drawn first."""
    truncated: Literal["keep", "mask", "penalty"] = "keep"
    """Episodes that a budget cut off: learn from them as from others (keep), leave them out of the
    loss (mask), or take from the reward of all that came near to it (penalty)."""
    overlong_buffer: SizeOrZero = 0
    """With penalty: over so many actions before a budget runs out, reward falls by up to 1; with 0
    by 1 where one ran out."""
    loss: str = "clip"
    """clip (PPO), dual_clip, gspo (one ratio a row) or cispo."""
    clip_low: Share = 0.2
    """How far a ratio may fall below one."""
    clip_high: NotNegative = 0.2
    """How far a ratio may rise above one."""
    kl: NotNegative = 0.0
    """Weight of the divergence from the starting policy; 0 keeps no reference."""
    kl_estimator: str = "k3"
    """k1, k2 or k3."""
    kl_in: Literal["loss", "reward"] = "loss"
    """Where it counts: at each action, with a gradient of its own; or summed up over an episode and
    taken from what that earns, before advantages."""
    reference_every: Interval = 0
    """Steps after which divergence is measured from the policy as it then is; 0 measures it from
    the starting policy to the end."""
    entropy: NotNegative = 0.0
    """Weight of a bonus on the entropy of what actions are drawn from; none for noise of a fixed
    size."""
    reward: Literal["task", "perplexity"] = "task"
    """Of whole episodes, from the task's grader; or of chains of thought alone, minus the
    perplexity of the right answer behind them. What is learnt then are the thoughts."""
    rewards: Annotated[
        tyro.conf.UseAppendAction[list[str]], tyro.conf.arg(aliases=["--reward"])
    ] = field(default_factory=list)
    """Reward functions of your own with TRL's calling convention, each module:function or
    module:function=WEIGHT, in the place of the task's reward; task=WEIGHT adds that."""
    completions: Literal["text", "messages"] = "text"
    """In which form they get prompts and completions: as text, or as chat messages, as TRL has them
    for conversational data."""
    mean: str = "token"
    """Average over all actions alike (token), over the actions of each row and then over rows
    (sequence), thoughts and answer of a row apart (phase), or no average within a row (sum)."""
    rollout_dtype: Annotated[
        Literal["bfloat16"] | None, tyro.conf.arg(aliases=["--rollout-dtype"])
    ] = None
    """Roll out with weights rounded to bfloat16, and weight actions by how much likelier the policy
    itself makes them, at most by 2; by default rollouts compute as replays do."""

    def validate(self) -> None:
        """Raise `UsageError` for settings that cannot work."""
        check_ranges(self, "grpo.")
        if self.group_size < 2:
            raise UsageError("--grpo.group-size must be at least 2: one row has no advantage.")
        check_rows(self.rows)
        if self.rows % self.mini_batches:
            raise UsageError(
                f"--grpo.mini-batches is {self.mini_batches}, which does not divide the "
                f"{self.rows} rows of a step."
            )
        if self.reward not in ("task", "perplexity"):
            raise UsageError(f"no reward {self.reward!r}; choose task or perplexity.")
        if self.rewards and self.reward != "task":
            raise UsageError(self.whole_episodes)
        if self.completions not in ("text", "messages"):
            raise UsageError(f"completions are text or messages, not {self.completions!r}.")
        load_rewards(self.rewards)
        check_advantage(self.advantage)
        if self.dynamic_sampling and self.advantage in OVER_BATCHES:
            raise UsageError(
                f"--grpo.dynamic-sampling leaves out groups whose episodes earn the same, and with "
                f"--grpo.advantage {self.advantage} these teach like the others; choose an "
                "advantage within groups, such as group_norm, or leave --grpo.dynamic-sampling out."
            )
        if self.truncated not in TRUNCATED:
            known = did_you_mean(self.truncated, TRUNCATED)
            raise UsageError(f"nothing is called --grpo.truncated {self.truncated}; {known}")
        if self.truncated != KEEP and self.reward != "task":
            raise UsageError(
                f"--grpo.truncated {self.truncated} is for whole episodes, and --grpo.reward "
                f"{self.reward} has thoughts alone, which are not cut off; leave one of them out."
            )
        if self.overlong_buffer and self.truncated != PENALTY:
            raise UsageError(
                "--grpo.overlong-buffer goes with --grpo.truncated penalty; add it, or leave "
                "--grpo.overlong-buffer out."
            )
        if self.loss not in LOSSES:
            raise UsageError(f"no loss {self.loss!r}; {did_you_mean(self.loss, LOSSES)}")
        if self.kl_estimator not in KL_ESTIMATORS:
            known = did_you_mean(self.kl_estimator, KL_ESTIMATORS)
            raise UsageError(f"no KL estimator {self.kl_estimator!r}; {known}")
        if self.kl_in not in ("loss", "reward"):
            raise UsageError(f"divergence is in the loss or the reward, not in {self.kl_in!r}.")
        for name, given in (
            ("kl-in reward", self.kl_in == "reward"),
            ("reference-every", self.reference_every),
        ):
            if given and not self.kl:
                raise UsageError(
                    f"--grpo.{name} goes with a divergence that counts; give --grpo.kl above 0, or "
                    f"leave it out."
                )
        if self.mean not in MEANS:
            raise UsageError(f"no mean {self.mean!r}; {did_you_mean(self.mean, MEANS)}")
        if self.rollout_dtype not in (None, "bfloat16"):
            raise UsageError(
                f"rollouts cannot be in {self.rollout_dtype}; choose bfloat16, or leave it out."
            )

    def check_budgets(self, protocol: Protocol) -> None:
        """Make sure that what is said of truncated episodes fits the rules of an environment.

        Raises:
            UsageError: no episode can be cut off, or the buffer is longer than what cuts off.
        """
        if self.truncated == KEEP:
            return
        if not protocol.cutting:
            raise UsageError(
                "no budget of this environment cuts an episode off, so none is truncated; leave "
                f"out --grpo.truncated {self.truncated}."
            )
        name, steps = min(protocol.cutting.items(), key=lambda budget: budget[1])
        if self.overlong_buffer > steps:
            raise UsageError(
                f"--grpo.overlong-buffer {self.overlong_buffer} is more than the budget {name} of "
                f"{steps} steps; give at most {steps}."
            )

    @property
    def whole_episodes(self) -> str:
        """Why reward functions do not go with these settings, where they do not."""
        return (
            f"reward functions are for whole episodes, and --grpo.reward {self.reward} has "
            "thoughts alone; leave one of them out."
        )

    @property
    def rows(self) -> int:
        """Episodes per step."""
        return self.prompts * self.group_size

    def build(
        self, policy: Policy, make_env: MakeEnv, seed: int, *, rewards: Rewards | None = None
    ) -> GRPO:
        """The stage that trains this policy; with rewards in the place of those named here."""
        from latentgym.training.grpo import GRPO

        return GRPO(policy, make_env(self.rows), self, seed, rewards=rewards)
