"""Typography: every rule is needed, and what it does not concern stays as it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentgym.rewards import MathGrader, algebra, latex, maths
from latentgym.rewards.latex import RULES, Rule, symbols, tidy


@pytest.mark.parametrize("rule", RULES, ids=[f"{rule.answer}-{rule.gold}" for rule in RULES])
def test_every_rule_is_needed(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    # In this process, where a rule can be taken away.
    monkeypatch.setattr(maths._SANDBOX, "compare", algebra.compare)
    grader = MathGrader()
    assert grader.alone(rule.answer, rule.gold).score == 1
    monkeypatch.setattr(latex, "RULES", tuple(other for other in RULES if other is not rule))
    maths._gold_answer.cache_clear()
    assert grader.alone(rule.answer, rule.gold).score == 0
    maths._gold_answer.cache_clear()


@pytest.mark.parametrize(
    ("text", "tidied"),
    [
        (
            r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
            r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
        ),
        ("2**3", "2**3"),
        ("1,234", "1,234"),
        ("1 234", "1 234"),
        (r"1\,234,\,5", "1234, 5"),
        (r"\text{sand}", r"\text{sand}"),
        (r"\sinh x", r"\sinh x"),
        ("= 5.", "5"),
        ("", ""),
    ],
)
def test_tidy(text: str, tidied: str) -> None:
    assert tidy(text) == tidied


@given(st.text(alphabet="0123456789,.~ \\!{}xi$*`_%()[]√ⁿ²\u00a0andorpi\n", max_size=60))
def test_symbols_are_all_of_a_text(text: str) -> None:
    tidied = tidy(text)
    assert "".join(symbol for _, symbol, _ in symbols(tidied)) == tidied
    assert all(tidied.startswith(symbol, at) for at, symbol, _ in symbols(tidied))
