"""GSM8KAug with generated questions, for models trained from scratch."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from latentgym.data.chains import (
    LARGEST,
    MOST_OPERATIONS,
    ChainSettings,
    GeneratedChains,
    vocabulary,
)
from latentgym.envs.arguments import (
    Answer,
    ExactThoughts,
    ForceAnswer,
    Format,
    Limit,
    Seed,
    Size,
    Split,
    System,
    Think,
)
from latentgym.envs.maths import KINDS
from latentgym.envs.text import TextTask
from latentgym.episodes.spaces import Family
from latentgym.errors import UsageError
from latentgym.system.options.keywords import Option
from latentgym.text.tokenizers import SymbolTokenizer, Tokenizer

GENERATOR_OPTIONS = {"size", *ChainSettings.__dataclass_fields__}
_SYMBOLS_PER_EQUATION = 8  # six, and a little room
_DEFAULTS = ChainSettings()

Operations: TypeAlias = Annotated[int, Option("equations of a chain", 1, MOST_OPERATIONS)]


class ChainsTask(TextTask):
    """Generated word problems with chains of equations, see `latentgym.data.chains`.

    Without a model, text is read and written in the generator's symbols, and the default budgets
    are short: room for the longest chain, and for one number.

    Args:
        family: action family.
        tokenizer: of the model; the generator's symbols without one.
        split: `train`, `valid` or `test`; no chain is in two of them.
        size: how many questions; default 20,000 for training and 1,000 of the others.
        seed, min_operations, max_operations, largest: see `ChainSettings`.
        limit: use the first so many questions only.
        format, system, think, answer, exact_thoughts, force_answer: see `TextTask`.

    Raises:
        UsageError: options that cannot work.
    """

    name = "GSM8KAug"
    splits = ("train", "valid", "test")

    def __init__(
        self,
        family: Family,
        tokenizer: Tokenizer | None = None,
        *,
        split: Split = "train",
        size: Size | None = None,
        seed: Seed = _DEFAULTS.seed,
        min_operations: Operations = _DEFAULTS.min_operations,
        max_operations: Operations = _DEFAULTS.max_operations,
        largest: Annotated[int, Option("the largest number in a chain", 9, LARGEST)] = (
            _DEFAULTS.largest
        ),
        limit: Limit | None = None,
        format: Format = "hashes",
        system: System | None = None,
        think: Think | None = None,
        answer: Answer | None = None,
        exact_thoughts: ExactThoughts = False,
        force_answer: ForceAnswer | None = None,
    ) -> None:
        settings = ChainSettings(min_operations, max_operations, largest, seed)
        data = GeneratedChains(split, size, settings)
        if limit is not None:
            if not 1 <= limit <= len(data):
                raise UsageError(
                    f"GSM8KAug {split} has {len(data)} generated questions; choose a limit from 1 "
                    f"to {len(data)}, or a larger size."
                )
            data = GeneratedChains(split, limit, settings)
        kind = KINDS[self.name]
        symbols = tokenizer is None
        if symbols and format != "hashes":
            raise UsageError("the symbols of generated chains have the answer format hashes only.")
        room = _SYMBOLS_PER_EQUATION * max_operations if symbols else kind.think
        super().__init__(
            family,
            tokenizer or SymbolTokenizer(vocabulary()),
            data,
            kind.grader,
            format=format,
            system=system,
            think=room if think is None else think,
            answer=(4 if symbols else kind.answer) if answer is None else answer,
            exact_thoughts=exact_thoughts,
            force_answer=force_answer,
        )
        self.split, self.source, self.dataset_hash = split, data.source, data.hash
        self.licence = data.licence
        self.prompt_budget = 64 if symbols else 512
