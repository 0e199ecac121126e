"""verifiers: our tasks as a taskset.

Its tools know environments as packages with a plain name: `examples/latentgym_verifiers.py` is one,
in two lines. Needs verifiers 0.4 on Python 3.11 or newer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from latentgym.adapters.questions import Questions
from latentgym.errors import UsageError

try:
    import verifiers.v1 as vf
except ImportError as error:
    raise UsageError(
        f"this adapter is for verifiers ({error}); pip install 'latentgym[verifiers]', with Python "
        "3.11 or newer."
    ) from error

__all__ = ["LatentGymTaskset"]


class LatentGymData(vf.TaskData):
    """A question.

    Attributes:
        env: id of the environment that it is of.
        options: its keyword arguments.
        index: number of the question.
        answer: the right one.
    """

    env: str
    options: dict[str, Any]
    index: int
    answer: str


class LatentGymTask(vf.Task[LatentGymData]):
    """Graded as the environment grades the same words."""

    @vf.reward(weight=1.0)
    async def correct(self, trace: vf.Trace) -> float:
        """The task's score."""
        return self._grade(trace).score

    @vf.metric
    async def grading(self, trace: vf.Trace) -> dict[str, float]:
        """Whether the answer was written as it was asked for, and whether grading took too long."""
        grade = self._grade(trace)
        late = float(grade.status == "timeout")  # its score of 0 is no verdict
        return {"formatted": float(grade.components["format"]), "timed_out": late}

    def _grade(self, trace: vf.Trace) -> Any:
        data = self.data
        return _questions(data.env, _frozen(data.options)).grade(data.index, trace.last_reply)


class LatentGymConfig(vf.TasksetConfig):
    """Which questions.

    Attributes:
        env: id of an environment of the token family.
        options: its keyword arguments, such as `{"split": "test", "limit": 100}`.
    """

    env: str = "latent/GSM8K-token"
    options: dict[str, Any] = {}  # noqa: RUF012 - a field of pydantic's, which copies it


class LatentGymTaskset(vf.Taskset[LatentGymTask, LatentGymConfig]):
    """The questions of an environment."""

    def load(self) -> Iterable[LatentGymTask]:
        """Build the tasks, one for each question."""
        env, options = self.config.env, self.config.options
        questions = _questions(env, _frozen(options))
        for index in range(len(questions)):
            *system, user = questions.messages(index)
            data = LatentGymData(
                prompt=user["content"],
                system_prompt=system[0]["content"] if system else None,
                env=env,
                options=options,
                index=index,
                answer=questions.task.question(index).gold,
            )
            yield LatentGymTask(data, self.config.task)


@lru_cache(maxsize=8)
def _questions(env: str, options: str) -> Questions:
    """Questions are read once, however many rollouts are graded."""
    return Questions(env, **json.loads(options))


def _frozen(options: dict[str, Any]) -> str:
    """Options as what can be a key; some hold lists and dicts."""
    return json.dumps(options, sort_keys=True, default=os.fspath)
