"""Rows of a file that are held out of training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentgym.data import GSM8K, DataError, load


@pytest.mark.parametrize("holdout", [0.1, 0.25, 0.5])
def test_rows_that_are_held_out_are_of_no_other_split(tmp_path: Path, holdout: float) -> None:
    rows = [{"question": f"What is {i}?", "answer": f"#### {i}"} for i in range(40)]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    parts = [load(GSM8K, split, source=file, holdout=holdout) for split in ("train", "test")]
    kept, held = ({question.text for question in part} for part in parts)
    assert len(held) == 40 * holdout and not kept & held and len(kept | held) == 40
    with pytest.raises(DataError, match="held out of a file"):
        load(GSM8K, "train", source="sample", holdout=holdout)


def test_too_few_rows_to_hold_any_out_are_told(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps({"question": "What is 1?", "answer": "#### 1"}) + "\n")
    with pytest.raises(DataError, match=r"holdout=0\.1 leaves it none"):
        load(GSM8K, "test", source=file, holdout=0.1)
