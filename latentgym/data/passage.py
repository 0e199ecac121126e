"""One item of a corpus."""

from __future__ import annotations

from dataclasses import dataclass


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
