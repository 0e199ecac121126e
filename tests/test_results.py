"""The result record: written whole or not at all, and refused in one sentence when damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from latentgym.errors import UsageError
from latentgym.results import (
    Result,
    find_results,
    load_result,
    load_rollouts,
    versions,
)
from latentgym.storage import atomic_write


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


def test_a_record_that_lacks_a_key_is_refused_by_name(tmp_path: Path) -> None:
    record().save(tmp_path, [])
    data = json.loads((tmp_path / "result.json").read_text())
    del data["accuracy"]
    (tmp_path / "result.json").write_text(json.dumps(data))
    with pytest.raises(UsageError, match="accuracy"):
        load_result(tmp_path)


def test_a_later_key_does_not_break_an_older_reader(tmp_path: Path) -> None:
    record().save(tmp_path, [])
    data = json.loads((tmp_path / "result.json").read_text())
    (tmp_path / "result.json").write_text(json.dumps({**data, "later": 1}))
    assert load_result(tmp_path).accuracy == 0.5


@pytest.mark.parametrize("key", ["oracle", "about", "metrics_ci95"])
def test_a_record_from_before_a_key_is_read(key: str, tmp_path: Path) -> None:
    record().save(tmp_path, [])
    path = tmp_path / "result.json"
    data = json.loads(path.read_text())
    del data[key]
    path.write_text(json.dumps(data))
    assert not getattr(load_result(tmp_path), key)


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
