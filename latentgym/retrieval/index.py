"""Indexes: a folder with a manifest, complete or not there.

manifest.json    what was indexed, by what
lucene/ or bm25s/
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from math import isfinite
from pathlib import Path

from latentgym.errors import UsageError, did_you_mean
from latentgym.retrieval.bm25s_engine import BM25sRetriever, library
from latentgym.retrieval.java import find_java
from latentgym.retrieval.lucene import LuceneRetriever
from latentgym.retrieval.retriever import RetrievalError, Retriever
from latentgym.system.sealed import damaged, note_unverified, read_sealed

SCHEMA = 1
MANIFEST = "manifest.json"
ENGINES = ("lucene", "bm25s")
PREBUILT = "prebuilt:"
K1, B = 0.9, 0.4  # Anserini's own, and those of most published results

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Manifest:
    """What an index holds.

    Attributes:
        engine, version: what built it.
        passages: how many.
        corpus: their fingerprint.
        k1, b: of BM25.
        created: when.
        files: SHA-256 of each of the engine's files; empty in indexes from before.
        schema: of the folder.
    """

    engine: str
    version: str
    passages: int
    corpus: str
    k1: float
    b: float
    created: str
    files: Mapping[str, str] = field(default_factory=dict)
    schema: int = SCHEMA


def choose_engine(engine: str) -> str:
    """The engine of that name; for `auto`, Lucene where it can run, else bm25s.

    Raises:
        UsageError: no such engine.
        RetrievalError: what it needs is missing.
    """
    if engine == "auto":
        try:
            find_java()
        except RetrievalError as error:
            library()
            log.warning("using engine bm25s, which ranks a little otherwise: %s", error)
            return "bm25s"
        log.info("using engine lucene")
        return "lucene"
    if engine not in ENGINES:
        raise UsageError(f"no engine {engine!r}; {did_you_mean(engine, [*ENGINES, 'auto'])}")
    find_java() if engine == "lucene" else library()
    return engine


def engine_version(engine: str) -> str:
    """The version of an engine that is installed."""
    return find_java().anserini if engine == "lucene" else metadata.version("bm25s")


def read_manifest(folder: Path) -> Manifest:
    """What an index holds.

    Raises:
        RetrievalError: the folder is no index of ours, or of another version.
    """
    path = folder / MANIFEST
    try:
        fields, _ = read_sealed(path)
        schema = fields["schema"]
        if schema == SCHEMA:
            return _typed(Manifest(**fields))
    except FileNotFoundError:
        raise RetrievalError(
            f"{folder} is no index; build one with latentgym index build CORPUS --out {folder}."
        ) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RetrievalError(f"{path} is damaged ({error}); build the index again.") from error
    raise RetrievalError(
        f"{folder} is an index of version {schema}, but this latentgym reads {SCHEMA}; build it "
        "again."
    )


def _typed(manifest: Manifest) -> Manifest:
    """The manifest, unless it was made by hand.

    Raises:
        TypeError: a field is of another kind than it should be.
    """
    m = manifest
    texts, numbers = (m.engine, m.version, m.corpus, m.created), (m.passages, m.k1, m.b)
    right = all(isinstance(text, str) for text in texts) and m.engine in ENGINES
    if not right or not all(isinstance(n, int | float) and isfinite(n) for n in numbers):
        raise TypeError("its fields are not those of an index")
    if not isinstance(m.files, dict):
        raise TypeError("it does not list its files")
    return manifest


def open_index(where: str | Path) -> Retriever:
    """The retriever of an index, whose files are those that were written.

    One from elsewhere is not looked into before the first search.

    Args:
        where: a folder that `build_index` has made; one that Anserini or pyserini has; or
            `prebuilt:NAME` for one of pyserini's, which is downloaded on first use.

    Raises:
        RetrievalError: there is no such index, or its engine is missing.
    """
    name = str(where)
    if name.startswith(PREBUILT):
        find_java()
        index = name.removeprefix(PREBUILT)
        about = {"engine": "lucene", "index": name, "corpus": None}
        return LuceneRetriever(index, about, k1=K1, b=B, prebuilt=True)
    folder = Path(where).expanduser()
    if any(folder.glob("segments_*")) and not (folder / MANIFEST).exists():
        about = {"engine": "lucene", "index": folder.name, "corpus": None}
        return LuceneRetriever(str(folder), about, k1=K1, b=B)
    manifest = read_manifest(folder)
    if not (folder / manifest.engine).is_dir():
        raise RetrievalError(f"{folder} lacks its folder {manifest.engine}; build it again.")
    installed = engine_version(choose_engine(manifest.engine))
    if installed.split(".")[:2] != manifest.version.split(".")[:2]:
        raise RetrievalError(
            f"{folder} was built by {manifest.engine} {manifest.version}, but {installed} is "
            "installed; build it again."
        )
    if not manifest.files:
        note_unverified(f"the index {folder}")
    elif fault := damaged(folder / manifest.engine, manifest.files):
        raise RetrievalError(
            f"{folder} is damaged ({fault} is not what was written); build it again."
        )
    return retriever_in(folder, manifest)


def retriever_in(folder: Path, manifest: Manifest) -> LuceneRetriever | BM25sRetriever:
    """The retriever of a folder with that manifest."""
    names = ("engine", "version", "passages", "corpus", "k1", "b")
    about = {name: getattr(manifest, name) for name in names}
    inner = folder / manifest.engine
    if manifest.engine == "bm25s":
        return BM25sRetriever(inner, about)
    return LuceneRetriever(str(inner), about, k1=manifest.k1, b=manifest.b)
