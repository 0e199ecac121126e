"""The questions of a task as chat messages, and the grades of answers in text.

For trainers that have models, templates and sampling of their own; the task's budgets are theirs to
set.
"""

from __future__ import annotations

from typing import Any

from latentgym.envs.catalogue import make_task
from latentgym.envs.task import Task
from latentgym.episodes.spaces import TOKEN
from latentgym.errors import UsageError
from latentgym.registry import resolve
from latentgym.rewards import Grade
from latentgym.text.messages import Messages, messages_of
from latentgym.text.tokenizers import ByteTokenizer


class Questions:
    """The questions of an environment of the token family.

    Args:
        env: its id, such as `latent/GSM8K-token`.
        options: keyword arguments of the environment: `split`, `limit`, `format`, `source`, ...

    Raises:
        UsageError: another family, an option that cannot work, or thoughts of a fixed number, which
            a text does not show.
        OptionError: it takes no such argument.

    Attributes:
        task: the task.
    """

    def __init__(self, env: str, **options: Any) -> None:
        env_id, name, family = resolve(env)
        if family != TOKEN.name:
            raise UsageError(
                f"{env_id} thinks in latents, which a trainer of texts has not; use "
                f"latent/{name}-token."
            )
        self.task: Task = make_task(name, TOKEN, None, options, tokenizer=ByteTokenizer())[0]
        rules = self.task.protocol()
        if rules.think.exact or rules.force_answer:
            raise UsageError(
                "a text does not show how many thoughts there were, nor a forced answer; leave "
                "exact_thoughts and force_answer out."
            )
        self._rules = rules

    def __len__(self) -> int:
        return len(self.task)

    def messages(self, index: int) -> Messages:
        """The prompt of a question: its system message, if there is one, and the user's."""
        return messages_of(self.task, index)

    def grade(self, index: int, completion: str) -> Grade:
        """Grade a completion, as the environment grades the episode that says it.

        Raises:
            GradingError: the gold answer cannot be read, or the grader failed.
        """
        marker, stop = self._rules.marker, self._rules.stop
        answer = completion.partition(marker.text)[2] if marker else completion
        if stop is not None and stop.text in answer:
            end = len(completion) - len(answer) + answer.index(stop.text) + len(stop.text)
            completion, answer = completion[:end], answer.partition(stop.text)[0] + stop.text
        return self.task.grade(index, completion, answer)
