"""`latentgym index build CORPUS --out DIR`, `index search DIR QUERY`, `index info DIR`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from latentgym.cli.options import act, emit, output, parse
from latentgym.system.options.ranges import NotNegative, Share, Size
from latentgym.system.terminal import say, shown

_SNIPPET = 160


@dataclass(frozen=True)
class BuildOptions:
    """Options of index build."""

    corpus: tyro.conf.Positional[Path]
    """A .jsonl, .jsonl.gz or .json file: an id and contents in a row, or id, title and text."""
    out: Path
    """The folder to make."""
    engine: str = "auto"
    """lucene, bm25s, or auto for the first of them that can run."""
    k1: NotNegative = 0.9
    """Of BM25: how soon further occurrences of a word stop to count."""
    b: Share = 0.4
    """Of BM25: how much long passages are marked down."""
    threads: Size = 2
    """Of Lucene."""
    json: bool = False
    """Print one JSON line on stdout, and nothing else there."""


@dataclass(frozen=True)
class SearchOptions:
    """Options of index search."""

    index: tyro.conf.Positional[str]
    """Folder of an index, or prebuilt:NAME for one of pyserini's."""
    query: tyro.conf.Positional[str]
    """What to search for."""
    k: Annotated[Size, tyro.conf.arg(aliases=["-k"])] = 5
    """How many passages."""
    json: bool = False
    """Print one JSON line on stdout, and nothing else there."""


@dataclass(frozen=True)
class InfoOptions:
    """Options of index info."""

    index: tyro.conf.Positional[Path]
    """Folder of an index."""
    json: bool = False
    """Print one JSON line on stdout, and nothing else there."""


def main(argv: Sequence[str]) -> int:
    """Build, search or describe an index."""
    actions = {
        "build": (_build, "an index of a file of passages"),
        "search": (_search, "the passages that an index finds"),
        "info": (_info, "what an index holds"),
    }
    return act("index", actions, argv)


def _build(argv: Sequence[str]) -> int:
    from latentgym.retrieval import build_index

    o = parse(BuildOptions, argv, "index build", "Index a corpus for retrieval tasks.")
    manifest = build_index(o.corpus, o.out, engine=o.engine, k1=o.k1, b=o.b, threads=o.threads)
    say(f"{o.out}: {manifest.passages} passages, engine {manifest.engine} {manifest.version}")
    emit(asdict(manifest), o.json)
    return 0


def _search(argv: Sequence[str]) -> int:
    from latentgym.retrieval import open_index

    o = parse(SearchOptions, argv, "index search", "Search an index.")
    retriever = open_index(o.index)
    try:
        [hits] = retriever.search([o.query], o.k)
    finally:
        retriever.close()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("rank", "score", "id", "title", "text"):
        table.add_column(name, justify="right" if name in ("rank", "score") else "left")
    for rank, hit in enumerate(hits, start=1):
        p = hit.passage
        cells = [shown(text, _SNIPPET) for text in (p.id, p.title, p.text)]
        table.add_row(str(rank), f"{hit.score:.3f}", *cells)
    if hits:
        output(o.json).print(table)
    else:
        say("nothing was found; try other words.")
    found = [{"score": hit.score, **asdict(hit.passage)} for hit in hits]
    emit({"query": o.query, "about": dict(retriever.about), "hits": found}, o.json)
    return 0


def _info(argv: Sequence[str]) -> int:
    from latentgym.retrieval import read_manifest

    o = parse(InfoOptions, argv, "index info", "Say what an index holds.")
    facts = asdict(read_manifest(o.index))
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in facts.items():
        table.add_row(shown(name), shown(value, _SNIPPET))
    output(o.json).print(table)
    emit(facts, o.json)
    return 0
