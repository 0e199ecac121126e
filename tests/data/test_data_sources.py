"""Where data is looked for, in which order, and what is said when it is not found."""

from __future__ import annotations

import importlib
import json
import pickle
import subprocess
import sys
import time
import types
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import latentgym
from latentgym.data import (
    DATASETS,
    DataError,
    DatasetSpec,
    HubSpec,
    Question,
    SampleDataWarning,
    available,
    hub,
    load,
    sources,
)
from latentgym.data.files import Row
from latentgym.system import hub as reach


def read(fields: Mapping[str, Any]) -> Question:
    return Question(fields["q"], str(int(fields["a"])))


SPEC = DatasetSpec(
    name="Toy",
    folder="toy",
    files={"train": ("part1", "part2"), "test": ("test",)},
    read=read,
    fields={"q": str, "a": str},
    licence="none",
    url="https://example.org",
    hub=HubSpec("owner/toy", revision="abc", splits={"test": "validation", "extra": "extra"}),
    stand_ins={"train": ("toy/small",)},
)
SAMPLED = replace(DATASETS["GSM8K"], hub=None)


def write(path: Path, *answers: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"q": f"Q{a}", "a": str(a)}) + "\n" for a in answers))


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No network, an empty data folder, and no memory of earlier warnings."""
    monkeypatch.setenv("LATENTGYM_OFFLINE", "1")
    monkeypatch.setenv("LATENTGYM_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(sources, "_warned", set())
    return tmp_path / "data" / "toy"


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """A hub that can be reached and has three rows; the calls it got."""
    calls: list[tuple[object, ...]] = []

    def load_dataset(repo: str, config: str | None, *, split: str, revision: str) -> object:
        calls.append((repo, config, split, revision))
        if repo == "owner/none":
            raise RuntimeError("no such repository")
        return [{"q": f"hub {i}", "a": f"{i}"} for i in range(3)]

    fake = types.ModuleType("datasets")
    fake.load_dataset = load_dataset  # type: ignore[attr-defined]
    fake.__spec__ = importlib.machinery.ModuleSpec("datasets", None)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    for name in ("LATENTGYM_OFFLINE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(reach, "_reachable", lambda address: True)
    return calls


def test_folder_with_several_files(offline: Path) -> None:
    write(offline / "part1.jsonl", 1, 2)
    write(offline / "part2.jsonl", 3)
    data = load(SPEC, "train")
    assert [q.gold for q in data] == ["1", "2", "3"]
    assert (data.source, data.split, len(data)) == ("data:toy", "train", 3)
    assert available(SPEC, "train") == "data:toy"


def test_stand_in_is_named(offline: Path) -> None:
    write(offline / "part1.jsonl", 1, 2)  # part2 is missing, so this does not count
    write(offline / "small.jsonl", 9)
    assert load(SPEC, "train").source == "data:toy/small" == available(SPEC, "train")


def test_stand_ins_of_another_folder(offline: Path) -> None:
    spec = replace(SPEC, stand_ins={"train": ("toy/small", "other/half")})
    write(offline / "small.jsonl", 9)
    with pytest.raises(DataError, match=r"put part1\.jsonl and part2\.jsonl into"):
        load(spec, "train")
    write(offline.parent / "other" / "half.jsonl", 8)
    data = load(spec, "train")
    assert (data.source, [q.gold for q in data]) == ("data:toy/small+other/half", ["9", "8"])


def rows_of(split: str) -> Iterator[Row]:
    yield Row("made", 1, {"q": f"Q of {split}", "a": "1"})


def test_generated_sample() -> None:
    spec = replace(SPEC, sample=rows_of)
    with pytest.warns(SampleDataWarning, match="1 made-up"):
        data = load(spec, "train")
    assert data.source == "sample" == available(spec, "train")
    assert [q.text for q in data] == ["Q of train"]
    assert load(spec, "test", source="sample")[0].text == "Q of test"
    assert list(pickle.loads(pickle.dumps(data))) == list(data)
    with pytest.raises(DataError, match="no split 'tset'"):
        load(spec, "tset", source="sample")
    # Faults in what was made are reported like those of files.
    broken = replace(spec, fields={"missing": str})
    with pytest.raises(DataError, match="made:1: the field 'missing' is missing"):
        load(broken, "test", source="sample")


def test_dataset_is_a_sequence(offline: Path) -> None:
    write(offline / "test.jsonl", 5, 6, 7)
    data = load(SPEC, "test")
    assert data[-1] == Question("Q7", "7")
    assert [q.gold for q in data[1:]] == ["6", "7"]
    assert data[1:].source == data.source
    assert Question("Q6", "6") in data
    with pytest.raises(IndexError):
        data[3]
    assert list(pickle.loads(pickle.dumps(data))) == list(data)
    assert "3 questions from data:toy" in repr(data)


def test_hash_is_of_the_content(offline: Path) -> None:
    write(offline / "test.jsonl", 5, 6)
    first = load(SPEC, "test")
    assert len(first.hash) == 16
    assert first[:1].hash != first.hash == first[:].hash
    write(offline / "other.jsonl", 5, 6)
    assert load(SPEC, "test", source=offline / "other.jsonl").hash == first.hash
    write(offline / "test.jsonl", 6, 5)
    assert load(SPEC, "test").hash != first.hash


def test_explicit_sources(offline: Path) -> None:
    write(offline / "test.jsonl", 5)
    write(offline / "dev.jsonl", 6)
    file, folder = offline / "dev.jsonl", str(offline)
    assert load(SPEC, "test", source=file).source == f"path:{file}"
    assert load(SPEC, "test", source=folder)[0].gold == "5"
    assert load(SPEC, "dev", source=folder)[0].gold == "6"
    with pytest.raises(DataError, match="has no file part1 or part2 or train"):
        load(SPEC, "train", source=folder)
    with pytest.raises(DataError, match="neither a file, a folder nor a hub id"):
        load(SPEC, "test", source="/no/such/place")
    with pytest.raises(DataError, match="LATENTGYM_OFFLINE is set"):
        load(SPEC, "test", source="owner/toy")
    assert load(SAMPLED, "test", source="sample").source == "sample"


def test_limit(offline: Path) -> None:
    write(offline / "test.jsonl", 5, 6, 7)
    assert [q.gold for q in load(SPEC, "test", limit=2)] == ["5", "6"]
    assert len(load(SPEC, "test", limit=3)) == 3
    with pytest.raises(DataError, match="has 3 rows; choose a limit of at most 3"):
        load(SPEC, "test", limit=4)
    for limit in (0, -1):
        with pytest.raises(DataError, match="positive"):
            load(SPEC, "test", limit=limit)


def test_unknown_split() -> None:
    with pytest.raises(DataError, match="no split 'tset'; did you mean 'test'"):
        load(SPEC, "tset")
    with pytest.raises(DataError, match="train"):
        available(SPEC, "zzz")
    assert SPEC.splits == ("train", "test", "extra")


def test_damaged_rows_name_the_line(offline: Path) -> None:
    path = offline / "test.jsonl"
    write(path, 5, "six")
    with pytest.raises(DataError, match=r"test\.jsonl:2: this makes no question of Toy"):
        load(SPEC, "test")[1]
    path.write_text('{"q": "Q", "a": "1"}\n{"q": "Q"}\n')
    with pytest.raises(DataError, match=r"test\.jsonl:2: the field 'a' is missing"):
        load(SPEC, "test")
    path.write_text("\n")
    with pytest.raises(DataError, match="has no rows"):
        load(SPEC, "test")


def test_sample_warns_once_for_each_data_set() -> None:
    with pytest.warns(SampleDataWarning, match=r"24 made-up.*gsm8k/") as caught:
        data = load(SAMPLED, "test")
    assert caught[0].filename == __file__
    assert data.source == "sample" == available(SAMPLED)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(SAMPLED, "test")
        load(SAMPLED, "train")
    with pytest.warns(SampleDataWarning):
        load(replace(SAMPLED, name="Other"), "test")


def test_nothing_found_says_where_to_put_it() -> None:
    with pytest.raises(DataError, match=r"put test\.jsonl into \$LATENTGYM_DATA/toy/"):
        load(SPEC, "test")
    assert available(SPEC) == "generated"


def test_hub(fake_hub: list[tuple[object, ...]]) -> None:
    data = load(SPEC, "test", limit=2)
    assert (data.source, data[1]) == ("hub:owner/toy@abc", Question("hub 1", "1"))
    assert available(SPEC) == "hub:owner/toy@abc"
    assert load(SPEC, "test", source="owner/toy@v2").source == "hub:owner/toy@v2"
    assert load(SPEC, "dev", source="other/toy").source == "hub:other/toy@main"
    assert fake_hub == [
        ("owner/toy", None, "validation", "abc"),
        ("owner/toy", None, "validation", "v2"),
        ("other/toy", None, "dev", "main"),
    ]


def test_folder_comes_before_the_hub(offline: Path, fake_hub: list[tuple[object, ...]]) -> None:
    write(offline / "test.jsonl", 5)
    assert load(SPEC, "test").source == "data:toy"
    assert fake_hub == []


@pytest.mark.usefixtures("fake_hub")
def test_hub_failure() -> None:
    broken = replace(SAMPLED, hub=HubSpec("owner/none", splits={"test": "test"}))
    with pytest.warns(SampleDataWarning, match="no such repository"):
        assert load(broken, "test").source == "sample"
    with pytest.raises(DataError, match="no such repository"):
        load(broken, "test", source="owner/none")
    with pytest.raises(DataError, match=r"hub:owner/toy@main\[test\]:1: the field 'question'"):
        load(SAMPLED, "test", source="owner/toy")


@pytest.mark.usefixtures("fake_hub")
@pytest.mark.parametrize("name", ["LATENTGYM_OFFLINE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_hub_is_not_tried_when_offline(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub.unusable() is None
    monkeypatch.setenv(name, "1")
    assert hub.unusable() == f"{name} is set"
    monkeypatch.setenv(name, "0")
    assert hub.unusable() is None


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9", "https://no-such-host.invalid", "http://192.0.2.1:81"]
)
def test_unreachable_hub_fails_fast(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LATENTGYM_OFFLINE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", *reach._PROXIES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setattr(hub, "find_spec", lambda name: object())
    reach._reachable.cache_clear()
    start = time.perf_counter()
    assert hub.unusable() == f"{address} cannot be reached"
    assert time.perf_counter() - start < reach.PROBE_SECONDS + 3.0


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "rows", "jsonl"])
def test_a_file_of_another_format_says_which_are_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("question,answer\nWhat?,1\n")
    with pytest.raises(DataError, match=rf"{name} is of no format .*\.jsonl\.gz.* with q, a\."):
        load(SPEC, "test", source=tmp_path / name)


@pytest.mark.usefixtures("fake_hub")
def test_the_licence_is_that_of_where_the_rows_come_from(offline: Path, tmp_path: Path) -> None:
    spec = replace(DATASETS["GSM8K"], read=SPEC.read, fields=SPEC.fields, licence="theirs")
    write(tmp_path / "own.jsonl", 1)
    assert load(spec, "test", source=tmp_path / "own.jsonl").licence == "your own"
    assert load(spec, "test").licence == "theirs"  # the hub's copy
    assert load(spec, "test", source="somebody/else").licence == "see somebody/else@main"
    assert load(DATASETS["GSM8K"], "test", source="sample").licence.endswith("made for latentgym")
    write(offline.parent / spec.folder / "test.jsonl", 1)
    assert load(spec, "test").licence == "theirs"


def test_import_is_light() -> None:
    script = (
        "import sys, latentgym.data\n"
        "print(sorted({'datasets', 'pandas', 'pyarrow', 'torch', 'transformers'} "
        "& set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(latentgym.__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[]", done.stderr
