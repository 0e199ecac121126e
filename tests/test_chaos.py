"""The parts of `make chaos`, each for a few tries."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.chaos import breaks
from benchmarks.chaos.answers import NAMES, hostile
from benchmarks.chaos.breaks import Breaks
from benchmarks.chaos.commands import Command, run
from benchmarks.chaos.flips import Kind, flips, kinds
from benchmarks.chaos.tally import Tally, table
from latentgym.system.sealed import digests

pytestmark = pytest.mark.filterwarnings("ignore::latentgym.system.sealed.UnverifiedWarning")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Kind]]:
    folder = tmp_path_factory.mktemp("files")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATENTGYM_CACHE", str(folder / "cache"))
        yield list(kinds(folder))


def test_a_flipped_bit_is_told_or_changes_nothing(files: list[Kind]) -> None:
    assert len(files) > 12
    for kind in files:
        found = flips(kind, 12, random.Random(kind.name))
        assert (found.tries, found.faults) == (12, [])


def without_hashes(line: str) -> str:
    data = json.loads(line)
    return json.dumps({key: data[key] for key in data if key not in ("sha256", "files")})


@pytest.mark.thorough
def test_a_file_from_before_there_were_hashes_is_told_or_read(tmp_path: Path) -> None:
    """What it says cannot be known then, but nothing shows a traceback."""
    older = ("result.json", "rollouts.jsonl.gz", "journal.jsonl", "manifest.json", "metrics.jsonl")
    files = [kind for kind in kinds(tmp_path) if kind.name.endswith(older)]
    assert len(files) == 6
    for kind in files:
        if kind.name == "journal.jsonl":
            lines = kind.path.read_text().splitlines()
            kind.path.write_text("".join(without_hashes(line) + "\n" for line in lines))
        elif kind.path.suffix == ".json":
            kind.path.write_text(without_hashes(kind.path.read_text()))
    for kind in files:
        anything = Kind(kind.name, kind.path, kind.read, lambda *_: True)
        assert flips(anything, 80, random.Random(kind.name)).faults == []


def test_a_file_that_says_something_else_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "plain"
    path.write_text("text without a hash")
    found = flips(Kind("plain", path, path.read_bytes), 5, random.Random(0))
    assert found.lost == 5 and "read as something else" in found.faults[0]
    number = Kind("number", path, lambda: float(path.read_text(errors="replace")))
    path.write_text("1")
    assert any("ValueError" in fault for fault in flips(number, 20, random.Random(0)).faults)


@pytest.mark.parametrize("grader", NAMES)
def test_a_hostile_answer_gets_a_grade(grader: str) -> None:
    assert hostile(grader, 12, random.Random(grader)).faults == []


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """A command that takes a moment."""
    monkeypatch.setenv("LATENTGYM_CACHE", str(tmp_path / "cache"))
    corpus = tmp_path / "corpus.jsonl"
    rows = ({"id": i, "contents": f"word{i} and a smith"} for i in range(50))
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("index", "build", str(corpus), "--engine", "bm25s")
    return Command("index", words, False, lambda out: digests(out / "bm25s"))


def test_a_command_survives_kills_and_full_disks(build: Command, tmp_path: Path) -> None:
    broken = Breaks(build, tmp_path / "broken", random.Random(0))
    for found in (broken.kills(3), broken.full_disks(2)):
        assert found.tries >= 2 and found.faults == []


def test_what_is_lost_is_found(
    build: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Breaks(build, tmp_path / "broken", random.Random(0))
    out = tmp_path / "more" / "out"
    assert broken._fault_in_the_end(out, finished=False) is None
    (out.parent / ".latentgym-left").mkdir()
    assert "is left behind" in str(broken._fault_in_the_end(out, finished=True))
    broken.expected = {}
    assert "something else" in str(broken._fault_in_the_end(out, finished=True))
    monkeypatch.setattr(breaks, "_SECONDS", 0.1)
    wait = [sys.executable, "-c", "print('on', flush=True); input()", str(broken.folder)]
    with subprocess.Popen(wait, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stray:
        assert stray.stdout is not None and stray.stdout.readline() == b"on\n"
        assert "leaves a process behind" in str(broken._stray())
        stray.kill()
    assert broken._stray() is None


def test_a_command_says_how_it_ended() -> None:
    end = run(["leaderboard", "/nowhere/at/all"])
    assert end.code == 2 and "there is no folder" in end.said and end.fault is None
    assert run(["train", "cot", "latent/MNNS-token"], seconds=0.0).code == -9


TASK = ("mts-grpo", "latent/MNNS-continuous", "--model", "tiny:gpt2:1x1x16")
STARVED = {
    "train": ("train", *TASK, "--preset", "csft", "--steps", "3", "--eval-limit", "8"),
    "eval": ("eval", *TASK, "--limit", "30", "--batch", "8"),
}


@pytest.mark.parametrize("command", ["train", pytest.param("eval", marks=pytest.mark.thorough)])
def test_a_full_disk_is_a_sentence(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENTGYM_CACHE", str(tmp_path / "cache"))
    named = set()
    for most in (0, 10, 100, 1000, 4000):  # bytes of a file
        words = [*STARVED[command], "--out", str(tmp_path / str(most))]
        end = run(words, most_bytes=most)
        assert end.code == 2 and end.fault is None, end.said
        last = end.said.strip().splitlines()[-1]
        assert "cannot write" in last and "make room" in last
        named |= {name for name in ("metrics", "tensorboard", "step-", "journal") if name in last}
    assert len(named) >= (3 if command == "train" else 1)


def test_the_table_adds_up() -> None:
    tally = Tally("one")
    tally.add(None, 3)
    tally.add("lost")
    assert (tally.tries, tally.survived, tally.lost, tally.faults) == (4, 3, 1, ["lost"])
    assert table([tally, tally]).splitlines()[2:] == [
        "| one | 4 | 3 | 1 |",
        "| one | 4 | 3 | 1 |",
        "| all | 8 | 6 | 2 |",
    ]
    assert json.dumps(vars(tally))
