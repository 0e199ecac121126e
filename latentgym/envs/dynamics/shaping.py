"""A reward for thoughts that make the right answer likelier. It looks at gold, and says so.

The potential of a state is the mean log-probability of the tokens of the right answer, read behind
what opens an answer; a thought is given the difference that it makes. So the sum over an episode
depends on its first and last state alone (Ng, Harada and Russell 1999).

Legend: N rows, B of them that think.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from latentgym.envs.episodes import LiveEpisodes
from latentgym.envs.task import Task
from latentgym.envs.vector import IntArray
from latentgym.episodes.protocol import Phase
from latentgym.errors import UsageError
from latentgym.rollout.decoder import RowDecoder

Floats = npt.NDArray[np.float64]


class GoldGain:
    """Potentials of N rows.

    Args:
        task: with demonstrations, whose answers are the right ones.
        n: rows.
        coefficient: reward for each nat.

    Raises:
        UsageError: the task has no demonstrations, or none that says where its answer begins.
    """

    def __init__(self, task: Task, n: int, coefficient: float) -> None:
        self._task, self._coefficient = task, coefficient
        self._potential_N: Floats = np.zeros(n)
        self._total_N: Floats = np.zeros(n)
        try:
            self._answer(0)
        except (NotImplementedError, LookupError, ValueError) as error:
            raise UsageError(
                f"{task.name} has no right answers to shape rewards by ({error}); leave shaping "
                "out."
            ) from error

    def start(self, decoder: RowDecoder, episodes: LiveEpisodes, rows: IntArray) -> None:
        """Rows begin."""
        self._total_N[rows] = 0
        self._potential_N[rows] = self._potential(decoder, episodes, rows)

    def reward(self, decoder: RowDecoder, episodes: LiveEpisodes, rows: IntArray) -> Floats:
        """What these rows are given for their last thought, (N,); nothing where it was the end."""
        live = rows[~episodes.state.done[rows]]
        gain_N = np.zeros(len(self._potential_N))
        if live.size:
            now_B = self._potential(decoder, episodes, live)
            gain_N[live] = self._coefficient * (now_B - self._potential_N[live])
            self._potential_N[live] = now_B
            self._total_N += gain_N
        return gain_N

    def tell(self, finals: dict[int, dict[str, Any]]) -> None:
        """Say in final infos what the rows were given, and that gold was looked at."""
        for row, final in finals.items():
            final |= {"reward/shaping": float(self._total_N[row]), "oracle": True}

    def _potential(self, decoder: RowDecoder, episodes: LiveEpisodes, rows: IntArray) -> Floats:
        answers = [self._answer(int(index)) for index in episodes.index_N[rows]]
        thinking_B = episodes.state.phase[rows] == Phase.THINK
        opening = [
            opens if thinks else [] for (opens, _), thinks in zip(answers, thinking_B, strict=True)
        ]
        logp_B = decoder.log_prob_of(rows, opening, [gold for _, gold in answers])
        return logp_B.double().cpu().numpy()

    def _answer(self, index: int) -> tuple[list[int], list[int]]:
        """What opens the answer of a question, and the right one, token ids."""
        demonstration = self._task.demonstration(index)
        ids = demonstration.ids_TS[:, 0].tolist()
        rules, thoughts = self._task.protocol(), demonstration.thoughts
        if rules.force_answer or rules.think.exact:
            opening = list(rules.forced_prompt)
        elif demonstration.steps:
            opening = ids[sum(demonstration.steps) : thoughts]
        else:
            raise ValueError("nothing says where an answer begins; make it with force_answer=True")
        return opening, ids[thoughts:]
