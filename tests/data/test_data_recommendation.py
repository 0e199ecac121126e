"""Purchases and catalogues: what is read, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from latentgym.data import DATASETS, DataError, available
from latentgym.data.files import Row
from latentgym.data.items import Catalogue
from latentgym.data.recommendation import THINGS, generated, read_sequence, sequences
from latentgym.data.shop import SPLITS, ShopSettings
from latentgym.errors import UsageError
from latentgym.rewards import TitleGrader

ITEMS = [(0, "Hot"), (1, "Hot Rocks"), (2, "Greatest Hits"), (5, "Greatest  Hits"), (7, "Amélie")]
ROW: dict[str, Any] = {
    "user_id": "u",
    "history_item_id": [0, 7],
    "history_item_title": ["Hot", "Amélie"],
    "item_id": 5,
    "item_title": "Greatest Hits",
}


def catalogue(*items: tuple[Any, Any]) -> Catalogue:
    rows = [Row("f", i + 1, {"item_id": k, "title": t}) for i, (k, t) in enumerate(items)]
    return Catalogue(rows, "f")


def folder(path: Path, rows: list[dict[str, Any]], items: list[tuple[int, str]] | None) -> Path:
    for split in SPLITS:
        (path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    if items is not None:
        lines = [json.dumps({"item_id": k, "title": t}) for k, t in items]
        (path / "items.jsonl").write_text("\n".join(lines))
    return path


def test_items_of_one_title_are_one_entry() -> None:
    found = catalogue(*ITEMS)
    assert found.titles == ("Hot", "Hot Rocks", "Greatest Hits", "Amélie") and len(found) == 4
    assert found.entry_of == {0: 0, 1: 1, 2: 2, 5: 2, 7: 3}


@pytest.mark.parametrize(
    ("items", "what"),
    [
        ([(0, "A")], "has 1 titles"),
        ([(0, "A"), (1, " A ")], "has 1 titles"),
        ([], "has 0 titles"),
        ([(0, "A"), (0, "B")], "f:2: the item 0 is there twice"),
        ([(0, "A"), (1, "\u200b")], "f:2: the title has no visible character"),
        ([(0, "A"), (1, "")], "f:2: .*blank|f:2: .*empty"),
        ([(0, "A"), ("x", "B")], "f:2: .*item_id"),
        ([(0, "A"), (1, None)], "f:2: .*title"),
    ],
)
def test_catalogues_that_cannot_be_used_are_refused(items: Any, what: str) -> None:
    with pytest.raises(DataError, match=what):
        catalogue(*items)


def test_a_row_is_a_question() -> None:
    question = read_sequence(ROW)
    assert question.text == '"Hot", "Amélie"' and question.gold == "Greatest Hits"
    assert question.extra == {"history": (0, 7), "titles": ("Hot", "Amélie"), "item": 5}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"history_item_id": [], "history_item_title": []}, "equally long"),
        ({"history_item_id": [0]}, "equally long"),
        ({"history_item_id": ["0", 7]}, "numbers"),
        ({"history_item_title": ["Hot", None]}, "texts"),
    ],
)
def test_damaged_rows_are_faults(change: dict[str, Any], what: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=what):
        read_sequence({**ROW, **change})


def test_a_users_own_folder_is_read(tmp_path: Path) -> None:
    source = folder(tmp_path, [ROW], ITEMS)
    for where in (source, source / "test.jsonl"):
        data, found = sequences(DATASETS["MovieLens"], "test", source=where)
        assert len(data) == 1 and found.entry_of_title[data[0].gold] == 2


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"history_item_id": [0, 99]}, "test.jsonl:2: .* has no item 99; mend or delete the row"),
        ({"item_id": 99}, "test.jsonl:2: .* has no item 99"),
        ({"item_title": "Hot"}, "test.jsonl:2: .* another title for item 5"),
        ({"item_id": None}, "test.jsonl:2"),
    ],
)
def test_rows_that_the_catalogue_does_not_know_are_refused(
    change: dict[str, Any], what: str, tmp_path: Path
) -> None:
    folder(tmp_path, [ROW, {**ROW, **change}], ITEMS)
    with pytest.raises(DataError, match=what):
        sequences(DATASETS["AmazonCDs"], "test", source=tmp_path)


def test_a_folder_without_items_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, [ROW], None)
    with pytest.raises(DataError, match=r"no file items\.jsonl"):
        sequences(DATASETS["AmazonCDs"], "test", source=tmp_path)


def test_samples_and_generated_shops_are_marked_as_such() -> None:
    for name in THINGS:
        data, found = sequences(DATASETS[name], "valid", source="sample", limit=7)
        assert (data.source, len(data), len(found)) == ("sample", 7, 120)
    data, found = generated(DATASETS["MovieLens"], "test", ShopSettings(items=10, customers=20), 5)
    assert (data.source, data.licence, len(data), len(found)) == ("generated", "generated", 5, 10)
    assert data[:2].licence == "generated"
    with pytest.raises(UsageError, match="generated purchases"):
        generated(DATASETS["MovieLens"], "test", ShopSettings(items=10, customers=20), 10**6)


@pytest.mark.parametrize("name", sorted(THINGS))
def test_the_real_data_is_read_whole(name: str, real_data: str) -> None:
    spec = DATASETS[name]
    sizes = {}
    for split in SPLITS:
        data, found = sequences(spec, split)
        sizes[split] = len(data)
        assert data.source.startswith("data:") and available(spec, split) == data.source
        grader = TitleGrader(found.entry_of_title)
        assert all(grader(f'"{q.gold}"', q.gold).score == 1 for q in data)
        assert not any(grader("qwertz", q.gold).score for q in data)
    assert all(sizes.values())
    if name == "AmazonCDs":  # markup in titles, and 649 items that share theirs
        assert sizes == {"train": 10696, "valid": 6156, "test": 3616} and len(found) == 5377
        assert any(title.startswith("<span") for title in found.titles)
