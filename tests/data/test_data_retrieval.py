"""The question answering sets: where they are found, their sample and their corpus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from latentgym.data import DATASETS, Dataset, available, load
from latentgym.data.files import read_rows
from latentgym.data.retrieval import HOPS, corpus_path, read_qa, sample_encyclopedia
from latentgym.rewards import SpanGrader

SPLITS = {
    "NQ": ("train", "dev", "test"),
    "TriviaQA": ("train", "dev", "test"),
    "HotpotQA": ("train", "dev"),
    "2WikiMultihopQA": ("train", "dev"),
    "Bamboogle": ("test",),
}
PAIRS = [(name, split) for name, splits in SPLITS.items() for split in splits]


def test_reading_rows() -> None:
    row = {"id": "7", "question": " Q? ", "golden_answers": ["A \n b", "c"], "metadata": {}}
    question = read_qa(row)
    assert (question.text, question.gold, question.steps) == ("Q?", "A b", ())
    assert question.extra == {"id": "7", "forms": ("c",)}
    more = read_qa({**row, "steps": ["s"], "hops": 1, "queries": ["q"], "passages": ["p"]})
    assert more.steps == ("s",)
    assert more.extra == {**question.extra, "hops": 1, "queries": ["q"], "passages": ["p"]}


def test_where_they_are() -> None:
    assert HOPS.keys() == SPLITS.keys()
    for name, splits in SPLITS.items():
        spec = DATASETS[name]
        assert spec.splits == splits
        assert spec.hub and spec.hub.repo == "RUC-NLPIR/FlashRAG_datasets"
        assert spec.hub.config == spec.folder == name.lower()
        assert dict(spec.hub.splits) == {split: split for split in splits}


@pytest.mark.parametrize(("name", "split"), PAIRS)
def test_samples(name: str, split: str) -> None:
    data = load(DATASETS[name], split, source="sample")
    assert len({question.text for question in data}) == len(data) >= 200
    passages = {p.id: p for p in sample_encyclopedia().passages}
    assert len(passages) == 300
    for question in data:
        assert question.extra["hops"] == HOPS[name] == len(question.steps)
        assert [passages[i].title for i in question.extra["passages"]] == list(
            question.extra["queries"]
        )
        grader = SpanGrader(question.extra["forms"])
        assert all(grader.alone(g, question.gold).score for g in (question.gold, *grader.forms))


def test_sample_stands_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LATENTGYM_OFFLINE", "1")
    monkeypatch.setenv("LATENTGYM_DATA", str(tmp_path))
    assert available(DATASETS["HotpotQA"], "dev") == "sample"
    assert load(DATASETS["HotpotQA"], "dev").source == "sample"
    assert corpus_path() is None
    folder = tmp_path / "wiki_passages"
    folder.mkdir()
    (folder / "corpus.jsonl.gz").touch()
    assert corpus_path() == folder / "corpus.jsonl.gz"
    monkeypatch.delenv("LATENTGYM_DATA")
    assert corpus_path() is None


# As the READMEs of the files have it.
@pytest.mark.parametrize(
    ("name", "split", "source", "rows"),
    [
        ("NQ", "train", "data:nq/train_efficientqa_dev+nq/train_efficientqa_test", 3568),
        ("NQ", "test", "data:nq", 3610),
        ("TriviaQA", "dev", "data:triviaqa/validation_extra", 581),
        ("TriviaQA", "test", "data:triviaqa", 1000),
        ("HotpotQA", "train", "data:multihop_train/train", 8297),
        ("HotpotQA", "dev", "data:hotpotqa", 4443),
        ("2WikiMultihopQA", "train", "data:multihop_train/train", 8297),
        ("2WikiMultihopQA", "dev", "data:2wikimultihopqa", 1000),
        ("Bamboogle", "test", "data:bamboogle", 125),
    ],
)
def test_real_data(
    name: str, split: str, source: str, rows: int, real_dataset: Callable[..., Dataset]
) -> None:
    data = real_dataset(name, split)
    if data.source != source:
        pytest.skip(f"{name} {split} is from {data.source} here")
    assert (len(data), available(DATASETS[name], split)) == (rows, source)
    assert len({question.extra["id"] for question in data}) == rows
    assert all(question.text and question.gold for question in data)


def test_real_corpus() -> None:
    path = corpus_path()
    if path is None:
        pytest.skip("set LATENTGYM_DATA to a folder with wiki_passages to run this")
    row = next(iter(read_rows(path)))
    assert set(row.fields) >= {"id", "contents"}
