"""The result record: written whole or not at all, and refused in one sentence when damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from latentgym.cli.main import main
from latentgym.errors import UsageError
from latentgym.evaluation.results import (
    Result,
    find_results,
    load_result,
    load_rollouts,
    require_all,
    versions,
)
from latentgym.storage import atomic_write
from latentgym.system.sealed import UnverifiedWarning


def record(**changes: Any) -> Result:
    values: dict[str, Any] = {
        **dict.fromkeys(("agent", "env", "task", "family", "model", "split", "source"), "x"),
        "dataset_hash": "0",
        "checkpoint": None,
        "n": 2,
        "seeds": [0],
        "accuracy": 0.5,
        "accuracy_ci95": [0.1, 0.9],
        "metrics": {},
        "thoughts_mean": 1.0,
        "tokens_mean": 1.0,
        "latent_share": 0.5,
        "forward_positions": {},
        "flops_per_answer": 1.0,
        "wall_s": 1.0,
        "answers_per_s": 2.0,
        "device": "cpu",
        "control": None,
        "config": {},
    }
    return Result(**{**values, **changes}).stamp()


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    rollouts = [{"index": 0, "answer": "zwölf \u2028"}, {"index": 1, "answer": ""}]
    saved = record()
    folder = tmp_path / "one" / "run"
    saved.save(folder, rollouts)
    assert load_result(folder) == saved
    assert list(load_rollouts(folder)) == rollouts
    assert [found for found, _ in find_results([tmp_path])] == [folder]
    (tmp_path / "link").symlink_to(tmp_path / "one")
    several = [tmp_path, tmp_path / "link", tmp_path / "one" / ".." / "one", folder]
    assert [found for found, _ in find_results(several)] == [folder]  # once, however it is called


def test_a_metric_that_is_not_finite_is_no_damage(tmp_path: Path) -> None:
    record(metrics={"gate": float("nan"), "calls": 1.0}).save(tmp_path, [])
    assert load_result(tmp_path).metrics == {"gate": None, "calls": 1.0}
    assert main(["leaderboard", str(tmp_path)]) == 0


def test_versions_name_what_a_result_depends_on() -> None:
    assert {"python", "torch", "transformers", "gymnasium", "numpy"} <= set(versions())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail_half_way() -> None:
        with atomic_write(path) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"schema": 7}'])
def test_damaged_records_are_refused(tmp_path: Path, damage: str) -> None:
    (tmp_path / "result.json").write_text(damage)
    with pytest.raises(UsageError):
        load_result(tmp_path)


def test_a_record_that_lacks_a_key_is_refused_by_name(tmp_path: Path, changed: Any) -> None:
    record().save(tmp_path, [])
    changed(tmp_path / "result.json", lambda data: data.pop("accuracy"))
    with pytest.raises(UsageError, match="accuracy"):
        load_result(tmp_path)


def test_a_later_key_does_not_break_an_older_reader(tmp_path: Path, changed: Any) -> None:
    record().save(tmp_path, [])
    changed(tmp_path / "result.json", lambda data: data.update(later=1))
    assert load_result(tmp_path).accuracy == 0.5


@pytest.mark.parametrize("key", ["oracle", "about", "metrics_ci95", "files"])
def test_a_record_from_before_a_key_is_read(key: str, tmp_path: Path, changed: Any) -> None:
    record().save(tmp_path, [])
    changed(tmp_path / "result.json", lambda data: data.pop(key), older=True)
    with pytest.warns(UnverifiedWarning, match="not verified"):
        assert not getattr(load_result(tmp_path), key)


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


FOREIGN: dict[str, dict[str, Any]] = {
    "a number that is text": {"accuracy": "0.5"},
    "a number that is true": {"n": True},
    "no number": {"accuracy": None},
    "not a number": {"flops_per_answer": float("nan")},
    "infinite": {"wall_s": float("inf")},
    "no interval": {"accuracy_ci95": [0.1]},
    "an interval of texts": {"accuracy_ci95": ["0", "1"]},
    "more than all": {"accuracy": 1.5},
    "no questions": {"n": 0},
    "null metrics": {"metrics": None},
    "a metric that is text": {"metrics": {"hr@5": "1"}},
    "a list for a name": {"agent": ["x"]},
    "a number for a name": {"model": 7},
    "seeds of text": {"seeds": ["0"]},
    "more than anybody asks": {"n": 10**12},
    "a share of more than one": {"latent_share": 1.5},
    "an interval beyond all": {"accuracy_ci95": [0.1, 1e308]},
    "an interval turned round": {"accuracy_ci95": [0.9, 0.1]},
    "half an interval": {"metrics_ci95": {"hr@5": [0.1]}},
    "no seeds": {"seeds": []},
    "a seed twice": {"seeds": [3, 3]},
    "fewer than none": {"trained_on": -1},
    "more than were asked": {"trained_on": 3},
    "questions of another number": {"index": [0, 1, 2]},
    "a question twice": {"index": [1, 1]},
    "a question before the first": {"index": [-1, 0]},
    "less than no time": {"wall_s": -1.0},
    "less than no positions": {"forward_positions": {"prompt": -2.0}},
    "options without names": {"config": {"env_options": ["think=3"]}},
    "options of whoever makes it": {"config": {"env_options": {"num_envs": 3}}},
    "another way to reset": {"config": {"env_options": {"autoreset_mode": "SameStep"}}},
    "another task": {"config": {"env_options": {"task": "ProsQA"}}},
    "deep": {"config": {"x": deep(100)}},
    "deeper": {"about": {"x": deep(800)}},
}


@pytest.mark.filterwarnings("ignore::latentgym.system.sealed.UnverifiedWarning")
@pytest.mark.parametrize("older", [False, True], ids=["sealed", "older"])
@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_record_is_refused_in_a_sentence_and_left_out(
    what: str, older: bool, tmp_path: Path, changed: Any
) -> None:
    record().save(tmp_path / "good", [])
    record().save(tmp_path / "foreign", [])
    path = tmp_path / "foreign" / "result.json"
    changed(path, lambda data: data.update(FOREIGN[what]), older=older)
    with pytest.raises(UsageError, match="is damaged") as error:
        load_result(path.parent)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(UsageError):
        find_results([tmp_path])
    refused: list[UsageError] = []
    assert [folder.name for folder, _ in find_results([tmp_path], refused.append)] == ["good"]
    assert [str(each) for each in refused] == [str(error.value)]


HOSTILE = "\x1b[31mred\x07\x9b2J [bold]b[/] [/red] :smile: \u202ereversed"


@pytest.mark.parametrize("name", ["agent", "model", "task", "family", "control"])
def test_the_leaderboard_obeys_no_record(
    name: str,
    tmp_path: Path,
    changed: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record(**{name: HOSTILE}, metrics={"hr@5": 0.5}).save(tmp_path / "[red]x", [])
    monkeypatch.setenv("COLUMNS", "300")
    for how in ([], ["--json"]):
        assert main(["leaderboard", str(tmp_path), *how]) == 0
        said = capsys.readouterr()
        assert all(c.isprintable() or c == "\n" for c in said.err + said.out)
        assert "[bold]b[/] [/red] :smile:" in said.out
        assert how or "[red]x" in said.out
    changed(tmp_path / "[red]x" / "result.json", lambda data: data.update(agent=7))
    assert main(["leaderboard", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "agent cannot be 7" in said.err and "no results in" not in said.err


def test_a_record_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("[" * 200_000)
    with pytest.raises(UsageError, match="nested too deeply"):
        load_result(tmp_path)
    with (tmp_path / "result.json").open("wb") as file:
        file.truncate(2**30)  # without taking room
    with pytest.raises(UsageError, match="is larger than"):
        load_result(tmp_path)


def test_truncated_rollouts_are_noticed(tmp_path: Path) -> None:
    record().save(tmp_path, [{"index": i, "answer": "x" * 50} for i in range(100)])
    path = tmp_path / "rollouts.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UsageError, match="damaged"):
        list(load_rollouts(tmp_path))


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot write"):
        record().save(tmp_path / "file" / "below", [])


Rows = list[dict[str, Any]]


def rows(questions: list[int], seeds: tuple[int, ...] = (0, 1)) -> Rows:
    """Answers of which those to even questions are right."""
    return [
        {"index": q, "seed": s, "completion": "x", "answer": "x", "score": float(q % 2 == 0)}
        for s in seeds
        for q in questions
    ]


ASKED: dict[str, dict[str, Any]] = {
    "the first": {"index": []},
    "chosen": {"index": [4, 9, 2, 7]},
    "older": {"index": None},
    "older, chosen": {"index": None, "questions": [8, 1, 3, 6]},
}


def stored(asked: str) -> tuple[Result, Rows]:
    options = dict(ASKED[asked])
    questions = options.pop("questions", None) or options["index"] or [0, 1, 2, 3]
    return record(n=4, seeds=[0, 1], accuracy=0.5, **options), rows(questions)


@pytest.mark.parametrize("asked", ASKED)
def test_rollouts_that_are_all_there_are_taken(asked: str) -> None:
    result, found = stored(asked)
    require_all(result, found, Path("run"))


def row(seed: int, index: int) -> dict[str, Any]:
    return {**rows([index], (seed,))[0]}


DAMAGES: dict[str, tuple[Any, str]] = {
    "all lost": (lambda found: [], "8 are missing"),
    "one lost": (lambda found: found[:-1], "1 are missing, the first of them to question"),
    "a seed lost": (lambda found: found[:4], "4 are missing"),
    "a seed lost, another twice": (lambda found: found[:4] * 2, "4 are missing"),
    "one doubled": (lambda found: [*found, found[5]], "1 are there more than once"),
    "all doubled": (lambda found: found * 2, "8 are there more than once"),
    "one added": (lambda found: [*found, row(1, 99)], "not of this evaluation.*question 99"),
    "a seed added": (lambda found: [*found, row(7, 2)], "not of this evaluation.*seed 7"),
    "one exchanged": (lambda found: [*found[:-1], row(1, 99)], "1 are missing"),
    "turned round": (lambda found: found[::-1], "8 are out of order"),
    "two exchanged": (lambda found: [found[1], found[0], *found[2:]], "2 are out of order"),
    "seeds mixed": (lambda found: sorted(found, key=lambda r: r["index"]), "are out of order"),
    "of another checkpoint": (lambda found: [{**r, "score": 1.0} for r in found], "accuracy is 1"),
    "no answer": (lambda found: [{**found[0]}, {"index": 0}, *found[2:]], "damaged near line 2"),
    "a score of text": (lambda found: [{**found[0], "score": "1"}, *found[1:]], "near line 1"),
    "an index of a list": (lambda found: [{**found[0], "index": [0]}, *found[1:]], "near line 1"),
    "no row": (lambda found: [*found[:3], [], *found[4:]], "damaged near line 4"),
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("damage", DAMAGES)
def test_rollouts_of_something_else_are_told(asked: str, damage: str) -> None:
    result, found = stored(asked)
    change, sentence = DAMAGES[damage]
    if asked.startswith("older") and damage in ("two exchanged", "turned round"):
        sentence = "are out of order"  # against the order under the other seed
    with pytest.raises(UsageError, match=sentence) as error:
        require_all(result, change(found), Path("run"))
    assert "evaluate again" in str(error.value) and "\n" not in str(error.value)


def test_a_record_of_more_than_is_stored_takes_no_memory() -> None:
    result = record(n=2**31 - 1, seeds=[0, 1], index=[])
    with pytest.raises(UsageError, match=r"4294967290 are missing.*question 2 under seed 0"):
        require_all(result, rows([0, 1]), Path("run"))
