"""Reasoning Gym's procedural tasks (the optional extra `reasoning-gym`)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from latentgym.data import Question
from latentgym.envs.text import TextTask
from latentgym.errors import UsageError
from latentgym.registry import REASONING_GYM_PREFIX
from latentgym.rewards import Grade, GraderError
from latentgym.rewards.extract import statement
from latentgym.spaces import Family
from latentgym.tokenizers import ByteTokenizer, Tokenizer

_SPLIT_SEEDS = {"train": 0, "test": 1_000_003}


class _Questions(Sequence[Question]):
    """A procedural data set of theirs as questions of ours."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Question:  # type: ignore[override]
        item = self.dataset[index]
        return Question(item["question"], str(item["answer"]), (), {"entry": item})


class ReasoningGymTask(TextTask):
    """One of Reasoning Gym's generators, graded by its own scoring function.

    Args:
        name: `RG_<name>`.
        family: action family.
        tokenizer: of the model; bytes without one.
        split: `train` or `test`, which differ in the generator's seed.
        size: how many questions.
        seed: of the generator.
        limit: use the first so many questions only.
        config: further settings of the generator.
        format, system, think, answer, force_answer: see `TextTask`.
    """

    licence = "Apache-2.0 (Reasoning Gym, generated)"

    def __init__(
        self,
        name: str,
        family: Family,
        tokenizer: Tokenizer | None = None,
        *,
        split: str = "train",
        size: int = 1000,
        seed: int = 0,
        limit: int | None = None,
        config: dict[str, Any] | None = None,
        format: str = "hashes",
        system: str | None = None,
        think: int = 256,
        answer: int = 64,
        force_answer: bool | None = None,
    ) -> None:
        try:
            import reasoning_gym
        except ImportError as error:
            raise UsageError(
                f"{name} needs Reasoning Gym; install it with pip install "
                "'latentgym[reasoning-gym]'."
            ) from error
        if split not in _SPLIT_SEEDS:
            raise UsageError(f"{name} has the splits train and test, not {split!r}.")
        if limit is not None and not 1 <= limit <= size:
            raise UsageError(f"{name} has {size} questions; choose a limit of at most {size}.")
        generator = name.removeprefix(REASONING_GYM_PREFIX)
        settings = {"seed": seed + _SPLIT_SEEDS[split], "size": limit or size, **(config or {})}
        self.dataset = reasoning_gym.create_dataset(generator, **settings)
        super().__init__(
            family,
            tokenizer or ByteTokenizer(),
            _Questions(self.dataset),
            _no_grader,
            format=format,
            system=system,
            think=think,
            answer=answer,
            force_answer=force_answer,
        )
        self.name, self.split, self.source = name, split, "generated"
        identity = f"{generator} {sorted(settings.items())}"
        self.dataset_hash = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self.prompt_budget = 8192

    def grade(self, index: int, completion: str, answer: str) -> Grade:
        """Their score; a partial one counts as it is, but is no `correct` answer."""
        entry = self.question(index).extra["entry"]
        marked = self.format.mark in completion
        parsed = statement(completion) if marked else answer.strip()
        if not parsed:
            return Grade(0.0, None, "no_answer", {"correct": 0.0, "format": float(marked)})
        score = float(self.dataset.score_answer(parsed, entry))
        components = {"correct": float(score >= 1.0), "format": float(marked)}
        return Grade(score, parsed, "ok", components)


def _no_grader(answer: str, gold: str, /) -> Grade:
    raise GraderError("Reasoning Gym's tasks grade with their own entries")
