"""Answers that attack Reasoning Gym's scorers: none hangs, none scores, none has an effect."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from latentgym.envs._scorer import pack, unpack
from latentgym.rewards.extract import MAX_TEXT

pytest.importorskip("reasoning_gym")

# Those that evaluate answers (eval, sympy), and some that parse or search in other ways.
NAMES = """
    string_insertion spiral_matrix binary_matrix n_queens simple_integration
    intermediate_integration polynomial_multiplication countdown
    polynomial_equations simple_equations bitwise_arithmetic codeio bf number_sorting
    complex_arithmetic fraction_simplification propositional_logic advanced_geometry
    decimal_arithmetic palindrome_partitioning rubiks_cube jugs
""".split()
# A few that each read answers in a way of their own; the others are thorough.
FEW = "countdown codeio number_sorting spiral_matrix rubiks_cube".split()
# Right answers, found where the scorer keeps them.
THEFTS = (
    "entry['answer']",
    "entry['answer'].split()",
    "list(oracle_answer)",
    "__import__('sys')._getframe(1).f_locals['entry']['answer']",
    "__import__('sys')._getframe(6).f_locals['entry']['metadata']['target']",
)


def attacks(touched: Path) -> list[str]:
    touch = f"__import__('os').system('touch {touched}')"
    sub = "[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == 'Popen'][0]"
    return [
        "9**9**9**9",
        "factorial(factorial(factorial(9)))",
        "{" * (1 << 20),
        "{" * 100_000,
        "(" * 5000 + "1" + ")" * 5000,
        "[" * 2000 + "]" * 2000,
        "-" * 50_000 + "1",
        "9" * 100_000,
        "(x+y+z)**999999",
        touch,
        f"x + {touch}",
        f"sin({touch!r})",
        f'sin("{touch}")',
        f"open('{touched}', 'w')",
        f"{sub}(['touch', '{touched}'])",
        "exit()",
        "\ud800\x00\u202e",
        *THEFTS,
    ]


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    task("gcd").warm_up()


def task(name: str) -> Any:
    return gym.make(f"latent/RG_{name}-token", size=4).unwrapped.task


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in FEW else [pytest.mark.thorough]) for n in NAMES]
)
def test_attacks_neither_hang_nor_score_nor_act(
    name: str, tmp_path: Path, in_time: Callable
) -> None:
    questions = task(name)
    gold = questions.gold_completion(0)
    assert questions.grade(0, *gold).score == 1
    # Some scorers give a little for any answer at all.
    base = max(0.05, questions.grade(0, "#### nonsense", "nonsense").score)
    for attack in attacks(tmp_path / "touched"):
        grade = in_time(1.5, partial(questions.grade, 0, f"#### {attack}", attack))
        assert grade.components["correct"] == 0 and grade.score <= base < 0.3, attack[:80]
    assert questions.grade(0, *gold).score == 1
    assert list(tmp_path.iterdir()) == []


def test_a_timeout_is_marked() -> None:
    grade = task("countdown").grade(0, "#### 9**9**9**9", "9**9**9**9")
    assert (grade.score, grade.status, grade.components["correct"]) == (0.0, "timeout", 0.0)


def test_what_no_budget_allows_is_not_read() -> None:
    text = "#### 1" + " " * MAX_TEXT
    assert task("gcd").grade(0, text, text).status == "too_long"


def test_formulas_still_count() -> None:
    integral = task("simple_integration")
    entry = integral.question(0).extra["entry"]
    variable, gold = entry["metadata"]["variable"], integral.question(0).gold
    same = f"({gold}) + sin({variable})**2 + cos({variable})**2 + sqrt(2)*pi + 3!"
    assert integral.grade(0, f"#### {same}", same).score == 1
    matrix = task("spiral_matrix")
    listed = "[" + ", ".join(matrix.question(0).gold.split()) + "]"
    assert matrix.grade(0, f"#### {listed}", listed).score == pytest.approx(0.1)


def test_grading_is_quick(in_time: Callable) -> None:
    questions = task("chain_sum")
    questions.grade(0, "#### 0", "0")

    def hundred() -> None:
        for wrong in range(1, 101):
            questions.grade(0, f"#### {wrong}.5", f"{wrong}.5")

    in_time(100 * 0.02, hundred)  # some 0.5 ms each on a quiet machine


def test_entries_survive_the_journey() -> None:
    entry = {
        "a": [1, (2.5, None)],
        3: {"tuple": {True}},
        (1, "x"): float("inf"),
        "f": Fraction(1, 3),
    }
    assert unpack(json.loads(json.dumps(pack(entry)))) == entry
    with pytest.raises(TypeError, match="complex"):
        pack({"a": [1j]})
