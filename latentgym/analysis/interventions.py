"""What may stand in the place of a thought: nothing, the mean, another question's, a token.

Thoughts are replaced where the model reads them, as input embeddings. A token of a chain of thought
is replaced likewise, so that latents and tokens are compared by the same means.

Legend: N rows, T positions, M thoughts of all rows in row-major order, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentgym.analysis.sequences import PositionKind, Sequences
from latentgym.errors import UsageError, did_you_mean
from latentgym.lm import LatentLM
from latentgym.rollout.diagnostics import nearest_tokens
from latentgym.rollout.rollouts import IntArray

_SWAPS = 0  # the seed of the derangement

Targets = tuple[Tensor, Tensor]
"""What stands in the place of each thought, (M, D); and which thoughts have such, bool (M,)."""


def question_of(sequences: Sequences) -> IntArray:
    """The number of each row's question, (N,); rows whose prompts are alike have the same."""
    prompt_NT = sequences.kind_NT == PositionKind.PROMPT
    rows = zip(sequences.token_NT, prompt_NT, strict=True)
    prompts = [tuple(token_T[prompt_T].tolist()) for token_T, prompt_T in rows]
    number = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
    return np.array([number[prompt] for prompt in prompts], dtype=np.int64)


def _zero(lm: LatentLM, sequences: Sequences, x_MD: Tensor) -> Targets:
    return torch.zeros_like(x_MD), _all(x_MD)


def _mean(lm: LatentLM, sequences: Sequences, x_MD: Tensor) -> Targets:
    return x_MD.mean(0).expand_as(x_MD), _all(x_MD)


def _nearest(lm: LatentLM, sequences: Sequences, x_MD: Tensor) -> Targets:
    table_VD, norm_V = lm.table_VD, lm.table_norms()
    parts = torch.split(x_MD, lm.logits_at_once)
    ids = [nearest_tokens(part_MD, table_VD, norm_V)[1][:, 0] for part_MD in parts]
    return lm.embed(torch.cat(ids)), _all(x_MD)


def _swap(lm: LatentLM, sequences: Sequences, x_MD: Tensor) -> Targets:
    question_N, step_NT = question_of(sequences), sequences.step_NT.cpu()
    # Neighbours in a data set are often alike, so they are put apart.
    question_N = np.random.default_rng(_SWAPS).permutation(int(question_N.max()) + 1)[question_N]
    row_M, column_M = (step_NT >= 0).nonzero().T
    step_M = step_NT[row_M, column_M]
    from_M, has_M = torch.arange(len(row_M)), torch.zeros(len(row_M), dtype=torch.bool)
    for step in sorted(set(step_M.tolist())):
        # Rows of a question stand together; beyond the most that one has, it is another.
        at = (step_M == step).nonzero()[:, 0].numpy()
        question = question_N[row_M[at].numpy()]
        order = np.argsort(question, kind="stable")
        at, question = at[order], question[order]
        shift = int(np.unique(question, return_counts=True)[1].max())
        from_M[at] = torch.from_numpy(np.roll(at, -shift))
        has_M[at] = torch.from_numpy(np.roll(question, -shift) != question)
    return x_MD[from_M.to(x_MD.device)], has_M.to(x_MD.device)


def _all(x_MD: Tensor) -> Tensor:
    return torch.ones(len(x_MD), dtype=torch.bool, device=x_MD.device)


TARGETS: Mapping[str, Callable[[LatentLM, Sequences, Tensor], Targets]] = {
    "zero": _zero,
    "mean": _mean,
    "swap": _swap,
    "nearest": _nearest,
}
DEFINITIONS = {
    "zero": "the zero vector",
    "mean": "the mean of the thoughts of all rows and steps",
    "swap": "the thought of another question at the same step, by a fixed random derangement; rows "
    "without a partner of another question do not count; `shuffle` in tables, as --control has it",
    "nearest": "the token embedding of the largest cosine, at its own length",
    "NAME@a": "(1 - a) of the thought and a of what stands under NAME; zero@0.5 is the thought "
    "halved",
}
_TITLES = {
    "swap": "shuffle",  # as `--control` calls it
    "zero@0.5": "halved (zero@0.5)",
}


def title_of(name: str) -> str:
    """A replacement by its name in records, as tables and pictures call it."""
    return _TITLES.get(name, name)


@dataclass(frozen=True)
class Intervention:
    """What thoughts are replaced by.

    Attributes:
        target: a name in `TARGETS`.
        alpha: its weight; the rest is the thought's own. 0 changes nothing.

    Raises:
        UsageError: no such target, or a weight that is not from 0 to 1.
    """

    target: str
    alpha: float = 1.0

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise UsageError(
                f"no replacement {self.target!r} of thoughts; {did_you_mean(self.target, TARGETS)}"
            )
        if not 0 <= self.alpha <= 1:
            raise UsageError(
                f"a weight between a thought and its replacement is from 0 to 1, not {self.alpha}."
            )

    @property
    def name(self) -> str:
        """As records have it: the target, and its weight if that is not 1."""
        return self.target if self.alpha == 1 else f"{self.target}@{self.alpha:g}"

    def replacement(self, lm: LatentLM, sequences: Sequences) -> tuple[Tensor, Tensor]:
        """What would stand in the place of every thought.

        Args:
            lm: the model.
            sequences: what it reads.

        Returns:
            Input embeddings (N, T, D), which are the sequences' own but for thoughts; and which
            thoughts are replaced, bool (N, T).
        """
        thought_NT = sequences.step_NT >= 0
        x_MD = sequences.x_NTD[thought_NT]
        target_MD, has_M = TARGETS[self.target](lm, sequences, x_MD)
        mixed_MD = torch.lerp(x_MD, target_MD.to(x_MD.dtype), self.alpha)
        replaced_NT = thought_NT.clone()
        replaced_NT[thought_NT] = has_M
        return sequences.x_NTD.masked_scatter(thought_NT[..., None], mixed_MD), replaced_NT


INTERVENTIONS = (
    Intervention("zero"),
    Intervention("mean"),
    Intervention("swap"),
    Intervention("nearest"),
    Intervention("nearest", 0.5),
    Intervention("zero", 0.5),
)
