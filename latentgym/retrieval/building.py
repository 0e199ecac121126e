"""Building indexes, whole or not at all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path

from latentgym.data.passage import Passage
from latentgym.errors import UsageError
from latentgym.progress import progress_bar
from latentgym.retrieval.bm25s_engine import write_index
from latentgym.retrieval.corpus import Fingerprint, contents, fingerprint, read_corpus
from latentgym.retrieval.index import (
    K1,
    MANIFEST,
    SCHEMA,
    B,
    Manifest,
    choose_engine,
    engine_version,
    retriever_in,
)
from latentgym.retrieval.java import find_java
from latentgym.retrieval.lucene import HEAP_MB, QUIET
from latentgym.retrieval.retriever import RetrievalError
from latentgym.storage import atomic_write, cache_folder, locked, writable, writable_cache
from latentgym.system.sealed import digests, sealed

_WITH_PARENT = Path(__file__).with_name("_with_parent.py")
_SEVERAL = 1000  # passages between two looks at the progress bar

Corpus = str | Path | Sequence[Passage]


def build_index(
    corpus: Corpus,
    out: Path,
    *,
    engine: str = "auto",
    k1: float = K1,
    b: float = B,
    threads: int = 2,
) -> Manifest:
    """Index a corpus into a folder that is not there yet.

    Everything is checked before the engine begins, and the number of passages after it has ended; a
    build that is killed leaves nothing behind that could be taken for an index.

    Args:
        corpus: a file, see `read_corpus`, or passages with unique ids.
        out: the folder.
        engine: `lucene`, `bm25s` or `auto`.
        k1, b: of BM25; both engines take them, Lucene when it searches.
        threads: of Lucene.

    Raises:
        UsageError: a setting that cannot work, or `out` is there already.
        DataError: a damaged corpus.
        RetrievalError: the engine is missing, or it failed.
    """
    if not (k1 >= 0 and 0 <= b <= 1 and threads >= 1):
        raise UsageError(
            f"BM25 has k1 >= 0 and b from 0 to 1, and threads are at least 1, but they are {k1}, "
            f"{b} and {threads}."
        )
    engine = choose_engine(engine)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already; choose another --out, or delete it.")
    with writable(out), _under_way(out) as partial:
        source, found = _written(corpus, partial / "corpus")
        build = _build_lucene if engine == "lucene" else _build_bm25s
        build(source, partial / engine, k1, b, threads)
        shutil.rmtree(source.parent)
        manifest = Manifest(
            engine=engine,
            version=engine_version(engine),
            passages=found[0],
            corpus=found[1],
            k1=k1,
            b=b,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            files=digests(partial / engine),
        )
        retriever = retriever_in(partial, manifest)
        indexed = retriever.count()
        retriever.close()
        if indexed != manifest.passages:
            raise RetrievalError(
                f"{engine} has indexed {indexed} of {manifest.passages} passages; report this with "
                "the corpus, or try the other engine."
            )
        (partial / MANIFEST).write_text(json.dumps(sealed(asdict(manifest)), indent=2) + "\n")
    return manifest


@contextmanager
def _under_way(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place in the end, or is not there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as partial:
        partial.mkdir()
        yield partial


def _written(corpus: Corpus, folder: Path) -> tuple[Path, tuple[int, str]]:
    """The corpus as a file that every engine reads alike; its size and fingerprint."""
    passages: Iterable[Passage]
    if isinstance(corpus, str | Path):
        passages, total = read_corpus(Path(corpus)), None
    else:
        passages, total = corpus, len(corpus)
        if len({passage.id for passage in corpus}) < len(corpus):
            raise UsageError("passages must have unique ids, but some share one.")
    folder.mkdir()
    path, digest, n = folder / "passages.jsonl", Fingerprint(), 0
    with path.open("w", encoding="ascii") as file, progress_bar("read", total) as advance:
        for n, passage in enumerate(passages, start=1):
            digest.add(passage)
            file.write(json.dumps({"id": passage.id, "contents": contents(passage)}) + "\n")
            if n % _SEVERAL == 0:
                advance(_SEVERAL)
        advance(n % _SEVERAL)
    if not n:
        raise UsageError("there are no passages to index; give at least one.")
    return path, (n, str(digest))


def _build_lucene(source: Path, folder: Path, k1: float, b: float, threads: int) -> None:
    java = find_java()
    command = [
        *(str(java.home / "bin" / "java"), f"-Xmx{HEAP_MB}m", *QUIET, "-cp", str(java.jar)),
        *("io.anserini.index.IndexCollection", "-collection", "JsonCollection"),
        *("-input", str(source.parent), "-index", str(folder), "-threads", str(threads)),
        *("-generator", "DefaultLuceneDocumentGenerator", "-storeRaw"),
        # Or it would collect gigabytes before it writes, far more than the heap holds.
        *("-memoryBuffer", str(HEAP_MB // 4)),
    ]
    with progress_bar("index with Lucene", None):
        code, text = _run(command)
    if code or not folder.is_dir():
        said = [line for line in text.splitlines() if line.strip()]
        raise RetrievalError(
            f"Lucene could not index the corpus ({' '.join(said[-1:]) or code}); is "
            f"there room on the disk, and memory for {HEAP_MB} MB?"
        )


def _run(command: Sequence[str]) -> tuple[int, str]:
    """Run a command that does not outlive this process; its exit code, and all that it says."""
    with subprocess.Popen(
        [sys.executable, "-I", str(_WITH_PARENT), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            said = process.stdout.read()
        finally:
            process.stdin.close()  # which ends it, if this was interrupted
    return process.returncode, said.decode("utf-8", "replace")


def _build_bm25s(source: Path, folder: Path, k1: float, b: float, threads: int) -> None:
    with progress_bar("index with bm25s", None):
        write_index(read_corpus(source), folder, k1, b)


def cached_index(corpus: Corpus, engine: str = "auto") -> Path:
    """The index of a corpus in the user's cache folder, built on first use.

    Several processes may ask for it at once; one of them builds it.

    Raises:
        DataError, RetrievalError, UsageError: see `build_index`.
    """
    engine = choose_engine(engine)
    if isinstance(corpus, str | Path):
        path = Path(corpus).expanduser().resolve()
        if not path.is_file():
            raise UsageError(f"there is no corpus {path}; give a .jsonl, .jsonl.gz or .json file.")
        state = path.stat()
        what = f"{path} {state.st_size} {state.st_mtime_ns}"
    else:
        what = fingerprint(corpus)
    version = engine_version(engine)
    # Those from before there were hashes have other names, and are left alone.
    key = sha256(f"{SCHEMA} hashed {engine} {version} {K1} {B} {what}".encode()).hexdigest()[:16]
    out = cache_folder() / "indexes" / f"{engine}-{key}"
    if not (out / MANIFEST).exists():
        with writable_cache(), locked(out.with_suffix(".lock")):
            if not (out / MANIFEST).exists():
                build_index(corpus, out, engine=engine)
    return out
