"""What becomes of episodes that were cut off: nothing, no loss, or a reward that falls with length.

An episode is cut off, `truncated`, where a budget runs out in the middle of something: that of the
answer, or that of thoughts where no answer is forced. What it earns then tells of the budget, not
of the thoughts. DAPO (arXiv 2503.14476, section 3.4) leaves such episodes out of the loss, or takes
from their reward softly (equation 13), the more the nearer an episode came to being cut off:

    0                            if buffer <= left
    (left - buffer) / buffer     if 0 <= left < buffer       -1 where nothing was left

where `left` is how many actions more there was room for, L_max - |y| in the paper. A budget that
cannot cut off, such as that of thoughts before a forced answer, does not count.

Legend: N rows.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from latentgym.episodes.protocol import Protocol
from latentgym.rollout import Episodes, Rollouts
from latentgym.rollout.rollouts import IntArray
from latentgym.rollout.states import states

COMPONENT = "reward/overlong"


def overlong_penalty(left_N: IntArray, buffer: int) -> npt.NDArray[np.float64]:
    """What is added to rewards, from -1 to 0; float64 (N,).

    Args:
        left_N: how many more actions there was room for.
        buffer: of how many the last ones cost; at least 1.
    """
    penalty: npt.NDArray[np.float64] = np.clip((left_N - buffer) / buffer, -1.0, 0.0)
    return penalty


def actions_left(protocol: Protocol, rollouts: Rollouts) -> IntArray:
    """How many more actions each row had room for before it would have been cut off, (N,).

    Args:
        protocol: that the rows kept to; some budget of it can cut off.
        rollouts: N rows.
    """
    *_, last = states(protocol, rollouts)
    used = {"think": last.think_used, "answer": last.answer_used}
    left: IntArray = np.min([steps - used[name] for name, steps in protocol.cutting.items()], 0)
    return left


def penalised(episodes: Episodes, buffer: int) -> Episodes:
    """Episodes whose rewards are less where they came near to being cut off.

    Args:
        episodes: of an environment; infos get what was added, as `reward/overlong`.
        buffer: see `overlong_penalty`; 0 takes one from those that were cut off, and from no other.
    """
    if buffer:
        assert episodes.protocol is not None  # thoughts alone are not cut off
        penalty_N = overlong_penalty(actions_left(episodes.protocol, episodes.rollouts), buffer)
    else:
        penalty_N = -episodes.rollouts.truncated_N.astype(np.float64)
    pairs = zip(episodes.infos, penalty_N.tolist(), strict=True)
    infos = [{**info, COMPONENT: penalty} for info, penalty in pairs]
    return replace(episodes, reward_N=episodes.reward_N + penalty_N, infos=infos)
