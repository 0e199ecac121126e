"""NumberGrader: what counts as the answer, and when two numbers are equal."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentgym.rewards import GraderError, NumberGrader
from latentgym.rewards.number import NumberOutOfBoundsError, last_number, number_of

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
        ("I owe 5-3", "3"),
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
        ("#### 5/0", "5", "invalid"),
        ("#### " + "5" * 65, "5", "invalid"),
        ("#### 5e31", "5", "invalid"),
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
    assert grade("#### five, 5", "5").components == {"correct": 1.0, "format": 0.0}


def test_strict_wants_the_mark() -> None:
    strict = NumberGrader(strict=True)
    assert strict("#### 5", "5").score == 1.0
    assert strict("The answer is 5", "5").status == "no_answer"


def test_another_mark() -> None:
    boxed = NumberGrader(mark=r"\boxed")
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


@pytest.mark.parametrize("gold", ["", "five", "5/0", "1e99", "5 or 6"])
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
        assert number_of(text) == exact
        assert grade(f"#### {text}", plain).score == 1.0
    assert last_number(f"first 3, then {plain} in all.") == (plain, exact)


@given(st.integers(-(10**20), 10**20), st.integers(1, 10**9))
def test_fractions(above: int, below: int) -> None:
    for text in (f"{above}/{below}", f"{above:,} / {below:,}"):
        assert number_of(text) == Fraction(above, below)
    sign = "-" if above < 0 else ""
    assert number_of(f"{sign}\\frac{{{abs(above)}}}{{{below}}}") == Fraction(above, below)


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_only_equal_numbers_are_equal(one: int, other: int) -> None:
    assert grade(f"#### {one}", str(other)).score == float(one == other)


@given(st.text(alphabet="0123456789.,-+/eE$%()[]{} \\fracx^*\n#", max_size=60))
def test_never_raises_on_number_soup(text: str) -> None:
    grade(text, "5")
    with suppress(NumberOutOfBoundsError):
        number_of(text)


@given(st.text(max_size=200))
def test_never_raises_on_text(text: str) -> None:
    assert grade(text, "-987654321").score == 0.0
