"""BM25 without Java, by the library bm25s; it ranks a little otherwise than Lucene."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from latentgym.data.passage import Passage
from latentgym.retrieval.corpus import contents
from latentgym.retrieval.retriever import Hit, RetrievalError, cleaned, require_k

INSTALL = "pip install bm25s PyStemmer"


def library() -> Any:
    """The module.

    Raises:
        RetrievalError: it is not installed, or its stemmer is not.
    """
    try:
        import_module("Stemmer")
        return import_module("bm25s")
    except ImportError as error:
        raise RetrievalError(f"engine bm25s needs a library ({error}); {INSTALL}.") from error


def _tokens(texts: Sequence[str]) -> Any:
    stemmer = import_module("Stemmer").Stemmer("english")
    return library().tokenize(
        texts, stopwords="en", stemmer=stemmer, return_ids=False, show_progress=False
    )


def write_index(passages: Iterable[Passage], folder: Path, k1: float, b: float) -> None:
    """Index passages, which are kept in memory meanwhile."""
    bm25s = library()
    rows = [{"id": p.id, "title": p.title, "text": p.text} for p in passages]
    index = bm25s.BM25(method="lucene", k1=k1, b=b)
    texts = [contents(Passage(**row)) for row in rows]
    index.index(_tokens(texts), show_progress=False)
    index.save(str(folder), corpus=rows, show_progress=False)


class BM25sRetriever:
    """An index of bm25s; see `Retriever`. Of equal scores the earlier passage is first.

    Args:
        folder: of the index.
        about: what is known of it.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder, self.about = folder, about
        self._index: Any = None

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        require_k(k)
        index = self._opened()
        asked = [(i, words) for i, words in enumerate(self._words(queries)) if words]
        found: list[list[Hit]] = [[] for _ in queries]
        if asked:
            k = min(k, len(index.corpus))
            row_QK, score_QK = index.retrieve(
                [words for _, words in asked],
                corpus=range(len(index.corpus)),
                k=k,
                show_progress=False,
            )
            for (i, _), row_K, score_K in zip(asked, row_QK, score_QK, strict=True):
                best = sorted(zip(-score_K, row_K, strict=True))
                found[i] = [
                    Hit(Passage(**index.corpus[int(row)]), float(-score))
                    for score, row in best
                    if score < 0  # a passage without a word of the query is none that was found
                ]
        return found

    def count(self) -> int:
        """How many passages the index has."""
        return len(self._opened().corpus)

    def close(self) -> None:
        self._index = None

    def _words(self, queries: Sequence[str]) -> list[list[str]]:
        known = self._opened().vocab_dict
        tokens = _tokens([cleaned(query) for query in queries])
        return [[word for word in words if word in known] for words in tokens]

    def _opened(self) -> Any:
        if self._index is None:
            bm25s = library()
            try:
                self._index = bm25s.BM25.load(
                    str(self.folder), load_corpus=True, mmap=True, show_progress=False
                )
            except (OSError, ValueError, KeyError) as error:
                raise RetrievalError(
                    f"{self.folder} is damaged ({type(error).__name__}: {error}); build it again."
                ) from error
        return self._index

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_index": None}
