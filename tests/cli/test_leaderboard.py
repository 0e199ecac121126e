"""Tables of results in the terminal: what fits, what is best, what is beside, what is other."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from latentgym.cli.main import main
from latentgym.cli.tables import show
from latentgym.system.console import Console

Made = Callable[..., Any]


def printed(runs: list[Any], width: int = 80, color: bool = False, **how: Any) -> str:
    plain = {"force_terminal": color, "color_system": "standard" if color else None}
    console = Console(width=width, emoji=False, highlight=False, **plain)
    with console.capture() as capture:
        show(runs, console, **how)
    return capture.get()


def rows(text: str) -> list[str]:
    """First words of the lines of a table behind its header."""
    lines = text.splitlines()
    [head] = [i for i, line in enumerate(lines) if line.startswith("run ")]
    return [line.split()[0] for line in lines[head + 1 :] if line.startswith(tuple("abcdgfps"))]


@pytest.mark.parametrize("width", [40, 60, 80, 300])
def test_columns_without_room_are_named_once_at_the_end(made: Made, width: int) -> None:
    long = {"agent": "a" * 20, "model": "m" * 20}
    runs = [
        made("r" * 20, [1, 0], **long),
        made("other", [1, 0]),
        made("task", [1, 0], task="ProsQA", **long),
    ]
    text = printed(runs, width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("no room for") == (width < 300)
    every = ["%", "[95 %]", "n", "FLOP", "thoughts", "tokens"]
    table, _, rest = text.partition("no room for ")
    missing = set(" ".join(rest.partition(": set")[0].split()).split(", ")) - {""}
    heads = [line for line in table.splitlines() if line.startswith("run ")]
    found = set(re.findall("|".join(map(re.escape, every)), heads[0]))
    assert found | missing == set(every)


def test_what_several_samples_hold_stands_below_a_single_run(made: Made) -> None:
    metrics = {"pass@1": 0.25, "pass@4": 0.5, "pass@8": None, "samples/different_answers": 0.75}
    told = " ".join(printed([made("sampled", [1, 0], metrics=metrics)]).split())
    assert told.endswith("pass@1 25.00 %, pass@4 50.00 %, 75.0 % of the answers differ")


@pytest.mark.parametrize("width", [40, 60, 80, 300])
def test_what_has_no_room_stands_below_a_single_run(made: Made, width: int) -> None:
    text = printed([made("r" * 20, [1, 0], agent="a" * 20, flops_per_answer=5e5)], width)
    assert max(map(len, text.splitlines())) <= width and "no room" not in text
    told = " ".join(text.split())
    assert all(told.count(number) == 1 for number in ("500k", "50.00", "[9.5, 90.5]"))
    for title in ("thoughts", "tokens", "family", "answers/s"):
        assert told.count(title) == 1


def test_the_model_of_a_whole_table_is_named_above_it(made: Made) -> None:
    one, other = made("a", [1, 0], model="tiny:x"), made("b", [1, 0], model="tiny:y")
    assert printed([one]).startswith("MNNS, test, generated; tiny:x\n")
    assert "model" not in printed([one])
    assert printed([one, other]).splitlines()[1].split()[:3] == ["run", "agent", "model"]


def test_the_best_is_bold_with_its_ties_and_no_control_oracle_or_sample_is(made: Made) -> None:
    runs = [
        made("best", [1] * 90 + [0] * 10),
        made("tie", [1] * 85 + [0] * 15),
        made("behind", [1] * 20 + [0] * 80),
        made("gold", [1] * 100, oracle=True),
        made("noise", [1] * 100, control="noise", agent="other"),
    ]
    bold = set(re.findall(r"\x1b\[1m(best|tie|behind|gold|noise)", printed(runs, 100, color=True)))
    assert bold == {"best", "tie"}
    alone = made("alone", [1, 0], task="ProsQA")
    assert "\x1b[1malone" not in printed([alone], color=True)


def test_controls_stand_under_their_method_as_differences(made: Made) -> None:
    runs = [
        made("method", [1, 1, 1, 0], agent="hrpo"),
        made("zero", [1, 0, 0, 0], agent="hrpo", control="zero"),
        made("lonely", [1, 0, 0, 0], agent="coconut", control="shuffle"),
    ]
    text = printed(runs, 120)
    lines = [line for line in text.splitlines() if line.strip()]
    under = next(i for i, line in enumerate(lines) if line.startswith("method"))
    assert re.match(r"  with zero +-50\.00 \[-\d+\.\d, \+?-?\d+\.\d\]", lines[under + 1])
    assert "coconut (shuffle)" in text and "hrpo (zero)" not in text


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("accuracy", ["good", "fair", "poor"]),
        ("flops", ["fair", "good", "poor"]),
        ("hr@5", ["fair", "good", "poor"]),
        ("run", ["fair", "good", "poor"]),
    ],
)
def test_rows_are_sorted_by_any_column(made: Made, sort: str, order: list[str]) -> None:
    runs = [
        made("poor", [0, 0, 0], flops_per_answer=3.0),  # and without HR@5
        made("good", [1, 1, 1], flops_per_answer=2.0, metrics={"hr@5": 0.1}),
        made("fair", [1, 0, 0], flops_per_answer=1.0, metrics={"hr@5": 0.2}),
    ]
    assert rows(printed(runs, sort=sort)) == order


def test_an_unknown_column_is_refused(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = made("run", [1, 0])
    assert main(["leaderboard", str(folder), "--sort", "flop"]) == 2
    assert "no column 'flop'; did you mean 'flops'" in capsys.readouterr().err
    assert main(["leaderboard", str(folder), "--sort", "positions"]) == 0


@pytest.mark.parametrize("changes", [{"index": [0, 5]}, {"dataset_hash": "1"}])
def test_rows_that_may_not_be_compared_say_so(made: Made, changes: dict[str, Any]) -> None:
    usual = [made(name, [1, 0]) for name in "ab"]
    assert "[1]" not in printed(usual)
    text = printed([*usual, made("odd", [1, 1], **changes)])
    assert re.search(r"^odd \[1\]", text, re.MULTILINE)
    assert re.search(r"^\[1\] other questions", text, re.MULTILINE)


def test_runs_of_one_name_are_told_apart(made: Made) -> None:
    runs = [made(f"{cell}/seed-{seed}", [1, 0]) for cell in "ab" for seed in (0, 1)]
    runs += [made(f"{cell}/same/seed-0", [1, 0]) for cell in "cd"]
    expected = {"a/seed-0", "a/seed-1", "b/seed-0", "b/seed-1", "c/same/seed-0", "d/same/seed-0"}
    assert set(rows(printed(runs))) == expected
