"""What a retriever is: queries in, the best passages of a corpus out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from latentgym.errors import LatentGymError


class RetrievalError(LatentGymError, RuntimeError):
    """An index that cannot be built, opened or searched; the message says what to do."""


@dataclass(frozen=True)
class Passage:
    """A piece of text that can be found.

    Attributes:
        id: unique in its corpus.
        title: of the article it is from; empty if it has none.
        text: what it says.
    """

    id: str
    title: str
    text: str


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
            queries: any text. What no index could use (control characters, all beyond the first
                few thousand characters) is left out; an empty query finds nothing.
            k: how many at most, at least 1.

        Raises:
            UsageError: k is below 1.
            RetrievalError: the engine failed; it has been restarted, or says what to do.
        """
        ...

    def close(self) -> None:
        """End what belongs to it; a later search starts it again."""
        ...
