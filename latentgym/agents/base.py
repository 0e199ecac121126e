"""What an agent is: a head to think with, a way to train it, and a way to answer questions."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from latentgym import rollout
from latentgym.agents.answering import make_answer, ranked_answers
from latentgym.episodes.protocol import Protocol
from latentgym.errors import UsageError, did_you_mean
from latentgym.evaluation.answers import KEEP_THOUGHTS, Answer, Answered
from latentgym.registry import AGENTS
from latentgym.system.options.ranges import check_ranges
from latentgym.system.plugins import import_named, leave_out, load, tell_refused
from latentgym.training import Recipe

if TYPE_CHECKING:
    from latentgym.lm import LatentLM

Config = TypeVar("Config")


class Agent(ABC, Generic[Config]):
    """Base of all agents.

    Args:
        config: settings, a frozen dataclass whose numbers have ranges
            (`latentgym.system.options`) and whose field docstrings become `--help`.

    Attributes:
        name: on the command line.
        families: the action families it can act in.
        config_class: of the settings.
        searches: whether it makes several attempts at a question, which can be watched.
        keep_thoughts: so many of the heaviest tokens of each thought are kept with an answer.
        presets: named settings.

    Raises:
        UsageError: a number outside its range.
    """

    name: ClassVar[str]
    families: ClassVar[tuple[str, ...]]
    config_class: ClassVar[type[Any]]
    searches: ClassVar[bool] = False
    keep_thoughts: int = KEEP_THOUGHTS
    presets: ClassVar[Mapping[str, Any]]

    def __init__(self, config: Config) -> None:
        check_ranges(config)
        self.config = config

    @property
    def oracle(self) -> bool:
        """Whether gold answers take part in choosing an answer, which makes it an upper bound."""
        return False

    @abstractmethod
    def policy(self, lm: LatentLM, *, acting: bool) -> rollout.Policy:
        """The policy over a model.

        Args:
            lm: the model.
            acting: True to answer questions, False to learn.
        """

    def check(self, rules: Protocol) -> None:
        """Whether the settings suit an environment with these rules; most suit any.

        Raises:
            UsageError: they do not.
        """

    def acting(self, learner: rollout.Policy) -> rollout.Policy:
        """The policy that answers with what a learner has learnt: its model, its head's weights."""
        policy = self.policy(learner.lm, acting=True)
        policy.head.load_state_dict(learner.head.state_dict())
        return policy

    def recipe(self) -> Recipe:
        """How `train` trains.

        Raises:
            UsageError: the agent needs no training.
        """
        raise UsageError(f"{self.name} needs no training; use latentgym eval {self.name}.")

    def check_start(self, policy: rollout.Policy) -> None:
        """Refuse weights that `recipe` cannot begin with; unless overridden, it can with any.

        Args:
            policy: that is to learn, with the weights of its checkpoint, if there is one.

        Raises:
            UsageError: it cannot.
        """

    @classmethod
    def trains(cls) -> bool:
        """Whether there is anything to train."""
        return cls.recipe is not Agent.recipe

    def samples_per_question(self) -> int:
        """Episodes drawn for each question."""
        return 1

    def answer(
        self,
        policy: rollout.Policy,
        env: Any,
        questions: npt.NDArray[np.int64],
        seed: int,
        answered: Answered,
    ) -> list[Answer]:
        """Answer questions; test-time methods override it.

        Where a task has choices, the answer is a ranking of them.

        Args:
            policy: made with `acting=True`.
            env: vector environment; its number of rows is how many fit at once.
            questions: numbers of the questions.
            seed: of the random numbers.
            answered: told the answers of each batch as soon as they are made.
        """
        group = self.samples_per_question()
        if env.unwrapped.task.choices is not None:
            if group > 1:
                raise UsageError(
                    "answers of this task are ranked after one chain of thought; draw one sample "
                    "per question."
                )
            return ranked_answers(policy, env, questions, seed, answered, self.keep_thoughts)
        answers: list[Answer | None] = [None] * len(questions)
        engine = rollout.Engine(policy, keep_thoughts=self.keep_thoughts)
        batches = rollout.collect_in_batches(engine, env, questions, group_size=group, seed=seed)
        for places, episodes in batches:
            latents = rollout.latent_statistics(policy, episodes.rollouts)
            done = []
            for i, place in enumerate(places):
                rows = np.arange(i * group, (i + 1) * group)
                answer = self.choose(env, int(questions[place]), episodes, rows)
                answers[place] = replace(answer, batch_metrics=latents)
                done.append(answers[place])
            answered(done)
        return [answer for answer in answers if answer is not None]

    def answering(self) -> Any:
        """What of the settings takes part in answering, beside what they do for the policy."""
        return None

    def choose(
        self, env: Any, index: int, episodes: rollout.Episodes, rows: npt.NDArray[np.int64]
    ) -> Answer:
        """One answer from the episodes of a question; the first, unless overridden."""
        return make_answer(env.unwrapped.task, index, episodes, rows, int(rows[0]))


def agent_class(name: str) -> type[Agent[Any]]:
    """The class of an agent by its name, or by `module:Class` if it is of another package.

    Raises:
        UsageError: there is none, or it is no agent.
    """
    tell_refused(name)
    return _loaded(name)


def _loaded(name: str) -> type[Agent[Any]]:
    entry = name if ":" in name else AGENTS.get(name)
    if entry is None:
        if Path(name).is_dir():
            raise UsageError(
                f"no agent {name!r}, which is a folder; to evaluate a run give its agent and "
                f"environment first: latentgym eval AGENT ENV --checkpoint {name}."
            )
        advice = did_you_mean(name, AGENTS)
        raise UsageError(f"no agent {name!r}; {advice} One of your own is named module:Class.")
    if entry is name:
        import_named(name.rpartition(":")[0])
    found: type[Agent[Any]] = load(entry)
    if not (isinstance(found, type) and issubclass(found, Agent)):
        raise UsageError(f"{entry} is no agent; make it a subclass of latentgym.agents.Agent.")
    needed = ("name", "families", "config_class", "presets")
    if missing := [each for each in needed if not hasattr(found, each)]:
        raise UsageError(f"the agent {entry} lacks {', '.join(missing)}; set them in the class.")
    if entry is not name and found.name != name:
        raise UsageError(
            f"the agent {name!r} ({entry}) calls itself {found.name!r}; give both the same name."
        )
    if found.name in AGENTS and AGENTS[found.name] != entry and _loaded(found.name) != found:
        raise UsageError(
            f"{entry} calls itself {found.name!r}, as another agent does; give it another name."
        )
    return found


def agent_classes() -> Iterator[type[Agent[Any]]]:
    """All agents that have a name; those of other packages that cannot be loaded are warned of."""
    tell_refused()
    for name, entry in AGENTS.items():
        try:
            yield _loaded(name)
        except UsageError as error:
            leave_out("agent", name, entry, error)


def preset(cls: type[Agent[Any]], name: str | None) -> Any:
    """The settings of a preset, or the defaults.

    Raises:
        UsageError: there is no such preset.
    """
    if name is None:
        return cls.config_class()
    if name not in cls.presets:
        raise UsageError(f"{cls.name} has no preset {name!r}; {did_you_mean(name, cls.presets)}")
    return cls.presets[name]


def config_dict(config: Any) -> dict[str, Any]:
    """Settings as plain data, for records."""
    return dataclasses.asdict(config)
