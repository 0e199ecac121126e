"""Own thoughts in training: rows that read what the head makes of them, with gradients through it.

A rollout keeps no graph, and a replay reads thoughts as they were stored. Here rows are read with
the steps of a rollout (`rollout.step`) over a cache that gradients flow through: the gradient of
what comes later runs back through each thought into what made it.

Legend: B rows, P prompt positions, T steps, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from latentgym.heads import PolicyHead, Readout
from latentgym.heads.rng import CounterRNG
from latentgym.lm.model import LatentLM
from latentgym.rollout.shared import SharedPrompts, read_prompts
from latentgym.rollout.step import carried, first_state, latents, sample


@dataclass
class OwnThoughts:
    """Which rows read their own thoughts, and how these are made.

    Attributes:
        head: makes a thought of the model's prediction, as in a rollout.
        row_B: True for the rows that read their own; the others read what they are given.
        seed: of the head's random numbers.
        sample_B: which sample of its question each row is; 0 by default.
        noise_free: samples of a lower number think without Gaussian noise.
    """

    head: PolicyHead
    row_B: Tensor
    seed: int = 0
    sample_B: npt.NDArray[np.int64] | None = None
    noise_free: int = 0

    def hidden_states(
        self,
        lm: LatentLM,
        prompt_BPD: Tensor,
        given_BTD: Tensor,
        mask_BL: Tensor,
        thought_BT: Tensor,
        question_B: npt.NDArray[np.int64],
        dropped: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Last hidden states, (B, P + T - 1, D): thoughts one by one, the rest in parallel.

        Args:
            lm: the model.
            prompt_BPD: input embeddings of the prompts; rows of a question share theirs.
            given_BTD: input embeddings of the steps, read wherever a row thinks no thought of its
                own.
            mask_BL: True where one of the P + T positions is read.
            thought_BT: which steps are thoughts.
            question_B: numbers of the questions.
            dropped: the dropout of input embeddings.
        """
        prompt, steps = prompt_BPD.shape[1], given_BTD.shape[1]
        cache, mask_BP = DynamicCache(), mask_BL[:, :prompt]
        shared = _by_question(question_B, prompt, lm.device)
        hidden = [read_prompts(lm, dropped(prompt_BPD), mask_BP, shared, cache)]
        remembers, table_VD = self.head.needs_memory, lm.table_VD
        memory = self.head.remember(hidden[0], mask_BP) if remembers else None
        # The last step is read by nobody.
        thoughts = min(int(thought_BT.any(0).nonzero().max()) + 1, steps - 1)
        state = first_state(self.head, len(given_BTD), lm.device)
        for t in range(thoughts):
            last_BD, given_BD = hidden[-1][:, -1], given_BTD[:, t]
            read = Readout(lm.logits(last_BD), last_BD, table_VD, memory, mask_BP, state)
            thought, after = sample(self.head, read, self._rng(question_B, t, lm.device))
            state = carried(after, state, thought_BT[:, t])
            reads_own = (self.row_B & thought_BT[:, t])[:, None]
            x_BD = torch.where(reads_own, latents(self.head, thought, given_BD, table_VD), given_BD)
            hidden.append(lm.hidden(dropped(x_BD[:, None]), mask_BL[:, : prompt + t + 1], cache))
        if thoughts < steps - 1:
            rest = dropped(given_BTD[:, thoughts:-1])
            hidden.append(lm.hidden(rest, mask_BL[:, :-1], cache))
        return torch.cat(hidden, dim=1)

    def _rng(self, question_B: npt.NDArray[np.int64], t: int, device: torch.device) -> CounterRNG:
        """Random numbers of step t, those of a rollout."""
        sample_B = np.zeros_like(question_B) if self.sample_B is None else self.sample_B
        rng = CounterRNG.at(self.seed, question_B, sample_B, np.full_like(sample_B, t), device)
        return rng.noise_free(sample_B < self.noise_free)


def _by_question(
    question_B: npt.NDArray[np.int64], width: int, device: torch.device
) -> SharedPrompts:
    """Rows of one question share their prompt."""
    _, first, of_row = np.unique(question_B, return_index=True, return_inverse=True)
    first_Q, prompt_B = (torch.from_numpy(x).to(device) for x in (first, of_row))
    return SharedPrompts(width, first_Q, prompt_B)
