"""The prompt of a question as chat messages, for those who read texts and not token ids."""

from __future__ import annotations

import copy
from typing import Any

Messages = list[dict[str, str]]


class _Overhearing:
    """A tokenizer that keeps what it is asked to put into a chat template."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.messages: Messages = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def chat(self, system: str, user: str) -> list[int]:
        self.messages = [{"role": "user", "content": user}]
        if system:
            self.messages.insert(0, {"role": "system", "content": system})
        ids: list[int] = self._tokenizer.chat(system, user)
        return ids


def messages_of(task: Any, index: int) -> Messages:
    """The prompt of a question: its system message, if there is one, and the user's.

    Where a task has symbols of its own and no chat, its prompt is what the user says.

    Args:
        task: a `latentgym.envs.Task`.
        index: number of the question.
    """
    task = copy.copy(task)
    task.tokenizer = overhearing = _Overhearing(task.tokenizer)
    ids = task.prompt(index)
    return overhearing.messages or [{"role": "user", "content": overhearing.decode(ids)}]
