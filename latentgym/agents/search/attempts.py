"""One attempt at an answer, as a search sees it.

Legend: N attempts, T tokens behind the prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentgym import rollout
from latentgym.evaluation.accounting import Positions
from latentgym.evaluation.answers import hash_of

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Attempt:
    """An answer that was tried.

    Attributes:
        index: number of the question.
        number: of the attempt at this question, from 0.
        info: final info of its episode: answer, parsed, score, status, ...
        token_T: all tokens behind the prompt, those that the environment inserted among them.
        own_T: which of them the policy chose.
        thought_T: which of them are thoughts.
        prefix: how many of the first tokens were given, not decoded.
        log_prob: mean log-probability of the tokens that were decoded; -inf where none was.
        positions: what it cost.
        context: positions of the prompt and of the chain.
        prompt_hash: of the prompt.
        truncated: whether it ran out of budget.
        steps: its thoughts to look at, where they are kept.
    """

    index: int
    number: int
    info: dict[str, Any]
    token_T: IntArray
    own_T: npt.NDArray[np.bool_]
    thought_T: npt.NDArray[np.bool_]
    prefix: int
    log_prob: float
    positions: Positions
    context: int
    prompt_hash: str
    truncated: bool
    steps: Sequence[rollout.Step] = ()

    @property
    def right(self) -> bool:
        """Whether the grader says so."""
        return bool(self.info["score"] >= 1.0)

    def free(self) -> int:
        """How many tokens stand before the first that the environment inserted."""
        return _free(self.own_T)


def attempts_of(
    episodes: rollout.Episodes,
    number_N: Sequence[int],
    *,
    read_N: Sequence[int] | IntArray,
    prefix_N: Sequence[int] | IntArray | None = None,
) -> list[Attempt]:
    """The attempts behind finished episodes, row by row.

    Args:
        episodes: of an engine that records log-probabilities.
        number_N: number of each attempt.
        read_N: positions that were read before each began to decode.
        prefix_N: tokens of each chain that were given, not decoded; none by default. Those that the
            engine left out, behind an end or where the environment responds, are not counted.
    """
    rollouts, found = episodes.rollouts, []
    assert rollouts.logp_NT is not None  # see the argument
    logp_NT = rollouts.logp_NT.numpy()
    for row in range(len(rollouts)):
        kind_T = rollouts.kind_NT[row][: rollouts.length_N[row]]
        own_T = np.isin(kind_T, rollout.ACTIONS)
        prefix = 0 if prefix_N is None else min(int(prefix_N[row]), _free(own_T))
        drawn_T = own_T & (np.arange(len(kind_T)) >= prefix)
        thought_T = np.isin(kind_T, rollout.THOUGHTS)
        plain_T = kind_T == rollout.StepKind.PLAIN
        ids = rollouts.prompts[rollouts.prompt_N[row]]
        logp_T = logp_NT[row, : len(kind_T)][drawn_T]
        found.append(
            Attempt(
                index=int(rollouts.question_N[row]),
                number=number_N[row],
                info=episodes.infos[row],
                token_T=rollouts.tokens(row),
                own_T=own_T,
                thought_T=thought_T,
                prefix=prefix,
                log_prob=float(logp_T.mean()) if drawn_T.any() else -math.inf,
                positions=Positions(
                    prompt=float(read_N[row]),
                    thought=float((thought_T & ~plain_T & drawn_T).sum()),
                    plain=float((plain_T & drawn_T).sum()),
                    answer=float((~thought_T & drawn_T).sum()),
                    discarded=rollouts.discarded / len(rollouts),
                    inserted=float((kind_T == rollout.StepKind.INSERTED).sum()),
                ),
                context=len(ids) + len(kind_T),
                prompt_hash=hash_of(ids),
                truncated=bool(rollouts.truncated_N[row]),
                steps=episodes.steps[row] if episodes.steps else [],
            )
        )
    return found


def _free(own_T: npt.NDArray[np.bool_]) -> int:
    """How many tokens stand before the first that the policy did not choose."""
    return len(own_T) if own_T.all() else int(own_T.argmin())
