"""Where the retrieval tasks find their questions and their passages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from latentgym.data import DATASETS, load
from latentgym.data.encyclopedia import Encyclopedia, EncyclopediaSettings, vocabulary
from latentgym.data.retrieval import HOPS, corpus_path, sample_encyclopedia
from latentgym.envs.maths import default_split
from latentgym.envs.retrieval import RetrievalTask
from latentgym.errors import UsageError
from latentgym.retrieval import Retriever, cached_index
from latentgym.spaces import Family
from latentgym.tokenizers import SymbolTokenizer, Tokenizer

_GENERATOR = {field.name for field in fields(EncyclopediaSettings)} | {"hops"}
_SYMBOL_BUDGETS = {"think": 48, "answer": 4, "passage_tokens": 32}


def make_qa(
    name: str, family: Family, tokenizer: Tokenizer | None, options: Mapping[str, Any]
) -> RetrievalTask:
    """A retrieval task by name.

    Args:
        name: NQ, TriviaQA, HotpotQA, 2WikiMultihopQA or Bamboogle.
        family: action family.
        tokenizer: of the model, if there is one.
        options: `split`, `source` and `limit` choose questions; `index` (a folder, `prebuilt:NAME`
            or a retriever), `corpus` (a file) and `engine` say where passages are found; with
            `source=generated` those of `EncyclopediaSettings` and `hops` (default: the task's); the
            rest is `RetrievalTask`'s.

    Raises:
        UsageError: options that cannot work.
        DataError, RetrievalError: data or index cannot be had.
    """
    rest = dict(options)
    split, source, limit = (rest.pop(key, None) for key in ("split", "source", "limit"))
    generator = {key: rest.pop(key) for key in _GENERATOR & rest.keys()}
    where = {key: rest.pop(key, None) for key in ("index", "corpus", "engine")}
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
        data = load(spec, split or default_split(spec.splits), source=source, limit=limit)
        index = None if none else _index(data.source, **where)
        return RetrievalTask(name, family, tokenizer, data, index, **rest)
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
