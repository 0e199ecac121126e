"""MNNS, the minimum non-negative sum of signed digits (CoT2, arXiv 2505.23648).

Legend: m digits, T thoughts, S support of a soft target.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Annotated

import numpy as np

from latentgym.data import Question
from latentgym.envs.arguments import Arrow, Chain, Limit, Split
from latentgym.envs.problems import mnns
from latentgym.envs.symbols import SymbolTask, check_limit
from latentgym.envs.task import Demonstration
from latentgym.episodes.spaces import Family
from latentgym.errors import UsageError
from latentgym.system.options.keywords import Option


class MNNS(SymbolTask):
    """Minimum non-negative sum: sign the digits so that the sum is least and not negative.

    Args:
        family: action family.
        split: `train` or `test`; no multiset of digits is in both.
        m, low, high: how many digits, and their range.
        paths: how many sign patterns a soft target follows (the budget B); default all where
            thoughts may mix tokens. 1 is the discrete chain, the only one elsewhere.
        think, arrow: see `SymbolTask`.
        split_seed: which multisets are for training.
        limit: use the first so many questions only.
    """

    name = "MNNS"
    source = "generated"
    licence = "generated"
    prompt_budget = 16

    def __init__(
        self,
        family: Family,
        *,
        split: Split = "train",
        m: Annotated[int, Option("how many digits", 2, 8)] = 4,
        low: Annotated[int, Option("the least digit", 1, 999)] = 1,
        high: Annotated[int, Option("the greatest digit", 1, 999)] = 9,
        paths: Annotated[int, Option("sign patterns that a soft target follows", 1, 256)]
        | None = None,
        think: Chain | None = None,
        arrow: Arrow | None = None,
        split_seed: Annotated[int, Option("which multisets are for training", least=0)] = 42,
        limit: Limit | None = None,
    ) -> None:
        if split not in self.splits:
            raise UsageError(f"MNNS has the splits train and test, not {split!r}.")
        if not 2 <= m <= 8 or not 1 <= low <= high or (high - low + 1) ** m > 2_000_000:
            raise UsageError(
                f"MNNS needs 2 <= m <= 8 digits, 1 <= low <= high and at most two million "
                f"instances, but has m={m}, low={low}, high={high}."
            )
        most = 2**m if family.mixes else 1
        paths = most if paths is None else paths
        if not 1 <= paths <= most:
            raise UsageError(
                f"paths must lie between 1 and 2^m = {2**m}, and be 1 for tokens and hybrids, but "
                f"is {paths}."
            )
        super().__init__(family, mnns.vocabulary(m, high), m - 1, think, arrow)
        digits = mnns.instances(m, low, high)
        train = mnns.split(digits, split_seed)
        self.split = split
        digits = digits[train if split == "train" else ~train]
        check_limit(limit, len(digits), f"MNNS {split}")
        self.digits = digits[:limit]
        self.answers = mnns.answers(self.digits)
        self.paths, self.high = paths, high
        self.dataset_hash = hashlib.sha256(self.digits.tobytes()).hexdigest()[:16]
        self.prompt_budget = m + 2

    @cached_property
    def targets(self) -> tuple[mnns.Ints, mnns.Floats]:
        """Soft targets of all steps, computed when a demonstration first needs them."""
        return mnns.targets(self.digits, self.paths, self.high)

    def __len__(self) -> int:
        return len(self.digits)

    def question(self, index: int) -> Question:
        text = " ".join(f"D{d}" for d in self.digits[index])
        return Question(text, f"S{self.answers[index]}")

    def chain(self, index: int) -> Demonstration:
        ids, weights = self.targets[0][index], self.targets[1][index]
        return Demonstration(ids, weights.astype(np.float32), len(ids) - 1)
