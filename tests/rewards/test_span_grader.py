"""SpanGrader: the published rules written once more in the plainest way, and all real answers."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from functools import partial
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentgym.data import DATASETS, Dataset
from latentgym.data.retrieval import HOPS
from latentgym.rewards import GraderError, SpanGrader
from latentgym.rewards.extract import MAX_TEXT

# Words and pieces that the rules treat in their own way.
PIECES = [
    *"a an the The AN A yes no noanswer Yes NO Paris paris river Rivers 12 1,200 one two".split(),
    *". , ' - _ ! ' # `".split(),
    *["’", "“", "é", "e\u0301", "a\u0301", "İ", "ß", "\u00a0", "\u200b", "\n", "\t", "中文", "a-"],
    "",
]


def plain_normalise(text: str) -> str:
    """Lower case, no ASCII punctuation, no article beside other words, single blanks."""
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    runs = ["".join(run) for _, run in groupby(kept, str.isalnum)]
    words = "".join(" " if run in ("a", "an", "the") else run for run in runs).split()
    return " ".join(words or kept.split())


def plain_f1(answer: str, gold: str) -> float:
    said, wanted = plain_normalise(answer), plain_normalise(gold)
    if said != wanted and {said, wanted} & {"yes", "no", "noanswer"}:
        return 0.0
    rest, same = wanted.split(), 0
    for word in said.split():
        if word in rest:
            rest.remove(word)
            same += 1
    if not same:
        return 0.0
    precision, recall = same / len(said.split()), same / len(wanted.split())
    return 2 * precision * recall / (precision + recall)


def check(answer: str, golds: list[str]) -> None:
    """The grade of an answer that stands alone is that of the plain rules."""
    if not all(plain_normalise(gold) for gold in golds):
        return
    exact = float(any(plain_normalise(answer) == plain_normalise(gold) for gold in golds))
    f1 = max(plain_f1(answer, gold) for gold in golds)
    gold, forms = golds[0], tuple(golds[1:])
    for reward, score in (("em", exact), ("f1", f1)):
        grade = SpanGrader(forms, reward).alone(answer, gold)  # type: ignore[arg-type]
        assert grade.components["correct"] == exact
        assert grade.components["f1"] == pytest.approx(f1, abs=1e-12)
        assert grade.score == pytest.approx(score, abs=1e-12)
        assert grade.status == ("ok" if answer.strip() else "no_answer")


texts = st.lists(st.sampled_from(PIECES), max_size=6).flatmap(
    lambda pieces: st.sampled_from([" ".join(pieces), "".join(pieces)])
)


@settings(max_examples=1000)
@given(texts | st.text(max_size=20), st.lists(texts | st.text(max_size=20), min_size=1, max_size=4))
def test_published_rules(answer: str, golds: list[str]) -> None:
    check(answer, golds)


def test_published_rules_on_near_misses() -> None:
    rng = random.Random(0)
    for _ in range(5000):
        gold = [rng.choice(PIECES) for _ in range(rng.randint(1, 6))]
        other = [rng.choice(PIECES) for _ in range(rng.randint(1, 6))]
        said = rng.sample(gold, rng.randint(0, len(gold))) + other[: rng.randint(0, 1)]
        check(rng.choice(["", " "]).join(said), [" ".join(gold), " ".join(other)])


@pytest.mark.parametrize(
    ("answer", "golds", "em", "f1"),
    [
        ("Paris", ["Paris"], 1, 1),
        ("#### the  paris.", ["Paris"], 1, 1),
        ("It is far away.\nThe answer is: Paris!", ["Paris"], 1, 1),
        ("I think of Rome.\nParis", ["Paris"], 1, 1),
        ("#### Paris, France", ["Paris"], 0, 2 / 3),
        ("#### France", ["Paris", "Republic of France"], 0, 0.5),
        ("#### Twain, Mark", ["Mark Twain"], 0, 1),
        ("#### New York New York", ["New York"], 0, 2 / 3),
        # Hyphens leave no blank, and only ASCII counts as punctuation.
        ("#### Jean-Luc", ["JeanLuc"], 1, 1),
        ("#### Jean Luc", ["Jean-Luc"], 0, 0),
        ("#### O’Hara", ["O'Hara"], 0, 0),
        ("#### O'Hara", ["OHara"], 1, 1),
        ("#### an apple a day", ["Apple day"], 1, 1),
        ("#### anthem", ["hem"], 0, 0),
        ("#### 1,200", ["1200"], 1, 1),
        ("#### 12", ["1200"], 0, 0),
        # HotpotQA's rule.
        ("#### yes", ["yes"], 1, 1),
        ("#### Yes.", ["yes"], 1, 1),
        ("#### yes it is", ["yes"], 0, 0),
        ("#### yes", ["yes they can"], 0, 0),
        ("#### no", ["yes"], 0, 0),
        ("#### noanswer", ["noanswer given"], 0, 0),
        ("#### yes and no", ["no and yes"], 0, 1),
        # Forms of which nothing is left are compared as they are.
        ("#### the", ["The"], 1, 1),
        ("#### A.", ["A"], 1, 1),
        ("#### an", ["A"], 0, 0),
        ("#### !!!", ["!!!"], 1, 1),
        ("#### !!", ["!!!"], 0, 0),
        ("#### a", ["The"], 0, 0),
        ("#### ***", ["Paris"], 0, 0),
        ("####   ", ["The"], 0, 0),
        (f"#### {'word ' * 44}", ["word " * 44], 1, 1),
        ("####", ["!!!", "Paris"], 0, 0),
        ("", ["!!!"], 0, 0),
        ("   \n", ["Paris"], 0, 0),
    ],
)
def test_by_hand(answer: str, golds: list[str], em: float, f1: float) -> None:
    gold, *forms = golds
    exact, overlap = (
        SpanGrader(tuple(forms))(answer, gold),
        SpanGrader(tuple(forms), "f1")(answer, gold),
    )
    assert exact.score == em
    assert overlap.score == pytest.approx(f1)
    assert exact.components == overlap.components
    assert exact.components["f1"] == pytest.approx(f1) and exact.components["correct"] == em


def test_format_and_status() -> None:
    grader = SpanGrader(("Lutetia",))
    assert grader("#### Paris", "Paris").components["format"] == 1.0
    assert grader("#### Paris #### Paris", "Paris").components["format"] == 0.0
    assert grader("Paris", "Paris").components == {"correct": 1.0, "f1": 1.0, "format": 0.0}
    assert grader.alone("Paris", "Paris").components["format"] == 1.0
    assert grader("#### ", "Paris").status == "no_answer"
    assert (grader("#### lutetia", "Paris").parsed, grader.numeric) == ("lutetia", False)
    with pytest.raises(ValueError, match="em or f1"):
        SpanGrader(reward="bleu")  # type: ignore[arg-type]


@pytest.mark.parametrize(("gold", "forms"), [("", ()), (" \n", ("x",)), ("x", ("y", ""))])
def test_empty_gold_is_an_error(gold: str, forms: tuple[str, ...]) -> None:
    for answer in ("", "x", "y"):
        with pytest.raises(GraderError, match="is empty"):
            SpanGrader(forms)(answer, gold)


@pytest.mark.parametrize(
    "piece",
    ["a", "a ", "the ", " ", "!", "İ", "\u0301", "\n", "#### ", "x y ", "answer is ", "\x00"],
)
def test_hostile_text_takes_no_time(piece: str, in_time: Callable) -> None:
    text = (piece * MAX_TEXT)[:MAX_TEXT]
    grader = SpanGrader(("x", "The"), "f1")
    for judge in (grader, grader.alone):
        grade = in_time(1.0, partial(judge, text, "x y z"))
        assert grade.components["correct"] == 0.0 and grade.status in ("ok", "no_answer")
    for grade in (grader(text + "x", "x"), grader.alone(text + "x", "x")):
        assert (grade.score, grade.status, grade.parsed) == (0.0, "too_long", None)
        assert set(grade.components.values()) == {0.0} and len(grade.components) == 3


@pytest.mark.parametrize(
    ("name", "split"), [(name, split) for name in HOPS for split in DATASETS[name].splits]
)
def test_every_form_of_real_answers(
    name: str, split: str, real_dataset: Callable[..., Dataset]
) -> None:
    for question in real_dataset(name, split):
        forms = question.extra["forms"]
        grader = SpanGrader(forms)
        for form in (question.gold, *forms):
            grade = grader(f"I searched.\n#### {form}", question.gold)
            assert set(grade.components.values()) == {1.0} and grade.status == "ok", question
            assert grader.alone(form, question.gold).score == 1.0
        for garbage in ("", "####", "#### ", "#### qwertz", "#### the", "..."):
            grade = grader(garbage, question.gold)
            assert (grade.score, grade.components["f1"]) == (0.0, 0.0), (question, garbage)
        assert grader("I do not know.", question.gold).score == 0.0
