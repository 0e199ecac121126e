"""NumberGrader: what counts as the answer, and when two numbers are equal."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentgym.rewards import GraderError, NumberGrader
from latentgym.rewards.number import Number, NumberOutOfBoundsError, quantity

grade = NumberGrader()


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("#### 18", "18"),
        ("####18", "18.0"),
        ("so 3 + 15\n#### $18.00.\nQuestion: more\n#### 99", "18"),
        ("#### **1,234** dollars", "1234"),
        ("#### \\boxed{-7}", "-7"),
        ("#### \N{MINUS SIGN}7", "-7"),
        ("#### -$7.50", "-7.5"),
        ("#### 3/4", "0.75"),
        ("#### \\frac{3}{4}", ".75"),
        ("#### 50%", "50"),
        ("#### 1.2e3", "1200"),
        ("#### 1.2 \\times 10^{3}", "1,200"),
        ("#### 2 \N{MULTIPLICATION SIGN} 10^-3", "0.002"),
        ("#### Step 1: add 2 and 3.\nThe answer is 5.", "5"),
        ("I get \\boxed{12\\text{ cm}^2} in the end, after 3 steps.", "12"),
        ("The answer is: 5 apples, not 6", "5"),
        ("Answer: $1{,}000$ for 3 people", "1000"),
        ("16-3-4=9 and 9*2=18", "18"),
        ("I owe 5-3", "2"),
        ("#### 2 1/2", "2.5"),
        ("#### 2 million", "2000000"),
        ("#### 12\N{NO-BREAK SPACE}000", "12000"),
        ("#### 12\N{THIN SPACE}000", "12000"),
        ("#### 12{,}000", "12000"),
        ("#### - 5", "-5"),
        ("#### 18 dollars in 3 weeks", "18"),
        ("#### x = 18", "18"),
        ("#### 18 eggs (9 a day)", "18"),
        ("#### 18 more apples", "18"),
        ("#### 1000 in 3 weeks", "1000"),
        ("#### 6 + 12 = 18", "18"),
        ("#### 2^9", "512"),
        ("#### 5 cm", "5"),
        ("It takes 5cm.", "5"),
        ("#### 1. Add the two.\nThe answer is 60.", "60"),
        ("x=-3", "-3"),
    ],
)
def test_right_answers(answer: str, gold: str) -> None:
    result = grade(answer, gold)
    assert (result.score, result.status) == (1.0, "ok"), result


@pytest.mark.parametrize(
    ("answer", "gold", "status"),
    [
        ("", "5", "no_answer"),
        ("I do not know", "5", "no_answer"),
        ("#### 6", "5", "ok"),
        ("#### 5.0000001", "5", "ok"),
        ("#### 6\n#### 5", "5", "ok"),
        ("#### 2 1/2", "2", "ok"),
        ("#### 3\\sqrt{2}", "3", "ok"),
        ("#### 12\N{NO-BREAK SPACE}000", "12", "ok"),
        ("#### 18!", "18", "ok"),
        ("#### 18^2", "18", "ok"),
        ("#### 18 or 19", "18", "ok"),
        ("#### 18 or 19", "19", "ok"),
        ("#### 18=19", "18", "ok"),
        ("#### 18=19", "19", "ok"),
        ("#### 18 million", "18", "ok"),
        ("#### 1.8e1.5", "18", "ok"),
        ("#### 18 and a half", "18", "ok"),
        ("#### 3 out of 4", "3", "ok"),
        ("#### 2 hours 30 minutes", "2", "ok"),
        ("#### 2 hours 30 minutes", "30", "ok"),
        ("#### 2 to 5", "5", "ok"),
        ("#### 5 squared", "5", "ok"),
        ("#### 6 = 5", "5", "ok"),
        ("#### 18 in 20", "18", "ok"),
        ("#### 18 per 20", "18", "ok"),
        ("#### 18 in thousands", "18", "ok"),
        ("#### 18 sixteenths", "18", "ok"),
        ("#### 18 is wrong", "18", "ok"),
        ("#### 18 eggs (or 19)", "18", "ok"),
        ("It is 3\\sqrt{2}", "2", "ok"),
        ("#### 5/0", "5", "invalid"),
        ("#### " + "5" * 65, "5", "invalid"),
        ("#### 5e301", "5", "invalid"),
        ("#### 5e99999999999999999999", "5", "invalid"),
        ("5" * 300_000, "5", "too_long"),
        ("#### \N{ARABIC-INDIC DIGIT FIVE}", "5", "no_answer"),
    ],
)
def test_wrong_answers(answer: str, gold: str, status: str) -> None:
    result = grade(answer, gold)
    assert (result.score, result.status) == (0.0, status), result


def test_format_is_one_mark_with_a_number() -> None:
    assert grade("#### 5", "5").components == {"correct": 1.0, "format": 1.0}
    assert grade("#### 6", "5").components == {"correct": 0.0, "format": 1.0}
    assert grade("it is 5", "5").components == {"correct": 1.0, "format": 0.0}
    assert grade("#### 5\n#### 5", "5").components == {"correct": 1.0, "format": 0.0}
    assert grade("#### Step 1\nit is 5", "5").components == {"correct": 1.0, "format": 0.0}
    assert grade("it is 5\n#### five, 5", "5").components == {"correct": 0.0, "format": 0.0}


def test_strict_wants_the_mark() -> None:
    strict = NumberGrader(strict=True)
    assert strict("#### 5", "5").score == 1.0
    assert strict("The answer is 5", "5").status == "no_answer"


def test_another_mark() -> None:
    boxed = NumberGrader(marker=r"\boxed")
    assert boxed(r"so \boxed{73}.", "73").components == {"correct": 1.0, "format": 1.0}


def test_integer_range() -> None:
    aime = NumberGrader(integer_range=(0, 999))
    assert aime("#### 073", "73").score == 1.0
    assert aime("#### 1000", "73").status == "invalid"
    assert aime("#### 73.5", "73").status == "invalid"
    with pytest.raises(GraderError, match="1000"):
        aime("#### 5", "1000")


def test_relative_tolerance() -> None:
    near = NumberGrader(rel_tol=1e-6)
    assert near("#### 5120093.1", "5120093.0999999997").score == 1.0
    assert near("#### 0.00000305190", "3.0519e-06").score == 1.0
    assert near("#### 5120099", "5120093.0999999997").score == 0.0
    assert near("#### -5", "5").score == 0.0
    assert near("#### 0.0000001", "0").score == 0.0


@pytest.mark.parametrize("gold", ["", "five", "5/0", "1e999", "5 or 6"])
def test_bad_gold_raises_and_is_named(gold: str) -> None:
    with pytest.raises(GraderError) as caught:
        grade("#### 5", gold)
    assert repr(gold) in str(caught.value)


decimals = st.decimals(
    min_value=-(10**12), max_value=10**12, allow_nan=False, allow_infinity=False, places=4
)


@given(decimals)
def test_every_way_to_write_a_decimal(value: object) -> None:
    plain = f"{value:f}"
    exact = Fraction(plain)
    for text in (plain, f"{value:,}", f"${plain}", f"{plain}00", f"**{plain}**.", f"{plain}e0"):
        assert grade.alone(text, plain).score == 1.0
        assert grade(f"#### {text}", plain).score == 1.0
        assert grade(f"First 3, then {text} in all.", plain).score == 1.0
    assert quantity(plain) == Number(exact)


@given(st.integers(-(10**20), 10**20), st.integers(1, 10**9))
def test_fractions(above: int, below: int) -> None:
    sign = "-" if above < 0 else ""
    latex = f"{sign}\\frac{{{abs(above)}}}{{{below}}}"
    for text in (f"{above}/{below}", f"{above:,} / {below:,}", latex):
        assert quantity(text) == Number(Fraction(above, below), numeral=False)


@given(st.integers(1, 10**6), st.integers(2, 10**4), st.data())
def test_mixed_numbers(whole: int, below: int, data: st.DataObject) -> None:
    above = data.draw(st.integers(1, below - 1))
    exact = Number(whole + Fraction(above, below), numeral=False)
    for text in (f"{whole} {above}/{below}", f"{whole}\\frac{{{above}}}{{{below}}}"):
        assert quantity(text) == exact
        assert quantity(f"-{text}") == Number(-exact.value, numeral=False)


@given(st.integers(0, 10**6), st.sampled_from("!^+*/=:_\\"), st.integers(1, 99))
def test_more_than_a_number_is_not_read_as_one(value: int, sign: str, more: int) -> None:
    number = quantity(f"{value}{sign}{more}")
    assert number is None or (sign == "/" and number.value == Fraction(value, more))


@pytest.mark.parametrize("percent", ["%", "\\%", " %", " percent", " per cent"])
def test_a_per_cent_sign_is_a_unit_or_divides(percent: str) -> None:
    for answer, gold, score in (
        ("50", "50", 1),
        ("50", "0.5", 1),
        ("0.5", "1/2", 0),
        ("5", "3", 0),
    ):
        assert grade.alone(f"{answer}{percent}", gold).score == score
        assert grade.alone(gold, f"{answer}{percent}").score == score


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_only_equal_numbers_are_equal(one: int, other: int) -> None:
    assert grade(f"#### {one}", str(other)).score == float(one == other)


@given(st.text(alphabet="0123456789.,-+/eE$%()[]{} \\fracx^*\n#", max_size=60))
def test_never_raises_on_number_soup(text: str) -> None:
    grade(text, "5")
    with suppress(NumberOutOfBoundsError):
        quantity(text)


@given(st.text(max_size=200))
def test_never_raises_on_text(text: str) -> None:
    assert grade(text, "-987654321").score == 0.0
