"""What a retriever is: queries in, the best passages of a corpus out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from latentgym.data.passage import Passage
from latentgym.errors import LatentGymError, UsageError
from latentgym.text.tokenizers import one_line

# Lucene takes at most 1024 clauses, and a character may be one.
MOST_CHARACTERS = 1000


class RetrievalError(LatentGymError, RuntimeError):
    """An index that cannot be built, opened or searched; the message says what to do."""


@dataclass(frozen=True)
class Hit:
    """A passage that was found, and how well it fits: higher is better."""

    passage: Passage
    score: float


class Retriever(Protocol):
    """Finds passages; safe to share between threads.

    Attributes:
        about: what a record should know of it, plain data: `engine` (`lucene` or `bm25s`), its
            `version`, how many `passages`, the `corpus` hash (16 hexadecimal digits, or None for an
            index that was built elsewhere), and the settings of its ranking.
    """

    about: Mapping[str, Any]

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """The best passages for each query, best first.

        Args:
            queries: any text, see `cleaned`; an empty query finds nothing.
            k: how many at most, at least 1.

        Raises:
            UsageError: k is below 1.
            RetrievalError: the engine failed; it has been restarted, or says what to do.
        """
        ...

    def close(self) -> None:
        """End what belongs to it; a later search starts it again."""
        ...


def cleaned(query: str) -> str:
    """What is searched for: the first characters of a query in one line, without invisible ones."""
    return one_line(query[: 4 * MOST_CHARACTERS])[:MOST_CHARACTERS]


def require_k(k: int) -> None:
    """Raise `UsageError` unless k is a number of passages that can be asked for."""
    if k < 1:
        raise UsageError(f"k is how many passages are found, at least 1, not {k}.")
