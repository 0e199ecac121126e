"""Where the retrieval tasks find their questions and their passages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from latentgym.data import DATASETS, load
from latentgym.data.encyclopedia import Encyclopedia, EncyclopediaSettings, vocabulary
from latentgym.data.retrieval import HOPS, corpus_path, sample_encyclopedia
from latentgym.envs.arguments import Holdout, Limit, Source, Split
from latentgym.envs.catalogue import GENERATED, NOTHING_HELD, Makers
from latentgym.envs.maths import default_split
from latentgym.envs.retrieval import RetrievalTask
from latentgym.envs.task import TaskMaker
from latentgym.episodes.spaces import Family
from latentgym.errors import UsageError
from latentgym.retrieval import Retriever, cached_index
from latentgym.system.options.keywords import Option, keywords
from latentgym.text.tokenizers import SymbolTokenizer, Tokenizer

_SYMBOL_BUDGETS = {"think": 48, "answer": 4, "passage_tokens": 32}


@dataclass(frozen=True)
class _Where:
    """Where questions and passages come from."""

    split: Split | None = None
    source: Source | None = None
    holdout: Holdout = 0.0
    limit: Limit | None = None
    index: (
        Annotated[
            Any, Option("where passages are found: a folder, `prebuilt:NAME`, or a retriever")
        ]
        | None
    ) = None
    corpus: Annotated[str | Path, Option("a file of passages, to be indexed")] | None = None
    engine: Annotated[str, Option("`lucene`, `bm25s` or `auto`")] | None = None


@dataclass(frozen=True)
class _Asked:
    """What generated questions are like, beside the encyclopedia."""

    hops: Annotated[int, Option("passages that a question needs; by default the task's", 1, 2)] = 1


_GENERATOR = keywords(EncyclopediaSettings).keys() | keywords(_Asked).keys()


def _make_qa(
    name: str, family: Family, tokenizer: Tokenizer | None, options: Mapping[str, Any]
) -> RetrievalTask:
    rest = dict(options)
    where = {key: rest.pop(key, None) for key in keywords(_Where)}
    split, source, limit = (where.pop(key) for key in ("split", "source", "limit"))
    holdout = where.pop("holdout") or 0.0
    generator = {key: rest.pop(key) for key in _GENERATOR & rest.keys()}
    none = rest.get("passages") == 0
    if none and (useless := [key for key, value in where.items() if value is not None]):
        raise UsageError(f"passages=0 shows none; leave {' and '.join(useless)} out.")
    if source != "generated":
        if generator:
            raise UsageError(
                f"only generated questions have {' and '.join(sorted(generator))}; add "
                "source=generated."
            )
        spec = DATASETS[name]
        split = split or default_split(spec.splits)
        data = load(spec, split, source=source, limit=limit, holdout=holdout)
        index = None if none else _index(data.source, **where)
        return RetrievalTask(name, family, tokenizer, data, index, **rest)
    if holdout:
        raise UsageError(NOTHING_HELD)
    hops = generator.pop("hops", HOPS[name])
    symbols = tokenizer is None
    world = Encyclopedia(EncyclopediaSettings(**generator), symbols)
    questions = world.questions(split or "train", hops)
    if limit is not None:
        if not 1 <= limit <= len(questions):
            raise UsageError(
                f"{name} {questions.split} has {len(questions)} generated questions, not {limit}."
            )
        questions = questions[:limit]
    if symbols:
        rest = {**_SYMBOL_BUDGETS, **rest}
        tokenizer = SymbolTokenizer(vocabulary())
    index = None if none else _index("generated", **where, world=world)
    return RetrievalTask(name, family, tokenizer, questions, index, **rest)


def _qa_takes(name: str, as_text: bool) -> Makers:
    return [
        ("", _Where),
        ("", RetrievalTask),
        (GENERATED, _Asked),
        (GENERATED, EncyclopediaSettings),
    ]


make_qa = TaskMaker(_make_qa, _qa_takes)
"""Questions over a corpus."""


def _index(
    source: str,
    *,
    index: Retriever | str | Path | None,
    corpus: str | Path | None,
    engine: str | None,
    world: Encyclopedia | None = None,
) -> Retriever | str | Path:
    """Where the passages for questions of that source are found."""
    if index is not None:
        if corpus is not None or engine is not None:
            raise UsageError("an index has its corpus and engine; leave corpus and engine out.")
        return index
    passages: Any = corpus
    if passages is None:
        world = sample_encyclopedia() if source == "sample" else world
        passages = corpus_path() if world is None else world.passages
    if passages is None:
        raise UsageError(
            "there is no corpus to search for these questions; give index= or corpus=, put "
            "corpus.jsonl into $LATENTGYM_DATA/wiki_passages/, or set passages=0."
        )
    return cached_index(passages, engine or "auto")
