"""Demonstrations of an environment as tensors.

Legend: B demonstrations, P prompt positions, T steps, S support of a target.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from latentgym.lm.model import left_pad
from latentgym.rollout.acting import unstepped


@dataclass
class SupervisedBatch:
    """Demonstrations as tensors; prompts may have targets of their own.

    A step without a target is not learnt: one that the environment inserts, which is read as its
    token, or one whose weights are all zero, in the place of a thought of the policy's own.
    """

    prompt_BP: Tensor
    prompt_mask_BP: Tensor
    ids_BTS: Tensor
    weights_BTS: Tensor
    mask_BT: Tensor
    thought_BT: Tensor
    inserted_BT: Tensor
    question_B: npt.NDArray[np.int64]
    prompt_ids_BPS: Tensor | None = None
    prompt_weights_BPS: Tensor | None = None

    @property
    def targets_BT(self) -> Tensor:
        """Which steps have a target."""
        return (self.weights_BTS.sum(-1) > 0) & ~self.inserted_BT


class Demonstrations:
    """Prompts and right chains of an environment, read once and kept.

    Args:
        env: a single or vector environment of ours.

    Raises:
        UsageError: it has wrappers of vector environments.
    """

    def __init__(self, env: Any) -> None:
        self._env = unstepped(env, "learning from demonstrations")
        self._memo: dict[int, tuple[list[int], Any]] = {}

    def __len__(self) -> int:
        return int(self._env.n_questions)

    def batch(
        self,
        indices: np.ndarray[Any, Any],
        device: torch.device,
        change: Callable[[int, Any], Any] | None = None,
    ) -> SupervisedBatch:
        """The demonstrations of these questions, prompts padded left and chains right.

        Args:
            indices: numbers of the questions.
            device: of the tensors.
            change: what becomes of each demonstration, from (number of the question, it).
        """
        items = [self.item(int(i)) for i in indices]
        if change is not None:
            items = [(p, change(int(i), d)) for i, (p, d) in zip(indices, items, strict=True)]
        pad = self._env.task.tokenizer.pad_id
        prompt, prompt_mask = left_pad([p for p, _ in items], pad, device)
        steps = max(len(d.ids_TS) for _, d in items)
        support = max(d.ids_TS.shape[1] for _, d in items)
        ids = np.zeros((len(items), steps, support), dtype=np.int64)
        weights = np.zeros((len(items), steps, support), dtype=np.float32)
        mask = np.zeros((len(items), steps), dtype=bool)
        thought = np.zeros((len(items), steps), dtype=bool)
        inserted = np.zeros((len(items), steps), dtype=bool)
        for row, (_, d) in enumerate(items):
            t, s = d.ids_TS.shape
            ids[row, :t, :s], weights[row, :t, :s] = d.ids_TS, d.weights_TS
            mask[row, :t], thought[row, : d.thoughts] = True, True
            if d.inserted_T is not None:
                inserted[row, :t] = d.inserted_T
        prompt_ids, prompt_weights = _prompt_targets([d for _, d in items], prompt.shape[1], device)
        return SupervisedBatch(
            prompt_BP=prompt,
            prompt_mask_BP=prompt_mask,
            ids_BTS=torch.from_numpy(ids).to(device),
            weights_BTS=torch.from_numpy(weights).to(device),
            mask_BT=torch.from_numpy(mask).to(device),
            thought_BT=torch.from_numpy(thought & ~inserted).to(device),
            inserted_BT=torch.from_numpy(inserted).to(device),
            question_B=np.asarray(indices),
            prompt_ids_BPS=prompt_ids,
            prompt_weights_BPS=prompt_weights,
        )

    def positions(self, index: int) -> int:
        """Positions of a question: its prompt, and of its chain all that is read."""
        prompt, shown = self.item(index)
        return len(prompt) + len(shown.ids_TS) - 1  # nothing is predicted behind the last

    def item(self, index: int) -> tuple[list[int], Any]:
        """Prompt and demonstration of one question."""
        if index not in self._memo:
            self._memo[index] = self._env.prompt(index), self._env.demonstration(index)
        return self._memo[index]


def _prompt_targets(
    items: list[Any], width: int, device: torch.device
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Targets on prompts padded left to that width, (B, P, S), if the demonstrations have such."""
    if any(d.prompt_ids_PS is None for d in items):
        return None, None
    support = max(d.prompt_ids_PS.shape[1] for d in items)
    ids = np.zeros((len(items), width, support), dtype=np.int64)
    weights = np.zeros((len(items), width, support), dtype=np.float32)
    for row, d in enumerate(items):
        p, s = d.prompt_ids_PS.shape
        ids[row, width - p :, :s] = d.prompt_ids_PS
        weights[row, width - p :, :s] = d.prompt_weights_PS
    return torch.from_numpy(ids).to(device), torch.from_numpy(weights).to(device)
