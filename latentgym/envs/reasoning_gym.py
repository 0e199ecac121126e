"""Reasoning Gym's procedural tasks (the optional extra `reasoning-gym`)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from latentgym.data import Question
from latentgym.envs._scorer import pack, setting_of
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
from latentgym.envs.task import GradingError
from latentgym.envs.text import TextTask
from latentgym.episodes.protocol import Protocol
from latentgym.episodes.spaces import Family
from latentgym.errors import UsageError
from latentgym.registry import REASONING_GYM_PREFIX
from latentgym.rewards import Grade, GraderError
from latentgym.rewards.extract import MAX_TEXT
from latentgym.rewards.sandbox import Sandbox
from latentgym.system.options.keywords import Option
from latentgym.text.tokenizers import ByteTokenizer, Tokenizer

_SANDBOX = Sandbox(job="latentgym.envs._scorer", needs="'latentgym[reasoning-gym]'")
_SPLIT_SEEDS = {"train": 0, "test": 1_000_003}
# Their answers take several lines, so a line break does not end them.
_SEVERAL_LINES = """
    arc_agi binary_matrix futoshiki kakurasu manipulate_matrix mini_sudoku modulo_grid n_queens
    pool_matrix rearc rotate_matrix sudoku survo tower_of_hanoi
"""
# Where generators without one right answer keep an example of it.
_EXAMPLES = ("possible_answer", "example_answer", "example_correct_answer")


class _Questions(Sequence[Question]):
    """A procedural data set of theirs as questions of ours.

    The gold answer is empty where the generator knows none (boxnet, rush_hour).
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self._memo: dict[int, Question] = {}  # some generators take seconds per question

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Question:  # type: ignore[override]
        if index not in self._memo:
            item = self.dataset[index]
            self._memo[index] = Question(item["question"], _gold(item), (), {"entry": item})
        return self._memo[index]


def _gold(item: dict[str, Any]) -> str:
    metadata = item["metadata"]
    examples = [item["answer"], *(metadata[key] for key in _EXAMPLES if key in metadata)]
    known = next((example for example in examples if example is not None), "")
    return known if isinstance(known, str) else json.dumps(known)


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
        format, system, think, answer, exact_thoughts, force_answer: see `TextTask`; by default an
            answer is one line of at most 64 tokens, or of 512 where it takes several lines.
    """

    licence = "Apache-2.0 (Reasoning Gym, generated)"

    def __init__(
        self,
        name: str,
        family: Family,
        tokenizer: Tokenizer | None = None,
        *,
        split: Split = "train",
        size: Size = 1000,
        seed: Seed = 0,
        limit: Limit | None = None,
        config: Annotated[dict[str, Any], Option("further settings of the generator")]
        | None = None,
        format: Format = "hashes",
        system: System | None = None,
        think: Think | None = None,
        answer: Answer | None = None,
        exact_thoughts: ExactThoughts = False,
        force_answer: ForceAnswer | None = None,
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
        self.several_lines = generator in _SEVERAL_LINES.split()
        if answer is None:
            answer = 512 if self.several_lines else 64
        settings = {"seed": seed + _SPLIT_SEEDS[split], "size": limit or size, **(config or {})}
        try:
            self.dataset = reasoning_gym.create_dataset(generator, **settings)
        except (TypeError, ValueError, AssertionError) as error:  # how their settings are checked
            raise UsageError(
                f"the generator of {name} does not take these settings ({error}); mend config."
            ) from error
        super().__init__(
            family,
            tokenizer or ByteTokenizer(),
            _Questions(self.dataset),
            _NoGrader(),
            format=format,
            system=system,
            think=256 if think is None else think,
            answer=answer,
            exact_thoughts=exact_thoughts,
            force_answer=force_answer,
        )
        self._setting = setting_of(generator, settings)
        self.name, self.split, self.source = name, split, "generated"
        identity = f"{generator} {sorted(settings.items())}"
        self.dataset_hash = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self.prompt_budget = 8192

    def grade(self, index: int, completion: str, answer: str) -> Grade:
        """Their score, within bounded time; a partial one is a reward but no `correct` answer."""
        kept = self.format.kept(completion, in_tokens=self.family.tokens)
        parts = {"correct": 0.0, "format": float(kept)}
        if len(completion) > MAX_TEXT:
            return Grade(0.0, None, "too_long", {"correct": 0.0, "format": 0.0})
        parsed = self._parsed(completion, answer)
        if not parsed:
            return Grade(0.0, None, "no_answer", parts)
        score = self._score(index, parsed)
        if isinstance(score, float):
            return Grade(score, parsed, "ok", {**parts, "correct": float(score >= 1.0)})
        if score == "timeout":
            return Grade(0.0, parsed, "timeout", parts)
        # Some of their scorers raise on answers of the wrong form. If the gold answer raises
        # too, the scorer is at fault, and no score may be given.
        if self._score(index, self.question(index).gold) in ("error", "crash", "refused"):
            raise GradingError(f"the scorer of {self.name} failed on row {index}")
        return Grade(0.0, parsed, "refused" if score == "refused" else "invalid", parts)

    @staticmethod
    def warm_up() -> None:
        """Start the scoring process now (some seconds), not with the first answer."""
        _SANDBOX.start()

    def _score(self, index: int, answer: str) -> float | str:
        """Their score, or "timeout", "crash", "refused" or "error"."""
        try:
            entry = json.dumps(pack(self.question(index).extra["entry"]))
            score = _SANDBOX.call(self._setting, answer, entry)
        except (TypeError, GraderError) as error:
            raise GradingError(
                f"the scorer of {self.name} failed on row {index}: {error}"
            ) from error
        return score if isinstance(score, str) else float(score)

    def protocol(self) -> Protocol:
        rules = super().protocol()
        return replace(rules, stop=None) if self.several_lines else rules

    def _parsed(self, completion: str, answer: str) -> str:
        found = self.format.find(completion)
        if found is None:
            return answer.strip()
        stop = "" if self.several_lines else self.format.stop
        return found.partition(stop)[0].strip() if stop else found


class _NoGrader:
    """Stands where other tasks have a grader, which knows the gold answer but not its row."""

    numeric: ClassVar[bool] = False

    def __call__(self, answer: str, gold: str, /) -> Grade:
        raise GraderError("Reasoning Gym's tasks grade with their own entries")

    alone = __call__

    def fallback(self, completion: str, /) -> str | None:
        return completion
