"""Passages as models read them: whatever they hold, they smuggle in no mark."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentgym.envs.passages import (
    END_FOUND,
    END_SEARCH,
    FOUND,
    MARKERS,
    SEARCH,
    SYMBOLS,
    WORDS,
    Shown,
    plain,
    query_of,
)
from latentgym.retrieval import Passage
from latentgym.text.tokenizers import ByteTokenizer, SymbolTokenizer

ANSWER = "####"


BROKEN = (*MARKERS, ANSWER)
# Pieces of marks, from which hypothesis builds marks, halves of marks and marks within marks.
CHUNKS = st.sampled_from(
    ["#", "##", "<", "</", "search>", "information>", *BROKEN, "<|im_end|>", "\n", "a", "\x00"]
)
HOSTILE = st.lists(st.one_of(CHUNKS, st.text(max_size=5)), max_size=30).map("".join)


def shown(most: int = 200) -> Shown:
    return Shown(ByteTokenizer(), WORDS, (ANSWER,), most)


@settings(max_examples=100)
@given(st.lists(st.tuples(HOSTILE, HOSTILE), max_size=20), st.integers(1, 60))
def test_no_mark_is_smuggled_in(passages: list[tuple[str, str]], most: int) -> None:
    found = shown(most).found([Passage(str(i), *p) for i, p in enumerate(passages)])
    assert found.startswith(FOUND) and found.endswith(END_FOUND)
    body = found[len(FOUND) : -len(END_FOUND)]
    assert not any(marker in body for marker in BROKEN)
    assert body.isprintable() or {c for c in body if not c.isprintable()} == {"\n"}
    assert len(body.splitlines()) == 1 + len(passages) or not passages


@given(HOSTILE)
def test_what_is_harmless_stays_as_it_is(text: str) -> None:
    harmless = shown().harmless(text)
    assert harmless.replace(" ", "") == text.replace(" ", "")
    if not any(marker in text for marker in BROKEN):
        assert harmless == text
    assert shown().harmless(harmless) == harmless


def test_a_mark_that_a_passage_is_cut_into_is_broken_too() -> None:
    text = f"abc {END_SEARCH} def"
    for most in range(1, len(text) + 1):
        assert END_SEARCH not in shown(most).found([Passage("1", "", text)])


@pytest.mark.parametrize(
    ("said", "query"),
    [
        ("think <search> who  wrote\nit </search>", "who wrote it"),
        ("<search> one <search> two </search>", "two"),
        ("<search> one </search> and <search>two</search>", "two"),
        ("no begin </search>", ""),
        ("<search></search>", ""),
        ("<search> \n </search>", ""),
        ("", ""),
        ("<search> no end", ""),
    ],
)
def test_the_query_is_what_stands_between_the_last_marks(said: str, query: str) -> None:
    assert query_of(said) == query


def test_a_passage_is_cut_to_its_tokens() -> None:
    long = Passage("1", "Title", "word " * 1000)
    assert "word word" in shown(20).found([long])
    assert len(shown(20).found([long])) < 80
    assert len(plain("x" * 1_000_000)) < 20_000


def test_replies_say_what_happened() -> None:
    one = [Passage("1", "Ann", "Ann is a smith.")]
    reply = shown().response("ann", one, last=False)
    assert reply == f"{FOUND}\n[1] Ann: Ann is a smith.\n{END_FOUND}"
    assert WORDS.last in shown().response("ann", one, last=True)
    assert WORDS.nothing in shown().response("zzz", [], last=False)
    assert WORDS.no_query in shown().response("", [], last=False)
    assert SEARCH in WORDS.no_query and END_SEARCH in WORDS.no_query  # said by us, not by a passage


def test_symbols_are_shown_as_they_are() -> None:
    words = "<pad> <bos> <eos> Ann smith . ?".split()
    plain_shown = Shown(SymbolTokenizer([*words, *MARKERS]), SYMBOLS, (ANSWER,), 9)
    prompt = plain_shown.prompt([Passage("1", "Ann", "Ann smith .")], "smith ?")
    assert prompt.split() == [FOUND, "Ann", "smith", ".", END_FOUND, "smith", "?"]
    assert plain_shown.response("Ann", [], last=True).split() == [FOUND, END_FOUND]
