"""What both engines do alike."""

from __future__ import annotations

import copy
import os
import pickle
import random
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentgym.errors import UsageError
from latentgym.retrieval import Passage, Retriever, open_index
from latentgym.retrieval.retriever import MOST_CHARACTERS, cleaned


def ids(retriever: Retriever, *queries: str, k: int = 3) -> list[list[str]]:
    return [[hit.passage.id for hit in hits] for hits in retriever.search(queries, k)]


def test_a_name_finds_its_passage(retriever: Retriever, passages: Sequence[Passage]) -> None:
    some = random.Random(0).sample(list(passages), 60)
    found = retriever.search([passage.title for passage in some], 1)
    assert [hits[0].passage for hits in found] == some


def test_hits_come_best_first_and_at_most_k(retriever: Retriever) -> None:
    [hits] = retriever.search(["baker born in town"], 7)
    scores = [hit.score for hit in hits]
    assert len(hits) == 7 and scores == sorted(scores, reverse=True) and scores[-1] > 0
    assert ids(retriever, "baker born in town", k=3)[0] == [hit.passage.id for hit in hits[:3]]


def test_many_at_once_are_one_by_one(retriever: Retriever, passages: Sequence[Passage]) -> None:
    queries = [p.text[:60] for p in passages[:40]] + ["", "zzzz", "the"]
    together = retriever.search(queries, 4)
    assert together == [retriever.search([query], 4)[0] for query in queries]
    assert together[-3:] == [[], [], []]
    assert retriever.search([], 4) == []


def test_more_than_there_are(retriever: Retriever, passages: Sequence[Passage]) -> None:
    [hits] = retriever.search(["baker"], 10_000)
    assert 0 < len(hits) < len(passages)


@pytest.mark.parametrize("k", [0, -1])
def test_k_must_be_positive(retriever: Retriever, k: int) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        retriever.search(["baker"], k)


def test_queries_are_cleaned() -> None:
    assert cleaned("  a\x00b\n\u202ec \ud800 ") == "a b c"
    assert len(cleaned("word " * 100_000)) <= MOST_CHARACTERS
    assert cleaned("\x01\x02") == ""


def test_operators_and_marks_are_words(retriever: Retriever, passages: Sequence[Passage]) -> None:
    title = passages[0].title
    hostile = [f"{title} AND (", f'"{title}', f"{title} +-*?~^:[]{{}}!\\/ ||", f"<b>{title}</b>"]
    assert [hits[0] for hits in ids(retriever, *hostile, k=1)] == [passages[0].id] * 4


@pytest.mark.parametrize("engine", ["lucene", "bm25s"])
@pytest.mark.slow
def test_no_query_breaks_an_engine(engine: str, index: Callable[[str], Path]) -> None:
    opened = open_index(index(engine))
    alphabet = st.characters(codec=None)  # halves of surrogate pairs among them

    @settings(max_examples=50)
    @given(st.lists(st.text(alphabet, max_size=300), min_size=100, max_size=100))
    def ask(queries: list[str]) -> None:
        assert all(len(hits) <= 2 for hits in opened.search(queries, 2))

    ask()
    long = ["x" * 100_000, "a b " * 25_000, " ".join(map(chr, range(0x4E00, 0x4E00 + 5000)))]
    assert len(opened.search(long, 2)) == 3
    opened.close()


def test_threads_share_one(retriever: Retriever, passages: Sequence[Passage]) -> None:
    titles = [passage.title for passage in passages[:24]]
    expected = retriever.search(titles, 2)
    found: dict[int, object] = {}

    def ask(i: int) -> None:
        found[i] = retriever.search([titles[i]], 2)[0]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(titles))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert [found[i] for i in range(len(titles))] == expected


@pytest.mark.thorough
def test_copies_search_on_their_own(retriever: Retriever, passages: Sequence[Passage]) -> None:
    expected = retriever.search([passages[3].title], 2)
    for other in (pickle.loads(pickle.dumps(retriever)), copy.deepcopy(retriever)):
        assert other.search([passages[3].title], 2) == expected
        other.close()


@pytest.mark.thorough
def test_closed_and_asked_again(retriever: Retriever, passages: Sequence[Passage]) -> None:
    expected = retriever.search([passages[3].title], 2)
    retriever.close()
    assert retriever.search([passages[3].title], 2) == expected


def test_a_forked_copy_searches_too(retriever: Retriever, passages: Sequence[Passage]) -> None:
    expected = ids(retriever, passages[5].title)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            right = ids(retriever, passages[5].title) == expected
            os.write(writing, b"1" if right else b"0")
        finally:
            retriever.close()
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    assert os.read(reading, 1) == b"1"
    os.close(reading)
    assert ids(retriever, passages[5].title) == expected


def test_the_record_says_what_was_searched(retriever: Retriever) -> None:
    about = retriever.about
    assert about["engine"] in ("lucene", "bm25s") and about["passages"] == 300
    assert (about["k1"], about["b"], len(about["corpus"])) == (0.9, 0.4, 16)
    assert about["version"]
