"""Mathematics: GSM8K and its kin, MATH, AIME."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from latentgym.data import DATASETS, load
from latentgym.envs.arguments import (
    Answer,
    ExactThoughts,
    ForceAnswer,
    Format,
    Holdout,
    Limit,
    Source,
    Split,
    System,
    Think,
)
from latentgym.envs.text import TextTask
from latentgym.episodes.spaces import Family
from latentgym.errors import UsageError, did_you_mean
from latentgym.rewards import Grader, MathGrader, NumberGrader
from latentgym.text.tokenizers import ByteTokenizer, Tokenizer


@dataclass(frozen=True)
class _Kind:
    """What the data sets of one kind have in common: grader, answer format and budgets."""

    grader: Grader
    format: str
    think: int
    answer: int
    prompt_budget: int


_SCHOOL = _Kind(NumberGrader(), "hashes", think=256, answer=24, prompt_budget=2048)
# The numbers of GSM-Hard are floats of up to fifteen digits; reports round them.
_HARD = _Kind(NumberGrader(rel_tol=1e-6), "hashes", think=256, answer=32, prompt_budget=2048)
_CONTEST = _Kind(MathGrader(), "boxed", think=512, answer=96, prompt_budget=6144)
_AIME = _Kind(
    NumberGrader(integer_range=(0, 999)), "boxed", think=1024, answer=32, prompt_budget=6144
)

KINDS: Mapping[str, _Kind] = {
    "GSM8K": _SCHOOL,
    "GSM8KAug": _SCHOOL,
    "GSMHard": _HARD,
    "SVAMP": _SCHOOL,
    "MultiArith": _SCHOOL,
    "MATH": _CONTEST,
    "MATH500": _CONTEST,
    "AIME2024": _AIME,
    "AIME2025": _AIME,
}


class MathsTask(TextTask):
    """A data set of mathematics problems.

    Args:
        name: a key of `KINDS`.
        family: action family.
        tokenizer: of the model; bytes without one.
        split: of the data; default the training split, or the first there is.
        source: where to look for the data instead of the usual places.
        holdout: share of a file's rows that are not for training, see `latentgym.data.load`.
        limit: use the first so many questions only.
        format, system, think, answer, exact_thoughts, force_answer: see `TextTask`; defaults by
            data set.

    Raises:
        DataError: the data cannot be had, or a row is damaged.
    """

    def __init__(
        self,
        name: str,
        family: Family,
        tokenizer: Tokenizer | None = None,
        *,
        split: Split | None = None,
        source: Source | None = None,
        holdout: Holdout = 0.0,
        limit: Limit | None = None,
        format: Format | None = None,
        system: System | None = None,
        think: Think | None = None,
        answer: Answer | None = None,
        exact_thoughts: ExactThoughts = False,
        force_answer: ForceAnswer | None = None,
    ) -> None:
        if name not in KINDS:
            raise UsageError(f"no mathematics task {name!r}; {did_you_mean(name, KINDS)}")
        kind, spec = KINDS[name], DATASETS[name]
        self.name = name
        split = split or default_split(spec.splits)
        data = load(spec, split, source=source, limit=limit, holdout=holdout)
        super().__init__(
            family,
            tokenizer or ByteTokenizer(),
            data,
            kind.grader,
            format=format or kind.format,
            system=system,
            think=kind.think if think is None else think,
            answer=kind.answer if answer is None else answer,
            exact_thoughts=exact_thoughts,
            force_answer=force_answer,
        )
        self.split, self.source, self.dataset_hash = data.split, data.source, data.hash
        self.licence = data.licence
        self.prompt_budget = kind.prompt_budget


def default_split(splits: tuple[str, ...]) -> str:
    """The training split, or the first there is."""
    return "train" if "train" in splits else splits[0]
