"""Generated chains: the arithmetic is computed again, and splits have none in common."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentgym.data.chains import (
    LARGEST,
    MOST_OPERATIONS,
    SPLITS,
    ChainSettings,
    GeneratedChains,
    vocabulary,
)
from latentgym.data.question import Question
from latentgym.errors import UsageError

_EQUATION = re.compile(r"([0-9]+) ([-+*/]) ([0-9]+) = ([0-9]+) ;")
_WORDS = {"doubles": 2, "triples": 3, "quadruples": 4}
_SHARES = {"half": 2, "third": 3, "quarter": 4}
_LESS = ("gives", "loses", "sells")


def told(text: str) -> Fraction:
    """The answer to a question, from its words alone."""
    opening, *sentences, closing = re.split(r" \. ", text)
    name, has, number, things = opening.split()
    assert has == "has" and closing == f"How many {things} ?"
    value = Fraction(number)
    for sentence in sentences:
        pronoun, verb, *rest = sentence.split()
        assert pronoun == ("He" if name in "Ben Tom Otto Ravi Paul Finn" else "She")
        if share := [d for word, d in _SHARES.items() if word in rest]:
            assert verb == "keeps" or (verb, share) == ("sells", [2])
            value /= share[0]
        elif verb in _WORDS:
            value *= _WORDS[verb]
        else:
            value += Fraction(rest[0]) * (-1 if verb in _LESS else 1)
    return value


def chain_of(question: Question) -> tuple[tuple[str, ...], ...]:
    """Left-hand sides and results of the equations."""
    matches = [_EQUATION.fullmatch(step) for step in question.steps]
    return tuple(match.groups() for match in matches if match)


@given(
    st.sampled_from(sorted(SPLITS)),
    st.integers(0, 2**40),
    st.integers(0, 10**6),
    st.integers(1, MOST_OPERATIONS),
    st.integers(1, MOST_OPERATIONS),
    st.integers(9, LARGEST),
)
def test_chains_are_right(
    split: str, seed: int, index: int, one: int, other: int, largest: int
) -> None:
    settings = ChainSettings(min(one, other), max(one, other), largest, seed)
    question = GeneratedChains(split, 10**6 + 1, settings)[index]
    equations = chain_of(question)
    assert min(one, other) <= len(equations) == len(question.steps) <= max(one, other)
    assert question.extra["operations"] == len(equations)
    before = question.text.split()[2]
    for left, sign, right, result in equations:
        exact = eval(f"Fraction({left}) {sign} {right}", {"Fraction": Fraction})
        assert left == before and exact == int(result)
        assert 0 <= int(result) <= largest and 0 < int(right) <= 19
        before = result
    assert question.gold == before and told(question.text) == int(before)
    # One symbol a word, short enough for tiny models.
    symbols = set(vocabulary())
    assert {*question.text.split(), *" ".join(question.steps).split()} <= symbols
    assert len(question.text.split()) < 30


def test_no_chain_is_in_two_splits_whatever_the_seed() -> None:
    chains = {
        split: {chain_of(data[i]) for i in range(300)}
        for seed, split in enumerate(SPLITS)
        for data in [GeneratedChains(split, settings=ChainSettings(1, 2, 30, seed))]
    }
    assert len({chain for found in chains.values() for chain in found}) == sum(
        len(found) for found in chains.values()
    )
    # Short chains repeat, so that a leak would show.
    assert all(len(found) < 300 for found in chains.values())


def test_questions_are_functions_of_seed_split_and_number() -> None:
    data, again = GeneratedChains("test"), GeneratedChains("test")
    assert [again[i] for i in (7, 3, 7)] == [data[i] for i in (7, 3, 7)]
    assert again.hash == data.hash and len(data) == 1000 and len(GeneratedChains("train")) == 20_000
    others = [
        GeneratedChains("valid"),
        GeneratedChains("test", 999),
        GeneratedChains("test", settings=ChainSettings(seed=1)),
        GeneratedChains("test", settings=ChainSettings(max_operations=3)),
    ]
    assert len({other.hash for other in others} | {data.hash}) == 5
    assert data[0].text != others[2][0].text
    with pytest.raises(IndexError):
        data[1000]
    assert len(list(GeneratedChains("valid", 3))) == 3


def test_no_constant_answer_goes_far() -> None:
    data = GeneratedChains("train")
    golds = [data[i].gold for i in range(1000)]
    assert max(golds.count(gold) for gold in golds) < 40
    # Nor does the last number of the question.
    numbers = [re.findall("[0-9]+", data[i].text)[-1] for i in range(1000)]
    assert sum(n == g for n, g in zip(numbers, golds, strict=True)) < 50


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"min_operations": 0}, "has 1 to 4 operations"),
        ({"max_operations": 5}, "has 1 to 4 operations"),
        ({"min_operations": 4, "max_operations": 3}, "has 1 to 4 operations"),
        ({"largest": 100}, "from 9 to 99"),
        ({"largest": 8}, "from 9 to 99"),
        ({"seed": 0.5}, "seed must be a whole number"),
    ],
)
def test_bad_settings(settings: dict[str, int], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        ChainSettings(**settings)
    for split, size in [("dev", None), ("test", 0), ("test", 1.5)]:
        with pytest.raises(UsageError, match=r"no split|at least 1"):
            GeneratedChains(split, size)  # type: ignore[arg-type]
