"""Questions over a corpus: passages in the prompt, or found by searches of the agent's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from latentgym.data import Question
from latentgym.envs.arguments import (
    Answer,
    ExactThoughts,
    ForceAnswer,
    Format,
    System,
    Think,
)
from latentgym.envs.passages import END_FOUND, END_SEARCH, SEARCH, SYMBOLS, WORDS, Shown, query_of
from latentgym.envs.task import Demonstration, ToolCall
from latentgym.envs.text import TextTask
from latentgym.episodes.protocol import Protocol, StopMatcher
from latentgym.episodes.spaces import Family
from latentgym.errors import UsageError
from latentgym.retrieval import Hit, Passage, Retriever, retriever_of
from latentgym.rewards import Grader, SpanGrader
from latentgym.system.options.keywords import Option
from latentgym.text.tokenizers import ByteTokenizer, SymbolTokenizer, Tokenizer

_BLOCK = 64  # questions whose passages are looked up together
_REMEMBERED = 1 << 15
_FRAME = 48  # tokens of a response beside its passages
_SHORT = "The answer is a name, a date, a number, yes or no, in as few words as possible."
_SEARCHES = (
    f"Where you lack knowledge, write a query between {SEARCH} and {END_SEARCH}: the passages that "
    "a search finds will follow. You may search {turns} times."
)


class RetrievalTask(TextTask):
    """Questions whose answers stand in passages of a corpus.

    With `search="prompt"` the best passages for the question stand in the prompt, as HRPO trains.
    With `search="action"` the agent writes queries between search markers, and the environment
    inserts what they find, as Search-R1 trains.

    Args:
        name: of the task.
        family: action family; a superposition spells no query, so the continuous one cannot search.
        tokenizer: of the model; bytes without one.
        data: the questions; `extra["forms"]` of each are its further gold answers.
        index: where passages are found: a folder or name for `latentgym.retrieval.retriever_of`, or
            a retriever itself; None if there are no passages.
        search: `prompt` or `action`.
        passages: how many are shown for a query; 0 for none at all.
        passage_tokens: the most tokens of each; default 192, or 768 where tokens are bytes.
        turns: how often an episode may search.
        reward: `em` (exact match) or `f1`.
        format, system, think, answer, exact_thoughts, force_answer: see `TextTask`.

    Raises:
        UsageError: options that cannot work.
    """

    def __init__(
        self,
        name: str,
        family: Family,
        tokenizer: Tokenizer | None,
        data: Any,
        index: Retriever | Path | str | None,
        *,
        search: Annotated[
            Literal["prompt", "action"],
            Option("`prompt`: passages stand in the prompt; `action`: the agent searches"),
        ] = "prompt",
        passages: Annotated[int, Option("how many are shown for a query", 0, 1000)] = 3,
        passage_tokens: Annotated[int, Option("the most tokens of each", 1, 100_000)] | None = None,
        turns: Annotated[int, Option("how often an episode may search", 1, 1000)] = 4,
        reward: Annotated[Literal["em", "f1"], Option("exact match, or F1 of the words")] = "em",
        format: Format = "hashes",
        system: System | None = None,
        think: Think = 256,
        answer: Answer = 32,
        exact_thoughts: ExactThoughts = False,
        force_answer: ForceAnswer | None = None,
    ) -> None:
        tokenizer = tokenizer or ByteTokenizer()
        if passage_tokens is None:
            passage_tokens = 768 if isinstance(tokenizer, ByteTokenizer) else 192
        if search == "action" and (family.mixes or exact_thoughts or not passages):
            raise UsageError(
                "search=action needs thoughts that are read by single tokens (token or hybrid "
                "family), passages above 0 and no exact_thoughts; or choose search=prompt."
            )
        self.reward = reward
        super().__init__(
            family,
            tokenizer,
            data,
            SpanGrader(reward=reward),
            format=format,
            system=system,
            think=think,
            answer=answer,
            exact_thoughts=exact_thoughts,
            force_answer=force_answer,
        )
        self.name, self.split, self.source = name, data.split, data.source
        self.dataset_hash, self.licence = data.hash, data.licence
        self.acts = search == "action"
        self.passages, self.turns = passages, turns if self.acts else 0
        self._index = index
        self._hits: dict[int, list[Hit]] = {}
        wording = SYMBOLS if isinstance(tokenizer, SymbolTokenizer) else WORDS
        self.shown = Shown(tokenizer, wording, (self.format.marker,), passage_tokens)
        self._response_tokens = passages * (passage_tokens + 16) + _FRAME
        if system is None:
            rules = [self.system, _SHORT, *[_SEARCHES.format(turns=turns)] * self.acts]
            self.system = " ".join(rules)
        self.prompt_budget = 1024 + (0 if self.acts else self._response_tokens)
        if isinstance(tokenizer, ByteTokenizer):
            self.prompt_budget *= 4
        found = {} if index is None else dict(self.retriever.about)
        self.about = {"search": search, "passages": passages, "turns": self.turns, "index": found}

    @property
    def retriever(self) -> Retriever:
        """Finds the passages."""
        assert self._index is not None  # or there would be nothing to find
        where = self._index
        return retriever_of(where) if isinstance(where, str | Path) else where

    def hits(self, index: int) -> list[Hit]:
        """The passages in a question's prompt, best first."""
        if index not in self._hits:
            if len(self._hits) > _REMEMBERED:
                self._hits.clear()
            start = index - index % _BLOCK
            block = range(start, min(start + _BLOCK, len(self)))
            queries = [self.question(i).text for i in block]
            self._hits |= zip(block, self.retriever.search(queries, self.passages), strict=True)
        return self._hits[index]

    def prompt(self, index: int) -> list[int]:
        text = self.question(index).text
        if self.passages and not self.acts:
            text = self.shown.prompt(_passages(self.hits(index)), text)
        return self.tokenizer.chat(self.system, text)

    def protocol(self) -> Protocol:
        rules = super().protocol()
        if not self.acts:
            return rules
        call = StopMatcher(END_SEARCH, self.tokenizer.pieces())
        return replace(
            rules,
            tool_call=call,
            max_tool_calls=self.turns,
            max_tool_response=self._response_tokens,
        )

    def tool_responses(self, calls: Sequence[ToolCall]) -> list[list[int]]:
        queries = [query_of(call.text) for call in calls]
        found = self.retriever.search(queries, self.passages)
        return [
            self._fitted(
                self.shown.response(query, _passages(hits), last=call.number == self.turns)
            )
            for call, query, hits in zip(calls, queries, found, strict=True)
        ]

    def found(self, query: str, *, last: bool) -> str:
        """What a search finds, as text, for whoever has tools of their own.

        Args:
            query: of the search.
            last: whether no other search is allowed.
        """
        (hits,) = self.retriever.search([query], self.passages)
        return self.shown.response(query, _passages(hits), last=last)

    def tool_call_start(self, text: str) -> int:
        return max(0, text.rfind(SEARCH if SEARCH in text else END_SEARCH))

    def _fitted(self, response: str) -> list[int]:
        """The tokens of a response; what exceeds the budget is cut, but not its last marker."""
        encode = self.tokenizer.encode
        ids = encode(f"\n{response}\n")
        if len(ids) > self._response_tokens:
            end = encode(f"\n{END_FOUND}\n")
            ids = [*ids[: self._response_tokens - len(end)], *end]
        return ids

    def grader_of(self, question: Question) -> Grader:
        return SpanGrader(tuple(question.extra.get("forms", ())), self.reward)

    def demonstration(self, index: int) -> Demonstration:
        """A right chain; where the agent searches, with a query for each passage it needs.

        Questions that do not tell their queries are searched for as they are.
        """
        whole = super().demonstration(index)
        if not self.acts:
            return whole
        question, encode = self.question(index), self.tokenizer.encode
        chain: list[int] = []
        inserted: list[bool] = []
        queries = question.extra.get("queries") or (question.text,)
        for number, query in enumerate(queries[: self.turns], start=1):
            said = f"{SEARCH} {query} {END_SEARCH}"
            (response,) = self.tool_responses([ToolCall(index, said, number)])
            own = encode(said)
            chain += [*own, *response]
            inserted += [False] * len(own) + [True] * len(response)
        rest = whole.ids_TS[:, 0].tolist()
        shown = Demonstration.of_tokens([*chain, *rest], len(chain) + whole.thoughts)
        return replace(shown, inserted_T=np.array(inserted + [False] * len(rest)))


def _passages(hits: Sequence[Hit]) -> list[Passage]:
    return [hit.passage for hit in hits]
