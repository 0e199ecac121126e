"""The trie against dictionaries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentgym.errors import UsageError
from latentgym.text.trie import Trie

EOS = 9
SETS = st.sets(st.lists(st.integers(0, 3), max_size=5).map(tuple), min_size=2, max_size=30)


def children(trie: Trie, node: int) -> dict[int, int]:
    """Tokens that may follow a node, and where they lead."""
    nodes = range(trie.first_N[node], trie.first_N[node] + trie.count_N[node])
    return {int(trie.token_N[child]): child for child in nodes}


@given(SETS)
def test_it_leads_to_every_sequence_and_to_no_other(titles: set[tuple[int, ...]]) -> None:
    sequences = [(*title, EOS) for title in sorted(titles, reverse=True)]
    trie = Trie(sequences)
    found = {}

    def walk(node: int, said: tuple[int, ...]) -> None:
        below = [s for s in sequences if s[: len(said)] == said]
        alone = sequences.index(below[0]) if len(below) == 1 else -1
        assert trie.entry_N[node] == alone
        if not trie.count_N[node]:
            found[said] = int(trie.entry_N[node])
        for token, child in children(trie, node).items():
            walk(child, (*said, token))

    walk(0, ())
    assert found == {s: i for i, s in enumerate(sequences)}
    assert [tuple(row[:n]) for row, n in zip(trie.ids_EL, trie.length_E, strict=True)] == sequences
    assert len(trie) == len(sequences)


def test_a_title_that_begins_another_can_be_said() -> None:
    trie = Trie([(1, 2, EOS), (1, 2, 3, EOS), (4, EOS)])
    one = children(trie, 0)[1]
    both = children(trie, one)[2]
    assert set(children(trie, both)) == {EOS, 3}
    assert trie.entry_N[both] == -1 and trie.entry_N[children(trie, both)[EOS]] == 0


@pytest.mark.parametrize(
    ("sequences", "what"),
    [
        ([(1, EOS)], "two or more"),
        ([], "two or more"),
        ([(1, EOS), ()], "choice 1 has no tokens"),
        ([(1, EOS), (2, EOS), (1, EOS)], "choices 0 and 2"),
        ([(1, 2, 3), (1, 2)], "choices 1 and 0"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(sequences: list, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        Trie(sequences)


def test_a_hundred_thousand_titles_take_no_time() -> None:
    rng = np.random.default_rng(0)
    titles = np.unique(rng.integers(0, 3000, (100_000, 6)), axis=0)
    trie = Trie([[*row, 3000] for row in titles.tolist()])
    assert int((trie.count_N == 0).sum()) == len(titles)
