"""What a run is evaluated on while it trains and at its end, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latentgym.agents.base import config_dict
from latentgym.agents.run import Run, rows_at_once
from latentgym.errors import LatentGymError, UsageError
from latentgym.evaluation.evaluate import Evaluation, evaluate, questions_of
from latentgym.evaluation.overlap import HELD_OUT, Trained, held_out, trained_on
from latentgym.evaluation.results import LOOKS, Result, load_result, load_rollouts

if TYPE_CHECKING:
    from latentgym.rollout import Policy
    from latentgym.training.looks import Look

SPLITS = ("validation", "valid", "dev")
"""What tasks call the questions that one chooses by; the first that a task has."""


@dataclass(frozen=True)
class Asked:
    """The questions of a run's evaluations.

    Attributes:
        run: its environment asks them.
        limit: the first so many; None for all.
        held_out: the share of the training questions that these are, which are then not trained
            on; 0 where they are a split.
    """

    run: Run
    limit: int | None = None
    held_out: float = 0.0
    _envs: dict[int, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def left_out(self) -> list[int]:
        """Numbers of the training questions that are held out; empty where these are a split.

        Raises:
            UsageError: there are none.
        """
        if not self.held_out:
            return []
        task = self._env(1).unwrapped.task
        found: list[int] = held_out(task, self.held_out).tolist()
        if not found:
            raise UsageError(
                f"of the {len(task)} questions of {task.name} {task.split} none is held out to "
                "evaluate on; train on more, or give --eval-split."
            )
        return found

    def __str__(self) -> str:
        split = self.run.env_options.get("split")
        if not self.held_out:
            return f"the split {split}"
        of = "training" if split is None else split
        return (
            f"{100 * self.held_out:g} % of the {of} questions, by a hash of their text, which are "
            "not trained on"
        )

    def identity(self) -> dict[str, Any]:
        """What a resumed run must ask too."""
        return {"env_options": dict(self.run.env_options), "limit": self.limit}

    def check(self) -> None:
        """Make sure that there are so many.

        Raises:
            UsageError: there are fewer, or none.
        """
        if not self.held_out:
            questions_of(self._env(1).unwrapped.task, self.limit)
        elif len(self.left_out) < (self.limit or 0):
            raise UsageError(
                f"{len(self.left_out)} questions of {self.run.env_id} are held out to evaluate on, "
                f"not {self.limit}; give a lower --eval-limit, or --eval-split."
            )

    def evaluate(self, policy: Policy, seed: int, **options: Any) -> Evaluation:
        """Let what a policy has learnt answer them.

        Args:
            policy: that learns.
            seed: of the random numbers.
            options: see `latentgym.evaluation.evaluate.evaluate_answerer`.
        """
        agent = self.run.make_agent()
        chosen: dict[str, Any] = {"limit": self.limit}
        if self.held_out:
            chosen = {"index": self.left_out[: self.limit]}
        return evaluate(
            agent,
            agent.acting(policy),
            self.run.env_id,
            self._env(rows_at_once(policy.lm)),
            seeds=[seed],
            **chosen,
            **options,
        )

    def _env(self, rows: int) -> Any:
        """An environment of so many rows, made once: its data may be large."""
        if rows not in self._envs:
            self._envs[rows] = self.run.make_env(rows)
        return self._envs[rows]


def validation(run: Run, options: Mapping[str, Any], limit: int | None) -> Asked:
    """What a run is evaluated on while it trains, where no split is named.

    That is the task's split for it, if its questions are others than those of training and test.
    Else a part of the training questions is held out.

    Args:
        run: that trains.
        options: of the environment, without a split.
        limit: the first so many questions.
    """
    own = run.make_env(1).unwrapped.task
    others = [own, _task(run, {**options, "split": "test"})]
    for split in SPLITS:
        chosen = {**options, "split": split}
        task = _task(run, chosen)
        if task is None or task.split != split or _is_sample(task) != _is_sample(own):
            continue
        if not any(_asks_the_same(task, other) for other in others if other is not None):
            return Asked(replace(run, env_options=chosen), limit)
    return Asked(run, limit, HELD_OUT)


def _asks_the_same(task: Any, other: Any) -> bool:
    """Whether all questions of a task are in another too, as where one split stands for two."""
    return trained_on(Trained((other,)), task, np.arange(len(task))) == len(task)


def _task(run: Run, options: Mapping[str, Any]) -> Any:
    """The task with these options; None where it has no such split."""
    try:
        return replace(run, env_options=options).make_env(1).unwrapped.task
    except LatentGymError:
        return None


def _is_sample(task: Any) -> bool:
    return str(task.source) == "sample"


@dataclass(frozen=True)
class Evaluations:
    """The evaluations of a training run, with what their records say.

    Attributes:
        run: that trains.
        asked: the questions.
        out: folder of the run.
        trained: what the weights were trained on before they are evaluated.
        command: that trains, from the modules that the record names.
    """

    run: Run
    asked: Asked
    out: Path
    trained: Trained
    command: Callable[[Mapping[str, str]], str]

    def look(self, policy: Policy, step: int) -> Look:
        """Evaluate a policy in the middle of its training; the record stays in the run's folder."""
        from latentgym.training.looks import Look

        evaluation = self.evaluate(policy, step)
        evaluation.save(self.out / LOOKS / f"step-{step:08d}")
        result = evaluation.result
        return Look(step, result.accuracy, *result.accuracy_ci95)

    def take(self, step: int) -> Result:
        """Make the record of a look that of the run.

        Raises:
            UsageError: it is not there any more, or damaged.
        """
        folder = self.out / LOOKS / f"step-{step:08d}"
        result = load_result(folder)
        result.save(self.out, load_rollouts(folder))
        return result

    def evaluate(self, policy: Policy, step: int) -> Evaluation:
        """Evaluate a policy with the weights of a step."""
        rule = {"asked": str(self.asked)} if self.asked.held_out else {}
        evaluation = self.asked.evaluate(
            policy,
            self.run.seed,
            checkpoint=str(self.out),
            config={
                "agent": config_dict(self.run.config),
                "env_options": dict(self.asked.run.env_options),
                "steps": step,
                "train_seed": self.run.seed,
                **({"load_in_4bit": True} if self.run.load_in_4bit else {}),
                **rule,
            },
            trained=self.trained,
        )
        evaluation.result.command = self.command(evaluation.result.modules)
        return evaluation
