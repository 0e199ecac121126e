"""The commands that are killed and starved, and what each must have made in the end.

A command runs in a fork of this process, which has loaded the library once.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import select
import signal
import sys
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentgym.cli.main import main
from latentgym.retrieval import RetrievalError, read_manifest
from latentgym.retrieval.java import find_java
from latentgym.system.sealed import digests
from latentgym.training import manifest

_MODEL = ("--model", "tiny:gpt2:1x1x16")
_CLOCKS = ("wall_s", "answers_per_s", "created", "git", "sha256")  # no two have them alike


@dataclass(frozen=True)
class Command:
    """What is run.

    Attributes:
        name: of it.
        argv: its words, without `--out`.
        resumes: whether it goes on with `--resume`; others begin again.
        made: what a folder must hold in the end, as something that can be compared.
    """

    name: str
    argv: tuple[str, ...]
    resumes: bool
    made: Callable[[Path], Any]

    def words(self, out: Path) -> list[str]:
        """The whole command line."""
        return [*self.argv, "--out", str(out), *(["--resume"] if self.resumes else [])]


@dataclass(frozen=True)
class End:
    """How a command ended: exit code (negative for a signal), what it said, seconds."""

    code: int
    said: str
    seconds: float

    @property
    def fault(self) -> str | None:
        """What a user must not see."""
        if "Traceback" in self.said:
            return f"traceback: {self.said.strip().splitlines()[-1][:200]}"
        if self.code not in (0, 2, -signal.SIGKILL):
            return f"exit code {self.code}: {self.said.strip()[-200:]}"
        return None


def run(words: list[str], *, seconds: float | None = None, most_bytes: int | None = None) -> End:
    """Run a command of `latentgym` to its end.

    Args:
        words: its command line.
        seconds: after which it is killed.
        most_bytes: of any one file, as if the disk were full then.
    """
    ours, theirs = os.pipe()
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _become(words, theirs, most_bytes)
    os.close(theirs)
    said = b""
    while True:
        left = None if seconds is None else max(0.0, began + seconds - time.monotonic())
        if not select.select([ours], [], [], left)[0]:
            os.kill(pid, signal.SIGKILL)
            seconds = None
        elif part := os.read(ours, 1 << 16):
            said += part
        else:
            break
    os.close(ours)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return End(code, said.decode("utf-8", "replace"), time.monotonic() - began)


def _become(words: list[str], pipe: int, most_bytes: int | None) -> None:
    """In the fork: run the command and end."""
    code = 1
    try:
        for descriptor in (1, 2):
            os.dup2(pipe, descriptor)
        os.close(pipe)
        sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1)
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        with contextlib.suppress(SystemExit):
            code = main(words)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def commands(folder: Path) -> Iterator[Command]:
    """All of them; what they read is written to a folder."""
    _write_movielens(folder / "movielens.zip")
    _write_corpus(folder / "corpus.jsonl")
    grpo = ("--preset", "grpo", "--k", "2", "--grpo.prompts", "4", "--grpo.group-size", "4")
    task = ("mts-grpo", "latent/MNNS-continuous", *_MODEL)
    steps = ("--steps", "30", "--save-every", "1", "--eval-limit", "40")
    yield Command("train", ("train", *task, *grpo, *steps), True, _trained)
    asked = ("--k", "4", "--limit", "200", "--seeds", "0", "1", "--batch", "8")
    yield Command("eval", ("eval", *task, *asked), True, _evaluated)
    data = ("data", "movielens", str(folder / "movielens.zip"), "--core", "2")
    yield Command("data", data, False, digests)
    build = ("index", "build", str(folder / "corpus.jsonl"), "--engine")
    yield Command("index build (bm25s)", (*build, "bm25s"), False, _indexed)
    with contextlib.suppress(RetrievalError):
        find_java()
        yield Command("index build (Lucene)", (*build, "lucene"), False, _counted)


def _trained(out: Path) -> Any:
    newest = manifest.find(out)
    files = manifest.read_manifest(newest)["files"]
    return newest.name, files, [p.name for p in newest.parent.iterdir()], _evaluated(out)


def _evaluated(out: Path) -> Any:
    record = json.loads((out / "result.json").read_text("utf-8"))
    return {key: value for key, value in record.items() if key not in (*_CLOCKS, "checkpoint")}


def _indexed(out: Path) -> Any:
    manifest = read_manifest(out)
    return manifest.passages, manifest.corpus, manifest.files


def _counted(out: Path) -> Any:
    """Lucene numbers its segments as it likes."""
    manifest = read_manifest(out)
    return manifest.passages, manifest.corpus


def _write_movielens(path: Path) -> None:
    rng = random.Random(0)
    titles = "".join(f"{i},Film {i} ({1950 + i % 60}),Drama\n" for i in range(1, 401))
    rows = {(rng.randrange(1, 601), rng.randrange(1, 401)) for _ in range(40_000)}
    ratings = "".join(f"{u},{i},4.0,{10**9 + 977 * n}\n" for n, (u, i) in enumerate(sorted(rows)))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("ml/movies.csv", f"movieId,title,genres\n{titles}")
        file.writestr("ml/ratings.csv", f"userId,movieId,rating,timestamp\n{ratings}")


def _write_corpus(path: Path) -> None:
    rng = random.Random(0)
    words = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("ala", "ero", "iti", "omu", "uka")]
    with path.open("w") as file:
        for number in range(20_000):
            text = " ".join(rng.choices(words, k=30))
            file.write(json.dumps({"id": number, "title": f"T {number}", "text": text}) + "\n")
