"""TRL: a dataset, reward functions and an environment to search in, for its `GRPOTrainer`.

```py
gsm8k = ForGRPO("latent/GSM8K-token", split="train")
GRPOTrainer(model=..., train_dataset=gsm8k.dataset(), reward_funcs=gsm8k.rewards, args=...)
```
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from latentgym.adapters.questions import Questions
from latentgym.errors import UsageError, told

RewardFunction = Callable[..., list[float | None]]

_COLUMNS = ("prompt", "index", "question", "answer")
_SEARCHES = (
    "Answer the question. Call the tool `search` as often as you need; then write the answer, in "
    "few words, behind ####."
)


class ForGRPO(Questions):
    """The questions of an environment of the token family, for TRL.

    Args:
        env, options: as `Questions` has them.
    """

    def dataset(self) -> Any:
        """A `datasets.Dataset` with `prompt` (messages), `index`, `question` and `answer`.

        Further columns of the data are there too, None where a question has not that one: reward
        functions are given them by name.

        Raises:
            UsageError: the library `datasets` is not installed, or a column has the name of one of
                these.
        """
        try:
            from datasets import Dataset
        except ImportError as error:
            raise UsageError("TRL wants datasets; pip install 'latentgym[trl]'.") from error
        asked = [self.task.question(index) for index in range(len(self))]
        names = list(dict.fromkeys(name for each in asked for name in each.extra))
        if clash := sorted({*_COLUMNS}.intersection(names)):
            raise UsageError(f"the data have a column {clash[0]}; give it another name.")
        rows = [
            {
                **dict(zip(_COLUMNS, (self.messages(i), i, each.text, each.gold), strict=True)),
                **{name: each.extra.get(name) for name in names},
            }
            for i, each in enumerate(asked)
        ]
        return Dataset.from_list(rows)

    @property
    def rewards(self) -> list[RewardFunction]:
        """Reward functions with TRL's calling convention: the task's score.

        What could not be graded in time has no reward, which TRL leaves out. A grader that fails
        raises.
        """

        def score(completions: Sequence[Any], index: Sequence[int], **_: Any) -> list[float | None]:
            grades = [
                self.grade(i, said(completion))
                for i, completion in zip(index, completions, strict=True)
            ]
            return [None if grade.status == "timeout" else grade.score for grade in grades]

        return [score]

    @property
    def environment(self) -> Callable[[], SearchEnvironment]:
        """An `environment_factory`: what a model searches in, for tasks of retrieval.

        Raises:
            UsageError: the task has nothing to search in.
        """
        task: Any = self.task
        if not getattr(task, "acts", False):
            raise UsageError(
                f"there is nothing to search in {task.name}; use a task of retrieval, with "
                "search='action'."
            )
        return lambda: SearchEnvironment(task)


def for_search(env: str, **options: Any) -> ForGRPO:
    """The same of a task of retrieval, whose prompt asks for calls of the tool `search`.

    Args:
        env, options: as `Questions` has them.
    """
    return ForGRPO(env, **{"search": "action", "system": _SEARCHES, **options})


class SearchEnvironment:
    """What TRL makes one of for each rollout: its public method is a tool of the model's."""

    def __init__(self, task: Any) -> None:
        self._task, self._left = task, task.turns

    def reset(self, **_: Any) -> None:
        """A rollout begins."""
        self._left = self._task.turns

    def search(self, query: str) -> str:
        """
        Search an encyclopedia.

        Args:
            query: What to look for.

        Returns:
            The passages that were found.
        """
        if not self._left:
            return "That was the last search; answer now."
        self._left -= 1
        # A model may write a number where a text is asked for.
        return str(self._task.found(str(query), last=not self._left))


def said(completion: Any) -> str:
    """The text of a completion: a string, or the last message of the model's.

    A message may hold its text in parts, as those of models of several modalities do; None, which
    TRL has for a message that only calls a tool, is no text.

    Raises:
        UsageError: it is neither text nor messages.
    """
    if completion is None or isinstance(completion, str):
        return completion or ""
    messages = [completion] if isinstance(completion, Mapping) else completion
    if not isinstance(messages, Sequence) or not all(isinstance(m, Mapping) for m in messages):
        raise UsageError(f"a completion is a text or a list of messages, not {told(completion)}.")
    own = [message for message in messages if message.get("role") == "assistant"]
    content = own[-1].get("content") if own else None
    if isinstance(content, Sequence) and not isinstance(content, str):
        parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        return "".join(part for part in parts if isinstance(part, str))
    return content or ""
