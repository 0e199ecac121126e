"""Dynamic sampling of DAPO (arXiv 2503.14476, section 3.2): groups without spread are drawn again.

Where all episodes of a question earn the same, none has an advantage, and the more a policy has
learnt the smaller is the part of a batch that it still learns from. So other questions are asked in
the place of these, until every group has a spread of rewards, or a bound is reached; then groups
without spread fill the places that are left, so that a batch has its size.

Legend: Q questions, G samples each, N = Q * G rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentgym.rollout import Episodes
from latentgym.rollout.rollouts import IntArray


@dataclass(frozen=True)
class Batch:
    """The episodes of a step.

    Attributes:
        kept: what is learnt from, Q groups in the order in which they were drawn.
        drawn: all of them, those that were put aside too.
        again: groups that were drawn in the place of others; None where none could have been.
    """

    kept: Episodes
    drawn: Episodes
    again: int | None = None


def spread(reward_N: npt.NDArray[np.float64], group_size: int) -> npt.NDArray[np.bool_]:
    """Which groups have rewards that differ, bool (Q,)."""
    reward_QG = reward_N.reshape(-1, group_size)
    differ: npt.NDArray[np.bool_] = reward_QG.max(1) > reward_QG.min(1)
    return differ


def with_spread(
    draw: Callable[[IntArray], Episodes],
    teaches: Callable[[Episodes], npt.NDArray[np.bool_]],
    questions: IntArray,
    others: IntArray,
    rollouts: int,
) -> Batch:
    """Episodes of as many questions as are asked, whose groups teach something if they can be had.

    Args:
        draw: the episodes of some questions, those of each next to each other.
        teaches: which of the groups of episodes do, bool (Q,).
        questions: that are asked first, (Q,).
        others: that are asked in the place of those whose groups do not, in this order.
        rollouts: further ones at most; each draws as many groups as are missing.
    """
    drawn = [draw(questions)]
    teaches_Q = teaches(drawn[0])
    for _ in range(rollouts):
        asked = others[: len(questions) - int(teaches_Q.sum())]
        if not len(asked):
            break
        others = others[len(asked) :]
        drawn.append(draw(asked))
        teaches_Q = np.concatenate([teaches_Q, teaches(drawn[-1])])
    if len(drawn) == 1:
        return Batch(drawn[0], drawn[0], 0 if rollouts else None)
    every = Episodes.concatenate(drawn)
    group_size = len(every.rollouts) // len(teaches_Q)
    # Those that teach come first, and of the others those that were drawn first.
    chosen_Q = np.sort(np.argsort(~teaches_Q, kind="stable")[: len(questions)])
    rows = chosen_Q[:, None] * group_size + np.arange(group_size)
    return Batch(every.select(rows.ravel()), every, len(teaches_Q) - len(questions))
