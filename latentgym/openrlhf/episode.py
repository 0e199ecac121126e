"""An episode of a token environment whose tokens somebody else writes, such as vLLM.

What is written may go on where it is the environment's turn: tokens behind the end of an answer, or
behind a call that the environment responds to, are dropped, as the model could not have written
them had it seen what the environment says. Needs no OpenRLHF.
"""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Sequence
from typing import Any

import gymnasium

from latentgym.episodes.protocol import Phase
from latentgym.errors import PromptTooLongError, UsageError
from latentgym.evaluation.results import TROUBLES
from latentgym.openrlhf.prompts import PromptRow

_LOCK = threading.Lock()
_checked: set[tuple[str, str, str]] = set()


class Episode:
    """One episode and its transcript.

    Args:
        row: the question.
        hf_tokenizer: of the model that writes.
        max_length: of the transcript.
        logged: keep log-probabilities.

    Attributes:
        tokens: the transcript.
    """

    def __init__(self, row: PromptRow, hf_tokenizer: Any, max_length: int, logged: bool) -> None:
        self._env = _environment(row, hf_tokenizer).another()
        self._max_length = max_length
        self._observation, _ = self._env.reset(options={"index": row.index})
        length = int(self._observation["prompt_length"])
        self.tokens: list[int] = self._observation["prompt"][:length].tolist()
        self._log_probs: list[float] | None = [0.0] * length if logged else None
        self._ranges: list[tuple[int, int]] = []
        self._acted, self._reward = 0, 0.0
        self._final: dict[str, Any] | None = None
        self._truncated = self._cut = False
        self._insert()
        if self._cut or len(self.tokens) >= max_length:
            raise PromptTooLongError(
                f"question {row.index} of {row.env} begins with {len(self.tokens)} tokens, which "
                f"leaves no room for an answer; raise --data.max_len, which is {max_length}."
            )

    def room(self, most: int | None) -> int:
        """How many tokens may be written next; 0 where the episode is over.

        Args:
            most: tokens of the whole episode, None for no bound of their own.
        """
        if self._final is not None or self._cut:
            return 0
        rules, seen = self._env.protocol, self._observation
        budget = rules.think.steps - seen["thoughts_used"] if seen["phase"] == Phase.THINK else 0
        budget += rules.answer.steps - seen["answer_used"]
        left = self._max_length - len(self.tokens)
        if most is not None:
            left = min(left, most - self._acted)
        self._cut = left < 1
        return max(0, min(int(budget), left))

    def take(self, tokens: Sequence[int], log_probs: Sequence[Any] | None) -> None:
        """Act with what was written, as far as it is read.

        Args:
            tokens: at least one.
            log_probs: vLLM's, a mapping from ids for each token.

        Raises:
            RuntimeError: nothing was written.
        """
        if not len(tokens):
            raise RuntimeError("vLLM wrote no token, so the episode cannot go on.")
        taken, self._observation, reward, terminated, truncated, info = self._env.step_turn(tokens)
        start = len(self.tokens)
        self.tokens += map(int, tokens[:taken])
        self._acted += taken
        self._reward += reward
        self._extend_range(start)
        if self._log_probs is not None:
            assert log_probs is not None
            for token, known in zip(self.tokens[start:], log_probs, strict=False):
                self._log_probs.append(float(known[token].logprob))
        if terminated or truncated:
            self._final, self._truncated = info, truncated
        else:
            self._insert()

    def outcome(self) -> dict[str, Any]:
        """The part of OpenRLHF's answer that tells of the episode."""
        status = "" if self._final is None else self._final["status"]
        return {
            "observation_tokens": self.tokens,
            "action_ranges": self._ranges,
            "rollout_log_probs": self._log_probs,
            "truncated": self._truncated or self._cut,
            "reward": self._reward,
            "scores": self._reward,
            # The same keys always: OpenRLHF makes tensors of them over a batch.
            "extra_logs": {
                "thoughts": float(self._observation["thoughts_used"]),
                "tokens": float(self._observation["answer_used"]),
                "turns": float(len(self._ranges)),
                "cut": float(self._cut),
                **{f"status/{name}": float(status == name) for name in TROUBLES},
            },
        }

    def _insert(self) -> None:
        """Append what the environment says, which is no action and has no probability."""
        length = int(self._observation["inserted_length"])
        if len(self.tokens) + length > self._max_length:
            self._cut = True  # a part of a response would be another response
            return
        self.tokens += self._observation["inserted"][:length].tolist()
        if self._log_probs is not None:
            self._log_probs += [0.0] * length

    def _extend_range(self, start: int) -> None:
        """vLLM may stop where the environment has nothing to say; it is one stretch then."""
        if self._ranges and self._ranges[-1][1] == start:
            start = self._ranges.pop()[0]
        self._ranges.append((start, len(self.tokens)))


def _environment(row: PromptRow, hf_tokenizer: Any) -> Any:
    """The environment of a row, made once in a process; episodes are played in others beside it.

    Raises:
        UsageError: its data is not what the row was written for, or it has another vocabulary.
    """
    options = json.dumps(dict(row.options), sort_keys=True)
    with _LOCK:  # many episodes begin at once, and one of them makes it
        env = _made(row.env, options)
        # OpenRLHF sends a copy of the tokenizer with every prompt, so only its name is the same.
        key = row.env, options, str(hf_tokenizer.name_or_path)
        if key not in _checked:
            _check_vocabulary(env, hf_tokenizer)
            _checked.add(key)
    if row.data and row.data != env.task.dataset_hash:
        raise UsageError(
            f"the prompts were written for data {row.data}, but {env.task.source} is "
            f"{env.task.dataset_hash}; make the same data available to this worker "
            "(LATENTGYM_DATA), or write the prompts again."
        )
    return env


@functools.lru_cache(maxsize=8)
def _made(env_id: str, options: str) -> Any:
    return gymnasium.make(env_id, **json.loads(options)).unwrapped


def _check_vocabulary(env: Any, hf_tokenizer: Any) -> None:
    own = getattr(env.task.tokenizer, "hf", None)
    if own is None or own.get_vocab() != hf_tokenizer.get_vocab():
        raise UsageError(
            f"the prompts are in the vocabulary of {env.task.tokenizer.name}, but vLLM runs "
            f"{hf_tokenizer.name_or_path}; write them again with --model "
            f"{hf_tokenizer.name_or_path}."
        )
