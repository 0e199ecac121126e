"""Questions of the user's own as environments: graders, infos, options."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import pytest

from latentgym.data import DataError
from latentgym.envs.custom import GRADERS
from latentgym.envs.task import GradingError
from latentgym.errors import LatentGymError, UsageError
from latentgym.registry import FAMILY_NAMES, make_vector_env
from latentgym.testing import EnvConformance, check_task

SUMS = [{"question": f"{n} + {n}?", "answer": 2 * n, "level": n % 3} for n in range(1, 13)]
COLOURS = [
    {"question": f"The colour of number {n}?", "answer": ("Red", "red.", "green")[n % 3]}
    for n in range(6)
]
PEOPLE = [
    {"question": "Who found the theorem?", "answer": "Emmy Noether", "forms": ["Noether"]},
    {"question": "Who wrote the notes?", "answer": "Ada Lovelace"},
]
ROWS = {
    "number": SUMS,
    "maths": [{"question": "Solve.", "answer": r"\frac{1}{2}"}],
    "choice": COLOURS,
    "short": PEOPLE,
    "f1": PEOPLE,
}


def path_of(folder: Path, rows: Any) -> Path:
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def task(folder: Path, rows: Any, grader: Any, **options: Any) -> Any:
    data, holdout = path_of(folder, rows), options.pop("holdout", 0)
    env = gym.make("latent/Custom-token", data=data, grader=grader, holdout=holdout, **options)
    return env.unwrapped.task


def score(task: Any, index: int, answer: str) -> float:
    return float(task.grade(index, *task.completion(index, answer)).score)


@pytest.fixture
def mine() -> Iterator[ModuleType]:
    """A module of the user's own."""
    module = ModuleType("mine_of_test")
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


@pytest.mark.parametrize("grader", GRADERS)
def test_every_grader_takes_gold_answers_alone(tmp_path: Path, grader: str) -> None:
    asked = task(tmp_path, ROWS[grader], grader, limit=1)
    check_task(asked)
    assert asked.about["graded_by"] == grader and asked.licence == "your own"


class OwnQuestions(EnvConformance):
    """It is an environment as all others are."""

    processes = False

    @pytest.fixture(autouse=True)
    def _of_a_file(self, tmp_path: Path) -> None:
        data = str(path_of(tmp_path, SUMS))
        type(self).options = {"data": data, "grader": "number", "think": 4, "answer": 3}


for _family in FAMILY_NAMES:
    _name = f"Test_{_family}"
    globals()[_name] = type(_name, (OwnQuestions,), {"env_id": f"latent/Custom-{_family}"})


def test_choices_are_those_of_the_row_or_of_all_answers(tmp_path: Path) -> None:
    asked = task(tmp_path, COLOURS, "choice")
    assert score(asked, 0, "red") == score(asked, 1, "It is RED.") == score(asked, 2, "green") == 1
    assert score(asked, 0, "red or green") == score(asked, 2, "red") == 0
    listed = [{"question": "Which?", "answer": "B", "choices": ["A", "B"]}]
    assert score(task(tmp_path, listed, "choice"), 0, "b") == 1
    with pytest.raises(GradingError, match=r"mine\.jsonl:1: .*must name exactly one of.*mend or"):
        task(tmp_path, [{**listed[0], "answer": "C"}], "choice")
    with pytest.raises(UsageError, match="more than 100 different answers"):
        task(tmp_path, [{"question": f"Q{n}", "answer": f"a{n}"} for n in range(101)], "choice")


def test_choices_are_the_same_in_both_splits(tmp_path: Path) -> None:
    rows = [{"question": f"Q{n}", "answer": str(n % 7)} for n in range(40)]
    parts = [task(tmp_path, rows, "choice", split=s, holdout=0.2) for s in ("train", "test")]
    assert parts[0].grader == parts[1].grader and len(parts[0].grader.choices) == 7


def test_short_answers_may_have_several_forms(tmp_path: Path) -> None:
    asked = task(tmp_path, PEOPLE, "short")
    assert score(asked, 0, "noether") == score(asked, 0, "Emmy Noether.") == 1
    assert score(asked, 1, "Ada") == 0 and 0 < score(task(tmp_path, PEOPLE, "f1"), 1, "Ada") < 1


def test_an_answer_that_the_grader_cannot_read_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(GradingError, match=r"mine\.jsonl:2: .*'blue' is not a number; mend or"):
        task(tmp_path, [SUMS[0], {"question": "Q", "answer": "blue"}], "number")


def test_infos_have_the_columns(tmp_path: Path) -> None:
    data = path_of(tmp_path, SUMS)
    env = gym.make("latent/Custom-token", data=data, grader="number", holdout=0)
    assert env.reset(options={"index": 4})[1]["columns"] == (("level", 2),)
    rows = make_vector_env("latent/Custom-token", 2, data=data, grader="number", holdout=0)
    _, info = rows.reset(options={"index": [0, 1]})
    assert info["columns"].tolist() == [(("level", 1),), (("level", 2),)]
    assert "columns" not in gym.make("latent/GSM8K-token", source="sample").reset(seed=0)[1]


def near(answer: str, gold: str, level: int = 0) -> float:
    return max(0.0, 1 - abs(float(answer) - float(gold)) / (10 + level))


def test_a_function_grades(tmp_path: Path, mine: ModuleType) -> None:
    mine.near = near  # type: ignore[attr-defined]
    for grader in (near, "mine_of_test:near"):
        asked = task(tmp_path, SUMS, grader)
        assert score(asked, 0, "2") == 1 and score(asked, 0, "1") == pytest.approx(1 - 1 / 11)
        assert asked.grade(0, "#### ", "").status == "no_answer"
        parts = asked.grade(0, "#### 1", "1").components
        assert parts["correct"] == 0 and parts["format"] == 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (lambda answer, gold: float("nan"), "gives nan, which is neither"),
        (lambda answer, gold: 2, "gives 2, which"),
        (lambda answer, gold: "1", "gives '1', which"),
        (lambda answer, gold: None, "gives None, which"),
        (lambda answer, gold: 1 / 0, "failed .ZeroDivisionError: division by zero"),
    ],
)
def test_an_error_of_a_function_is_no_grade(tmp_path: Path, given: Any, says: str) -> None:
    given.__name__ = "odd"
    with pytest.raises(GradingError, match=rf"mine\.jsonl:1: the grader odd {says}"):
        score(task(tmp_path, SUMS, given), 0, "2")


def test_functions_that_there_are_not(tmp_path: Path, mine: ModuleType) -> None:
    mine.number = 3  # type: ignore[attr-defined]
    mine.asks = lambda answer, gold, colour: 1.0  # type: ignore[attr-defined]
    for grader, says in [
        ("numbre", "no grader 'numbre'; did you mean 'number'"),
        ("mine_of_test:best", "has no 'best'"),
        ("mine_of_test:number", "is 3, which cannot be called"),
        ("mine_of_test:asks", "asks for colour, which is not there; there are level"),
        ("no_module_of_mine:best", "there is no module 'no_module_of_mine'"),
        ("mine:best:more", "no grader"),
        (None, "say how answers are graded, with grader= or --grader: number, maths"),
    ]:
        with pytest.raises(UsageError, match=says):
            task(tmp_path, SUMS, grader)


def test_options_that_cannot_work(tmp_path: Path) -> None:
    data = path_of(tmp_path, SUMS)
    with pytest.raises(UsageError, match="asks questions of your own; give data="):
        gym.make("latent/Custom-token", grader="number")
    with pytest.raises(DataError, match="no rows are held out"):
        gym.make("latent/Custom-token", data=data, grader="number", test_data=data, holdout=0.5)
    for name, value in [("holdout", 1.0), ("data", 3), ("grader", 5), ("test_data", []), ("x", 1)]:
        with pytest.raises(LatentGymError, match=name):
            gym.make("latent/Custom-token", **{"data": data, "grader": "number", name: value})
