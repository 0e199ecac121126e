"""The record of a rollout: compact actions, enough to replay it exactly.

Legend: N rows, Q prompts, P prompt positions, T steps after the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latentgym.heads import Action

IntArray = npt.NDArray[np.int64]
MOST_STEPS = 64
"""Of how many thoughts of a row, its first ones, anything is kept to look at."""


class StepKind(IntEnum):
    """What stands at a step of a row."""

    PAD = 0
    THOUGHT = 1  # an action of the head, read by `embed`
    TOKEN = 2  # an action read as its plain token: an answer token, or the end of a marker
    INSERTED = 3  # put there by the environment; no action
    PROMPT = 4  # of the prompt, where prompt and steps stand in one sequence
    TARGET = 5  # of the right answer, put there to be scored like a word; no action
    PLAIN = 6  # an action of the head that is read as its plain token, by the head's own choice
    GIVEN = 7  # an embedding put after the prompt, where both stand in one sequence; no action


THOUGHTS = (StepKind.THOUGHT, StepKind.PLAIN)
"""Kinds of the head's actions."""
ACTIONS = (*THOUGHTS, StepKind.TOKEN)
"""Kinds of all actions."""


@dataclass
class Rollouts:
    """N finished rows.

    Attributes:
        prompts: token ids of the Q prompts.
        prompt_N: which prompt each row answers.
        question_N, sample_N: the counters behind each row's randomness.
        token_NT: the token by which each step is read; 0 where there is none.
        kind_NT: `StepKind` of each step.
        actions: the thoughts, tensors of shape (N, T, ...); zeros where no thought is.
        logp_NT: log-probability of each action when it was sampled, of all its parts together, or
            None if not recorded.
        terminated_N, truncated_N: how each episode ended.
        seed: of the rollout.
        discarded: forward positions spent on rows that were done or waited.
        seen: what is kept of thoughts to look at, where the engine was told to, like `actions`:
            `entropy` of the next token where each was thought, nats, (N, T); and of heads that mix
            tokens their heaviest `ids` and `weights`, (N, T, k). Zeros where nothing was kept.
        given_QkD: embeddings that rows read after their prompts, if any were given.
    """

    prompts: list[list[int]]
    prompt_N: IntArray
    question_N: IntArray
    sample_N: IntArray
    token_NT: IntArray
    kind_NT: npt.NDArray[np.int8]
    actions: Action
    logp_NT: Tensor | None
    terminated_N: npt.NDArray[np.bool_]
    truncated_N: npt.NDArray[np.bool_]
    seed: int
    discarded: int = 0
    seen: Action = field(default_factory=dict)
    given_QkD: Tensor | None = None

    def __len__(self) -> int:
        return len(self.prompt_N)

    @property
    def length_N(self) -> IntArray:
        """Steps of each row."""
        return self._count(*ACTIONS, StepKind.INSERTED, StepKind.TARGET)

    @property
    def positions_N(self) -> IntArray:
        """Positions of each row: its prompt, what was given after it, and its steps."""
        prompt_Q = np.array([len(prompt) for prompt in self.prompts], dtype=np.int64)
        given = 0 if self.given_QkD is None else self.given_QkD.shape[1]
        positions: IntArray = prompt_Q[self.prompt_N] + given + self.length_N
        return positions

    @property
    def thoughts_N(self) -> IntArray:
        """Thoughts of each row, those that were read as plain tokens among them."""
        return self._count(*THOUGHTS)

    @property
    def plain_N(self) -> IntArray:
        """Thoughts of each row that the head had read as plain tokens."""
        return self._count(StepKind.PLAIN)

    @property
    def tokens_N(self) -> IntArray:
        """Plain tokens of each row that it chose itself."""
        return self._count(StepKind.TOKEN)

    @property
    def inserted_N(self) -> IntArray:
        """Tokens of each row that the environment put there."""
        return self._count(StepKind.INSERTED)

    def _count(self, *kinds: StepKind) -> IntArray:
        count: IntArray = np.isin(self.kind_NT, kinds).sum(1)
        return count

    def action_tokens(self, row: int) -> IntArray:
        """The tokens of a row's own actions, inserted ones left out: what an env steps through."""
        own = np.isin(self.kind_NT[row], ACTIONS)
        tokens: IntArray = self.token_NT[row][own]
        return tokens

    def tokens(self, row: int) -> IntArray:
        """All tokens of a row behind its prompt."""
        tokens: IntArray = self.token_NT[row][self.kind_NT[row] != StepKind.PAD]
        return tokens

    def select(self, rows: npt.ArrayLike) -> Rollouts:
        """Some of the rows, trimmed to their longest."""
        rows = np.asarray(rows, dtype=np.int64)
        steps = int(self.length_N[rows].max(initial=0))
        used, prompt_N = np.unique(self.prompt_N[rows], return_inverse=True)
        index = torch.from_numpy(rows)
        return Rollouts(
            prompts=[self.prompts[i] for i in used],
            prompt_N=prompt_N.astype(np.int64),
            question_N=self.question_N[rows],
            sample_N=self.sample_N[rows],
            token_NT=self.token_NT[rows, :steps],
            kind_NT=self.kind_NT[rows, :steps],
            actions=_rows(self.actions, index, steps),
            logp_NT=None if self.logp_NT is None else self.logp_NT[index, :steps],
            terminated_N=self.terminated_N[rows],
            truncated_N=self.truncated_N[rows],
            seed=self.seed,
            seen=_rows(self.seen, index, steps),
            given_QkD=None if self.given_QkD is None else self.given_QkD[torch.from_numpy(used)],
        )

    @staticmethod
    def concatenate(parts: Sequence[Rollouts]) -> Rollouts:
        """The rows of all parts, padded to the longest."""
        steps = max(part.token_NT.shape[1] for part in parts)
        offset = np.cumsum([0] + [len(part.prompts) for part in parts[:-1]])

        def wide(name: str) -> npt.NDArray[Any]:
            arrays = [getattr(part, name) for part in parts]
            return np.concatenate([np.pad(a, ((0, 0), (0, steps - a.shape[1]))) for a in arrays])

        def wide_tensor(x: Tensor) -> Tensor:
            missing = steps - x.shape[1]
            return torch.cat([x, x.new_zeros(len(x), missing, *x.shape[2:])], dim=1)

        def wide_tensors(named: Sequence[Action]) -> Action:
            return {x: torch.cat([wide_tensor(part[x]) for part in named]) for x in named[0]}

        def column(name: str) -> npt.NDArray[Any]:
            return np.concatenate([getattr(part, name) for part in parts])

        logps = [p.logp_NT for p in parts if p.logp_NT is not None]
        given = [p.given_QkD for p in parts if p.given_QkD is not None]
        return Rollouts(
            prompts=[prompt for part in parts for prompt in part.prompts],
            prompt_N=np.concatenate([p.prompt_N + o for p, o in zip(parts, offset, strict=True)]),
            question_N=column("question_N"),
            sample_N=column("sample_N"),
            token_NT=wide("token_NT"),
            kind_NT=wide("kind_NT"),
            actions=wide_tensors([part.actions for part in parts]),
            logp_NT=torch.cat([wide_tensor(x) for x in logps])
            if len(logps) == len(parts)
            else None,
            terminated_N=column("terminated_N"),
            truncated_N=column("truncated_N"),
            seed=parts[0].seed,
            discarded=sum(part.discarded for part in parts),
            seen=wide_tensors([part.seen for part in parts]),
            given_QkD=torch.cat(given) if given else None,
        )


def _rows(named: Action, index: Tensor, steps: int) -> Action:
    return {name: value[index.to(value.device), :steps] for name, value in named.items()}
