"""Episodes in progress: N rows of one task, shared by the single and the vector environment.

Legend: N rows, P prompt budget, M most tokens inserted at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from latentgym.envs.task import Task, ToolCall
from latentgym.episodes.protocol import EpisodeState, Phase, Protocol
from latentgym.errors import PromptTooLongError
from latentgym.system.terminal import printable

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Observation = dict[str, Any]

OBSERVATION: Mapping[str, str] = {
    "prompt": "token ids of the question's prompt, from the left; padding after it",
    "prompt_length": "how many of them are the prompt",
    "phase": "what the next action is: 0 a thought, 1 a token of the answer; 2 never shows, as a "
    "tool call is answered at once; 3 nothing, the episode is over",
    "thoughts_used": "thoughts so far; what the environment inserts is none",
    "answer_used": "tokens of the answer so far",
    "token": "the token that the last action was read by; padding before the first",
    "inserted": "token ids that the environment has inserted after the last action (a tool "
    "response, the forced prompt of an answer), which the agent reads next; padding after it",
    "inserted_length": "how many of them; 0 mostly",
}
"""The entries of an observation, and what each is."""

_FIRST_CAPACITY = 16
_THOUGHT, _WORD, _ANSWER, _RESPONSE = 1, 2, 4, 8  # parts of an episode; a token may be of several


class LiveEpisodes:
    """State and bookkeeping of N episodes.

    Args:
        task: gives questions, rules and grades.
        n: rows.
        protocol: the task's rules, where somebody has them already: their tables are large.

    Attributes:
        protocol: the rules.
        index_N: the question of each row.
        state: where each row stands.
        last_N: the token that each row's last action was read by.
        as_token_N: which of the last actions a model reads as that token: those of answers, and
            the one that completes the marker.
    """

    def __init__(self, task: Task, n: int, protocol: Protocol | None = None) -> None:
        self.task = task
        self.protocol = protocol or task.protocol()
        self.state = EpisodeState(self.protocol, n)
        self.state.phase[:] = Phase.DONE  # nothing runs before the first reset
        self.index_N: IntArray = np.zeros(n, dtype=np.int64)
        # Thoughts, answer tokens and inserted tokens, row by row, and which of these each token is.
        self._token_NT = np.zeros((n, _FIRST_CAPACITY), dtype=np.int64)
        self._part_NT = np.zeros((n, _FIRST_CAPACITY), dtype=np.uint8)
        self._used_N: IntArray = np.zeros(n, dtype=np.int64)
        self._heard_N: IntArray = np.zeros(n, dtype=np.int64)  # recorded up to the last response
        self.last_N: IntArray = np.zeros(n, dtype=np.int64)
        self.as_token_N: BoolArray = np.zeros(n, dtype=bool)
        self._prompt_NP = np.full((n, task.prompt_budget), task.tokenizer.pad_id, dtype=np.int64)
        self._prompt_length_N: IntArray = np.zeros(n, dtype=np.int64)
        self.insert_budget = max(
            1, len(self.protocol.forced_prompt), self.protocol.max_tool_response
        )
        self._inserted_NM = np.full((n, self.insert_budget), task.tokenizer.pad_id, dtype=np.int64)
        self._inserted_length_N: IntArray = np.zeros(n, dtype=np.int64)
        self._known: dict[str, npt.NDArray[Any]] = {}  # infos from the beginning, by name
        self._final: dict[int, dict[str, Any]] = {}  # of the rows that are over

    def observation_space(self) -> spaces.Dict:
        """The space of one row's observation."""
        vocab, p, m = self.task.tokenizer.vocab_size, self.task.prompt_budget, self.insert_budget
        return spaces.Dict(
            prompt=spaces.Box(0, vocab - 1, (p,), np.int64),
            prompt_length=spaces.Discrete(p + 1),
            phase=spaces.Discrete(len(Phase)),
            thoughts_used=spaces.Discrete(self.protocol.think.steps + 1),
            answer_used=spaces.Discrete(self.protocol.answer.steps + 1),
            token=spaces.Discrete(vocab),
            inserted=spaces.Box(0, vocab - 1, (m,), np.int64),
            inserted_length=spaces.Discrete(m + 1),
        )

    def observe(self) -> Observation:
        """The observations of all rows, batched; every call gives fresh arrays."""
        return {
            "prompt": self._prompt_NP.copy(),
            "prompt_length": self._prompt_length_N.copy(),
            "phase": self.state.phase.copy(),
            "thoughts_used": self.state.think_used.copy(),
            "answer_used": self.state.answer_used.copy(),
            "token": self.last_N.copy(),
            "inserted": self._inserted_NM.copy(),
            "inserted_length": self._inserted_length_N.copy(),
        }

    def speaks(self, row: int) -> bool:
        """Whether the last action made the environment insert something."""
        return bool(self._inserted_length_N[row] > 0)

    def inserted(self, row: int) -> list[int]:
        """What it has inserted after the last action, or behind the prompt, token ids."""
        ids: list[int] = self._inserted_NM[row, : self._inserted_length_N[row]].tolist()
        return ids

    def prompt(self, row: int) -> list[int]:
        """The prompt of a row's question, token ids."""
        ids: list[int] = self._prompt_NP[row, : self._prompt_length_N[row]].tolist()
        return ids

    def checked_prompt(self, index: int) -> list[int]:
        """The prompt of a question.

        Raises:
            PromptTooLongError: it exceeds the prompt budget.
        """
        ids = self.task.prompt(index)
        if len(ids) > self.task.prompt_budget:
            raise PromptTooLongError(
                f"question {index} of {self.task.name} has a prompt of {len(ids)} tokens, but the "
                f"budget is {self.task.prompt_budget}; make the environment with "
                f"prompt_budget={len(ids)} or more."
            )
        return ids

    def start(self, rows: BoolArray, index_N: IntArray) -> None:
        """Begin new episodes in `rows`, with the questions of `index_N`."""
        prompts = {int(row): self.checked_prompt(int(index_N[row])) for row in np.flatnonzero(rows)}
        self.index_N[rows] = index_N[rows]
        self.last_N[rows] = self.task.tokenizer.pad_id
        self._prompt_NP[rows] = self._inserted_NM[rows] = self.task.tokenizer.pad_id
        self._inserted_length_N[rows] = 0
        self.state.reset(rows)
        for row, ids in prompts.items():
            self._used_N[row] = self._heard_N[row] = 0
            self._prompt_NP[row, : len(ids)] = ids
            self._prompt_length_N[row] = len(ids)
            self._final.pop(row, None)
            for name, value in self.info(row).items():
                kind = np.int64 if isinstance(value, int) else object
                self._known.setdefault(name, np.zeros(len(self.index_N), dtype=kind))[row] = value
        self._force_answer()

    def act(
        self, token_N: IntArray, acting_N: BoolArray | None = None
    ) -> tuple[npt.NDArray[np.float64], dict[int, dict[str, Any]]]:
        """One action in every row that is not done, read by its token.

        A row that calls waits until `respond` is called.

        Args:
            token_N: the tokens.
            acting_N: which rows act at all; None for all.

        Returns:
            Rewards (N,), and for each row that ended its final info.
        """
        before = self.state.phase.copy()
        acting = before != Phase.DONE
        if acting_N is not None:
            acting &= acting_N
        self._inserted_length_N[acting] = 0
        self._inserted_NM[acting] = self.task.tokenizer.pad_id
        self.as_token_N = as_token = self.state.advance(token_N, acting)
        part_N = np.where(before == Phase.ANSWER, _ANSWER | _WORD, _THOUGHT)
        part_N[as_token | self.task.family.tokens] |= _WORD
        rows = np.flatnonzero(acting)
        self._reserve(int(self._used_N[rows].max(initial=0)) + 1)
        self._token_NT[rows, self._used_N[rows]] = token_N[rows]
        self._part_NT[rows, self._used_N[rows]] = part_N[rows]
        self._used_N[rows] += 1
        for row in np.flatnonzero(as_token & (before == Phase.THINK)).tolist():
            self._count_marker(row)
        self.last_N[acting] = token_N[acting]
        self._force_answer()
        rewards = np.zeros(len(before))
        finals: dict[int, dict[str, Any]] = {}
        for row in np.flatnonzero(acting & self.state.done).tolist():
            finals[row] = self._final[row] = self._graded(row)
            rewards[row] = finals[row]["score"]
        return rewards, finals

    def pass_over(self, row: int, tokens: IntArray) -> int:
        """Take a row's next actions up to the first that is an event; how many."""
        part = _ANSWER | _WORD if self.state.phase[row] == Phase.ANSWER else _THOUGHT
        part |= _WORD if self.task.family.tokens else 0
        n = self.state.pass_over(row, tokens)
        if n:
            start, end = int(self._used_N[row]), int(self._used_N[row]) + n
            self._reserve(end)
            self._token_NT[row, start:end], self._part_NT[row, start:end] = tokens[:n], part
            self._used_N[row], self.last_N[row] = end, tokens[n - 1]
            self._inserted_length_N[row] = 0
            self._inserted_NM[row] = self.task.tokenizer.pad_id
        return n

    def _count_marker(self, row: int) -> None:
        """Count all tokens of the marker that a row has just completed as text."""
        matcher, end = self.protocol.marker, int(self._used_N[row])
        assert matcher is not None  # or no token would be plain while thinking
        for begin in range(end - 1, max(-1, end - 1 - matcher.final), -1):
            self._part_NT[row, begin] |= _WORD
            if matcher.text in self.task.tokenizer.decode(self._token_NT[row, begin:end].tolist()):
                return

    def _force_answer(self) -> None:
        """Insert the forced prompt of an answer, where the rules say so."""
        rows = np.flatnonzero(self.state.forced_left > 0)
        for row in rows.tolist():
            self._insert(row, self.protocol.forced_prompt, _WORD)
        self.state.resume(rows)

    def waiting(self, rows: BoolArray) -> bool:
        """Whether one of these rows waits for a response."""
        return bool((rows & (self.state.phase == Phase.TOOL_CALL)).any())

    def respond(self) -> None:
        """Insert the responses to all calls that wait, which are asked for at once.

        Raises:
            ValueError: the task gave a response that its own rules do not allow.
        """
        rows = np.flatnonzero(self.state.phase == Phase.TOOL_CALL)
        if not rows.size:
            return
        calls = [
            ToolCall(int(self.index_N[row]), self._said(row), int(self.state.tool_calls_used[row]))
            for row in rows.tolist()
        ]
        for row, ids in zip(rows.tolist(), self.task.tool_responses(calls), strict=True):
            if not 1 <= len(ids) <= self.protocol.max_tool_response:
                raise ValueError(
                    f"{self.task.name} responded with {len(ids)} tokens; a response has at "
                    f"least one and at most "
                    f"Protocol.max_tool_response = {self.protocol.max_tool_response}."
                )
            self._insert(row, ids, _RESPONSE)
            self._heard_N[row] = self._used_N[row]
        self.state.resume(rows)

    def _said(self, row: int) -> str:
        """The text of a row's tokens since the last response."""
        start, end = self._heard_N[row], self._used_N[row]
        return self.task.tokenizer.decode(self._token_NT[row, start:end].tolist())

    def _insert(self, row: int, ids: Sequence[int], part: int) -> None:
        self._inserted_NM[row, : len(ids)] = ids
        self._inserted_length_N[row] = len(ids)
        start, end = int(self._used_N[row]), int(self._used_N[row]) + len(ids)
        self._reserve(end)
        self._token_NT[row, start:end], self._part_NT[row, start:end] = ids, part
        self._used_N[row] = end

    def _reserve(self, length: int) -> None:
        """Make room for that many tokens per row."""
        missing = length - self._token_NT.shape[1]
        if missing > 0:
            grow = ((0, 0), (0, max(missing, self._token_NT.shape[1])))
            self._token_NT, self._part_NT = (
                np.pad(self._token_NT, grow),
                np.pad(self._part_NT, grow),
            )

    def _text(self, row: int, part: int) -> str:
        """The text of one part of a row: all of it, its thoughts, or its answer."""
        used = self._used_N[row]
        chosen = (self._part_NT[row, :used] & part) > 0
        return self.task.tokenizer.decode(self._token_NT[row, :used][chosen].tolist())

    def info(self, row: int) -> dict[str, Any]:
        """What is known of a row from its beginning."""
        index = int(self.index_N[row])
        question = self.task.question(index)
        return {
            "question": question.text,
            "target": question.gold,
            "dataset": self.task.name,
            "source": self.task.source,
            "index": index,
            # Pairs, as Gymnasium's vector environments take a dict for infos of their own.
            **(
                {"columns": columns} if (columns := tuple(self.task.columns(index).items())) else {}
            ),
        }

    def final(self, row: int) -> dict[str, Any]:
        """What is known of a row that is over: its beginning, and its grade."""
        return {**self.info(row), **self._final[row]}

    def infos(self, rows: BoolArray) -> dict[str, Any]:
        """What is known of these rows from their beginning, batched as Gymnasium does, with masks.

        A new dict of new arrays; an info that has no entry for a row is None or 0 there.
        """
        batch: dict[str, Any] = {}
        for name, value_N in self._known.items() if rows.any() else ():
            missing: Any = None if value_N.dtype == object else 0
            batch[name] = np.where(rows, value_N, missing)
            batch[f"_{name}"] = rows.copy()
        return batch

    def _graded(self, row: int) -> dict[str, Any]:
        completion, answer = self._text(row, _WORD), self._text(row, _ANSWER)
        grade = self.task.grade(int(self.index_N[row]), completion, answer)
        return {
            "answer": answer,
            "completion": completion,
            "parsed": "" if grade.parsed is None else grade.parsed,
            "status": grade.status,
            "score": float(grade.score),
            "thoughts": int(self.state.think_used[row]),
            "tokens": int(self.state.answer_used[row]),
            **({"calls": int(self.state.tool_calls_used[row])} if self.protocol.tool_call else {}),
            **{f"reward/{name}": float(value) for name, value in grade.components.items()},
        }

    def transcript(self, row: int) -> str:
        """The episode so far as text; thoughts show as the tokens nearest to them."""
        lines = [f"question  {self.task.question(int(self.index_N[row])).text}"]
        for name, part in (("thoughts", _THOUGHT | _RESPONSE), ("answer  ", _ANSWER)):
            if text := self._text(row, part):
                lines.append(f"{name}  {printable(text)}")
        phase = Phase(int(self.state.phase[row])).name.lower()
        used, left = self.state.think_used[row], self.protocol.think.steps
        lines.append(f"phase     {phase}, {used} of {left} thoughts")
        if final := self._final.get(row):
            gold = printable(self.task.question(int(self.index_N[row])).gold)
            status = "" if final["status"] == "ok" else f" ({final['status']})"
            lines += [f"gold      {gold}", f"score     {final['score']:g}{status}"]
        return "\n".join(lines)


def batched(space: gym.Space[Any], n: int) -> gym.Space[Any]:
    """The space of n rows."""
    return gym.vector.utils.batch_space(space, n)


def one(observation: Observation, row: int) -> Observation:
    """The observation of a row, as a single environment gives it."""
    return {
        key: one(value, row) if isinstance(value, dict) else _entry(value, row)
        for key, value in observation.items()
    }


def _entry(value_N: npt.NDArray[Any], row: int) -> Any:
    # A zero-dimensional element is a NumPy scalar, as Discrete spaces want it.
    return value_N[row] if value_N.ndim == 1 else value_N[row].copy()
