"""How passages are shown to a model, and how it asks for them.

The agent writes `<search> query </search>`, and the environment inserts passages between
`<information>` and `</information>`. They are hostile text: whatever in them could be taken for a
marker or an answer is broken up before a model reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from latentgym.retrieval import Passage
from latentgym.text.tokenizers import Tokenizer, breaking, one_line

SEARCH, END_SEARCH = "<search>", "</search>"
FOUND, END_FOUND = "<information>", "</information>"
MARKERS = (SEARCH, END_SEARCH, FOUND, END_FOUND)

_MOST_CHARS = 1 << 14  # of a passage; more is not even tokenised


@dataclass(frozen=True)
class Wording:
    """What stands around passages.

    Attributes:
        passage: one of them, from its `number`, `title` and `text`.
        prompt: passages and question in one prompt, from `found` and `question`.
        nothing, no_query, last: said where nothing was found, where a call held no query, and
            behind the last search that is allowed.
    """

    passage: str
    prompt: str
    nothing: str = ""
    no_query: str = ""
    last: str = ""


WORDS = Wording(
    passage="[{number}] {title}: {text}",
    prompt="Here is what a search has found; it may or may not help.\n{found}\n\n"
    "Question: {question}",
    nothing="Nothing was found.",
    no_query=f"There was no query; write it between {SEARCH} and {END_SEARCH}.",
    last="That was the last search; answer now.",
)
# For models that know the symbols of a generated encyclopedia only, whose passages name their
# subject themselves.
SYMBOLS = Wording(passage="{text}", prompt="{found} {question}")


def query_of(text: str) -> str:
    """The query in a text that ends in a search marker; empty where it holds none."""
    asked, _, _ = text.rpartition(END_SEARCH)
    _, marker, query = asked.rpartition(SEARCH)
    return " ".join(query.split()) if marker else ""


def plain(text: str) -> str:
    """As much of a passage's text as may be shown, in one line."""
    return one_line(text[:_MOST_CHARS])


class Shown:
    """Passages as a model reads them.

    Args:
        tokenizer: of the model.
        wording: around them.
        markers: texts that must not stand in a passage, beside the search markers.
        passage_tokens: the most tokens of a passage; the rest is cut off.
    """

    def __init__(
        self, tokenizer: Tokenizer, wording: Wording, markers: Iterable[str], passage_tokens: int
    ) -> None:
        self._tokenizer, self._wording, self._most = tokenizer, wording, passage_tokens
        self.harmless = breaking([*MARKERS, *markers])

    def found(self, passages: Sequence[Passage], *notices: str) -> str:
        """A block of passages, and what the environment has to say beside."""
        wording, lines = self._wording, []
        for number, passage in enumerate(passages, start=1):
            title, text = plain(passage.title) or "untitled", self._cut(plain(passage.text))
            lines.append(wording.passage.format(number=number, title=title, text=text))
        body = self.harmless("\n".join(lines))
        return "\n".join([FOUND, *filter(None, [body, *notices]), END_FOUND])

    def prompt(self, passages: Sequence[Passage], question: str) -> str:
        """A question behind its passages."""
        notices = () if passages else (self._wording.nothing,)
        found = self.found(passages, *notices)
        return self._wording.prompt.format(found=found, question=question)

    def response(self, query: str, passages: Sequence[Passage], *, last: bool) -> str:
        """What follows a search.

        Args:
            query: empty where there was none.
            passages: found for it.
            last: whether no other search is allowed.
        """
        wording = self._wording
        problem = "" if passages else wording.nothing if query else wording.no_query
        return self.found(passages, problem, wording.last if last else "")

    def _cut(self, text: str) -> str:
        if len(text.encode()) <= self._most:  # a token has a byte or more
            return text
        ids = self._tokenizer.encode(text)
        return text if len(ids) <= self._most else self._tokenizer.decode(ids[: self._most]).strip()
