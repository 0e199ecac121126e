"""A stage of training: what one step does to a policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from latentgym.errors import UsageError
from latentgym.training.config import Optimisation
from latentgym.training.order import Order

if TYPE_CHECKING:
    from torch import Tensor

    from latentgym.analysis.sequences import Sequences
    from latentgym.rollout import Policy

Metrics: TypeAlias = "dict[str, float]"
Update: TypeAlias = "Callable[[Iterable[Tensor]], float]"
"""Back-propagates losses one after the other, takes one optimiser step, tells the gradient norm."""


class Watch(Protocol):
    """Looks at what a step reads, before it is learnt from; changes nothing."""

    def due(self, number: int) -> bool:
        """Whether it looks at that step."""
        ...

    def look(self, sequences: Sequences, step: int) -> Metrics:
        """What to log.

        Args:
            sequences: that the step reads.
            step: its number, from 1.
        """
        ...


class Stage(ABC):
    """One way to train: supervised, or by policy gradient.

    A step is a function of (policy, seed, step number) alone, and of `kept` where a stage has it:
    nothing else is carried from one step to the next, so a run that is resumed at a step goes on as
    if it had never stopped.

    Attributes:
        policy: what is trained.
        watch: looks at what some steps read, if anything does.
    """

    policy: Policy
    watch: Watch | None = None

    @property
    def kept(self) -> Policy | None:
        """Another policy that steps change, whose weights a checkpoint has too; by default none."""
        return None

    def watched(self, number: int, read: Callable[[], Sequences]) -> Metrics:
        """What the watch logs of a step.

        Args:
            number: of the step.
            read: what the step reads, latents in their place; called where the watch is due.
        """
        if self.watch is None or not self.watch.due(number):
            return {}
        return self.watch.look(read(), number + 1)

    @abstractmethod
    def step(self, number: int, update: Update) -> Metrics:
        """Take one training step, calling `update` once per optimiser step; what to log."""

    def fit(self, steps: int, *, skip_long: bool = False) -> None:  # noqa: B027, most need none
        """Make sure, before the first step, that so many steps can be taken.

        Args:
            steps: of the run.
            skip_long: leave out what is too long for the model.

        Raises:
            UsageError: they cannot.
        """

    def leave_out(self, questions: Sequence[int]) -> None:
        """Ask none of these questions, which are held out to evaluate on.

        Raises:
            UsageError: the stage cannot tell, or none would be left.
        """
        raise UsageError(
            "this stage does not say which questions it asks, so none of them can be held out; "
            "give --eval-split."
        )


class QuestionStage(Stage):
    """A stage whose steps each ask some questions of an environment.

    Attributes:
        order: of the questions.
    """

    order: Order

    @abstractmethod
    def positions(self, question: int) -> int:
        """The most positions of the model that this question can take, prompt and all."""

    def fit(self, steps: int, *, skip_long: bool = False) -> None:
        limit = self.policy.lm.max_positions
        self.order.fit(steps, self.positions, limit, skip_long=skip_long)

    def leave_out(self, questions: Sequence[int]) -> None:
        self.order.leave_out(questions)


MakeEnv: TypeAlias = "Callable[..., Any]"
"""`make_env(num_envs, **options)`: a vector environment of the id at hand."""


class StageConfig(Protocol):
    """Settings of a stage, as data."""

    def validate(self) -> None:
        """Raise `UsageError` for settings that cannot work."""
        ...

    def build(self, policy: Policy, make_env: MakeEnv, seed: int) -> Stage:
        """The stage that trains this policy."""
        ...


@dataclass(frozen=True)
class Recipe:
    """How an agent trains, as data that any backend can carry out.

    Attributes:
        stage: what a step does.
        optimisation: how parameters move.
    """

    stage: StageConfig
    optimisation: Optimisation

    def validate(self) -> None:
        """Raise `UsageError` for settings that cannot work."""
        self.stage.validate()
        self.optimisation.validate()
