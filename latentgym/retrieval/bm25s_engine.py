"""BM25 without Java, by the library bm25s; it ranks a little otherwise than Lucene."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from latentgym.data.passage import Passage
from latentgym.retrieval.corpus import contents
from latentgym.retrieval.retriever import Hit, RetrievalError, cleaned, require_k

INSTALL = "pip install 'latentgym[retrieval]'"


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
    """Index passages, which are kept in memory meanwhile.

    Raises:
        RetrievalError: none of them has a word that could be searched for.
    """
    bm25s = library()
    rows = [{"id": p.id, "title": p.title, "text": p.text} for p in passages]
    index = bm25s.BM25(method="lucene", k1=k1, b=b)
    tokens = _tokens([contents(Passage(**row)) for row in rows])
    if not any(tokens):
        raise RetrievalError(
            "no passage has a word that bm25s finds (of two letters or more, and none such as "
            "'the'); choose engine lucene, or another corpus."
        )
    index.index(tokens, show_progress=False)
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
        tokens = _tokens([cleaned(query) for query in queries])
        with self._whole():
            known = self._opened().vocab_dict
            return [self._best([word for word in words if word in known], k) for words in tokens]

    def _best(self, words: list[str], k: int) -> list[Hit]:
        """The best passages for the words of a query, all of which the index knows."""
        if not words:
            return []
        index = self._opened()
        score_N = index.get_scores(words)
        # Not the library's own choice of k, which of equal scores takes any.
        k = min(k, len(score_N))
        least = np.partition(score_N, -k)[-k]
        rows = np.flatnonzero((score_N >= least) & (score_N > 0))
        rows = rows[np.argsort(-score_N[rows], kind="stable")][:k]
        return [Hit(Passage(**index.corpus[int(row)]), float(score_N[row])) for row in rows]

    def count(self) -> int:
        """How many passages the index has."""
        with self._whole():
            return len(self._opened().corpus)

    def close(self) -> None:
        self._index = None

    def _opened(self) -> Any:
        if self._index is None:
            self._index = library().BM25.load(
                str(self.folder), load_corpus=True, mmap=True, show_progress=False
            )
        return self._index

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Within it, files that make no sense to the library are a `RetrievalError`."""
        try:
            yield
        except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise RetrievalError(
                f"{self.folder} is damaged ({type(error).__name__}: {error}); build it again."
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_index": None}
