"""Reward functions of the user's own, with TRL's calling convention.

A function is called once a rollout, with all its episodes; those of a question are neighbours,
whole groups always:

    def brief(completions, answer, **columns):
        return [-0.01 * len(text) for text in completions]

It gives a number for each episode, or None where it does not apply. What an episode earns is the
sum of these with their weights, and of the task's own reward if it has a weight. An error is never
a reward: it ends the run, before anything is learnt from the step, and names function and question.

Legend: Q questions, G samples each, N = Q * G episodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from latentgym.errors import TrainingError, UsageError, told
from latentgym.system.functions import function_of, named, taken
from latentgym.text.messages import messages_of
from latentgym.training.reward_calls import STATE, Arguments, Call, all_values

if TYPE_CHECKING:
    from latentgym.rollout import Episodes

Format = Literal["text", "messages"]

TASK = "task"
"""The name of the task's own reward among those of a run."""

# What else is logged as `reward/...`.
_OURS = ("score", TASK, "correct", "format", "perplexity", "clean", "overlong")
_GIVEN = ("prompts", "completions", "completion_ids", "question", "answer", "index")


@dataclass(frozen=True)
class Reward:
    """A reward function and its weight.

    Args:
        function: with TRL's calling convention; it may be asynchronous.
        weight: of it in the sum; 0 only logs it.
        name: under which it is logged, `reward/<name>`; its own by default.

    Raises:
        UsageError: it is no function or has no name that can be logged, or its weight is no finite
            number.
    """

    function: Callable[..., Any]
    weight: float = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise UsageError(
                f"the reward {told(self.function)} cannot be called; give a function here, and "
                "one's name, module:function, in the setting grpo.rewards."
            )
        if not self.name:
            kind = type(self.function).__name__  # of what is called like a function, and is none
            object.__setattr__(self, "name", getattr(self.function, "__name__", kind))
        if not (isinstance(self.name, str) and self.name.isidentifier()):
            raise UsageError(
                f"the reward {told(self.function)} has no name to be logged by; give Reward(..., "
                "name=)."
            )
        if self.name in _OURS:
            raise UsageError(
                f"reward/{self.name} is logged already; give the function {self.name} another name."
            )
        object.__setattr__(self, "weight", _weight(self.weight, self.name))


class Rewards:
    """All that the episodes of a run earn.

    Args:
        functions: of the user's own, no two of one name; one that is no `Reward` has the weight 1.
        task: weight of the task's own reward.
        format: in which they get prompts and completions: as text, or as chat messages.

    Raises:
        UsageError: two have one name, or none has a weight; or there is no such format.
    """

    def __init__(
        self,
        functions: Sequence[Reward | Callable[..., Any]],
        task: float = 0.0,
        format: Format = "text",
    ) -> None:
        self.functions = tuple(f if isinstance(f, Reward) else Reward(f) for f in functions)
        if format not in get_args(Format):
            raise UsageError(f"rewards get 'text' or 'messages', not {told(format)}.")
        self.task, self.format = _weight(task, TASK), format
        names = [each.name for each in self.functions]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"there are two rewards {twice[0]}; give one of them another name.")
        if not task and not any(each.weight for each in self.functions):
            raise UsageError("all rewards have the weight 0, which teaches nothing; raise one.")

    @classmethod
    def of(
        cls, rewards: Rewards | Sequence[Reward | Callable[..., Any]], format: Format
    ) -> Rewards:
        """Rewards as they are, or those of functions alone."""
        return rewards if isinstance(rewards, Rewards) else cls(rewards, format=format)

    def identity(self) -> dict[str, float]:
        """Weights by name: what a resumed run must have in common with the one before."""
        return {**{each.name: each.weight for each in self.functions}, TASK: self.task}

    def check(self, task: Any) -> None:
        """Make sure, before the first step, that a task has what the functions ask for.

        Raises:
            UsageError: it has not, or a column has the name of something else.
        """
        columns = _columns([task.question(0)])
        for each in self.functions:
            taken(each.function, [*_GIVEN, STATE, *columns], f"the reward {each.name}")

    def __call__(self, episodes: Episodes, task: Any, step: int) -> Episodes:
        """The episodes with what they earn, and each part of it in their infos.

        Args:
            episodes: with the task's own reward.
            task: that asked.
            step: number of the step, from 0.

        Raises:
            TrainingError: a function failed, or gives something else than a number or None for each
                episode; or there is an episode to which no reward applies.
        """
        arguments = self._arguments(episodes, task)
        state = SimpleNamespace(global_step=step)
        calls = [Call(each.name, each.function, arguments, state) for each in self.functions]
        names = [call.name for call in calls]
        part_N = dict(zip(names, all_values(calls), strict=True))
        total_N = self.task * episodes.reward_N
        applies_N = np.full(total_N.shape, bool(self.task))
        for each in self.functions:
            if each.weight:
                applies_N |= ~np.isnan(part_N[each.name])
                total_N = total_N + each.weight * np.nan_to_num(part_N[each.name])
        if not applies_N.all():
            question = arguments["index"][int(np.argmin(applies_N))]
            raise TrainingError(
                f"no reward applies to an episode of question {question}: all gave None; let one "
                "of them give a number, or add --reward task."
            )
        part_N[TASK] = episodes.reward_N
        infos = [dict(info) for info in episodes.infos]
        for name, value_N in part_N.items():
            if f"reward/{name}" in infos[0]:
                raise TrainingError(
                    f"the task has a part of its reward that is called {name}; give the function "
                    "another name."
                )
            for info, value in zip(infos, value_N.tolist(), strict=True):
                info[f"reward/{name}"] = value
        return replace(episodes, reward_N=total_N, infos=infos)

    def _arguments(self, episodes: Episodes, task: Any) -> Arguments:
        """What functions are given of each episode, by name."""
        rollouts = episodes.rollouts
        index = [int(info["index"]) for info in episodes.infos]
        questions = {i: task.question(i) for i in set(index)}
        texts = [str(info["completion"]) for info in episodes.infos]
        if self.format == "messages":
            asked = {i: messages_of(task, i) for i in questions}
            prompts: list[Any] = [[dict(m) for m in asked[i]] for i in index]
            said: list[Any] = [[{"role": "assistant", "content": text}] for text in texts]
        else:
            read = [task.tokenizer.decode(prompt) for prompt in rollouts.prompts]
            prompts, said = [read[prompt] for prompt in rollouts.prompt_N], texts
        columns = _columns(questions.values())
        return {
            "prompts": prompts,
            "completions": said,
            "completion_ids": [rollouts.tokens(row).tolist() for row in range(len(rollouts))],
            "question": [questions[i].text for i in index],
            "answer": [questions[i].gold for i in index],
            "index": index,
            **{name: [questions[i].extra.get(name) for i in index] for name in columns},
        }


def _columns(questions: Iterable[Any]) -> list[str]:
    """The columns that some of these questions have.

    Raises:
        UsageError: one has the name of something else that functions are given.
    """
    columns = dict.fromkeys(name for each in questions for name in each.extra)
    if clash := sorted({*_GIVEN, STATE} & columns.keys()):
        raise UsageError(
            f"rewards are given {clash[0]} beside the columns of the data; give the column another "
            "name."
        )
    return list(columns)


def _weight(weight: Any, name: str) -> float:
    if not (isinstance(weight, Real) and math.isfinite(weight)):
        raise UsageError(
            f"the weight of the reward {name} is {told(weight)}; give a finite number."
        )
    return float(weight)


def split_weight(spec: str) -> tuple[str, float]:
    """The name and the weight of a reward as text: `module:function`, `task`, or one with `=0.5`.

    Raises:
        UsageError: it is neither.
    """
    name, equals, weight = spec.partition("=")
    if name != TASK and not named(name):
        raise UsageError(
            f"no reward {told(spec)}; write module:function, module:function=0.5, or {TASK} for "
            "the task's own."
        )
    try:
        value = float(weight) if equals else 1.0
    except ValueError:
        value = math.nan
    return name, _weight(value, name)


def load_rewards(specs: Sequence[str], format: Format = "text") -> Rewards | None:
    """The rewards that a user has named; their modules are imported. None for the task's own alone.

    Args:
        specs: as `split_weight` reads them.
        format: see `Rewards`.

    Raises:
        UsageError: one of them cannot be had.
    """
    if not specs:
        return None
    pairs = [split_weight(spec) for spec in specs]
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"the reward {twice[0]} is given twice; leave one of them out.")
    functions = [Reward(function_of(n, "the reward"), w) for n, w in pairs if n != TASK]
    return Rewards(functions, dict(pairs).get(TASK, 0.0), format)
